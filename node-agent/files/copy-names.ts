import { statFd } from '../kernel/file-calls.ts'
import { type Filter, makeFilter } from './filter.ts'
import { isReplicated } from './listing.ts'
import { crowdedNames, inTurns, type Part, parted, readNames } from './parts.ts'
import type { Tree } from './tree.ts'

/** Large directories whose names are kept by their parts while they are compared. */
const dividedMax = 2

/** The names in the directories of the backup's copy, for comparing them part by part as the sender divides them. */
export class CopyNames {
  readonly #tree: Tree
  #filter: Filter = makeFilter({ include: [], exclude: [] })
  #hashStart = 0
  /** By path; as of when the first part was asked for. What came since is named by the sender. */
  readonly #divided = new Map<string, { count: number; parts: string[][] }>()

  constructor(tree: Tree) {
    this.#tree = tree
  }

  /** As another sender, or the same one again, has it. */
  begin(part: { filter: Filter; hashStart: number }): void {
    this.#filter = part.filter
    this.#hashStart = part.hashStart
    this.forget()
  }

  forget(): void {
    this.#divided.clear()
  }

  /** Of a part of a directory, and how many the whole has; null when it is not here. @throws what the disk says */
  async of(path: string, part: Part, what: 'anew' | 'as known'): Promise<{ names: string[]; count: number } | null> {
    const known = what === 'anew' ? undefined : this.#divided.get(path)
    if (known?.parts.length === part.count) return { names: known.parts[part.index]!, count: known.count }
    this.#divided.delete(path)
    const names = await inTurns(readNames(this.directory(path), name => isReplicated(this.#filter, path, name)))
    if (names === null) return null
    const count = names.length
    // Of so many each part would be too large: the sender divides them anew.
    if (part.count === 1 || count > crowdedNames * part.count) return { names, count }
    const parts = await inTurns(parted(names, { count: part.count, start: this.#hashStart }))
    const [oldest] = this.#divided.keys()
    if (oldest !== undefined && this.#divided.size >= dividedMax) this.#divided.delete(oldest)
    this.#divided.set(path, { count, parts })
    return { names: parts[part.index]!, count }
  }

  /** Negative when it can't be opened. */
  directory(path: string): number {
    const fd = this.#tree.directory(path)
    const own = fd < 0 ? fd : statFd(fd)
    if (typeof own === 'number' || own.links > 0) return fd
    // Somebody removed it while we have it open.
    this.#tree.forget()
    return this.#tree.directory(path)
  }
}
