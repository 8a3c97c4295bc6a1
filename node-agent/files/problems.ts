import type { NackCode } from './messages.ts'
import { joinPath, showName } from './names.ts'
import type { Entry } from './work-queue.ts'

/** More are counted as "100 and more": a bad disk has as many as files. */
const problemsMax = 100
const shownMax = 10

/** What can't be replicated, or not now, and why. */
export class Problems {
  readonly #byPath = new Map<string, string>()
  /** What the backup can't take, while it takes others. */
  readonly #refused = new Map<string, string>()
  readonly #note: (sentence: string) => void

  constructor(note: (sentence: string) => void) {
    this.#note = note
  }

  get size(): number {
    return this.#byPath.size + this.#refused.size
  }

  /** `null`: it is none any more. */
  set(path: string, why: string | null): void {
    if (why === null) this.#byPath.delete(path)
    else this.#keep(this.#byPath, path, why)
  }

  /** It is not there any more, nor is anything below it. */
  gone(path: string): void {
    for (const known of [this.#byPath, this.#refused]) {
      for (const one of known.keys()) if (one === path || one.startsWith(`${path}/`)) known.delete(one)
    }
  }

  /** The backup's answer to an operation, with what it was about. */
  refused(entry: Entry | undefined, code: NackCode): void {
    if (entry !== undefined) this.#keep(this.#refused, pathOf(entry), `the backup refuses it: ${code}`)
  }

  /** The backup has it. */
  taken(entry: Entry): void {
    if (this.#refused.size > 0) this.#refused.delete(pathOf(entry))
  }

  #keep(known: Map<string, string>, path: string, why: string): void {
    const isNew = !known.has(path)
    if (isNew && known.size >= problemsMax) return
    if (isNew) this.#note(`${showName(path)} is not replicated: ${why}`)
    known.set(path, why)
  }

  shown(): string[] {
    return [...this.#byPath, ...this.#refused].slice(0, shownMax).map(([path, why]) => `${showName(path)}: ${why}`)
  }
}

/** Here, for people. */
export const pathOf = (entry: Entry): string => {
  switch (entry.kind) {
    case 'name':
    case 'verify':
      return joinPath(entry.dir.path, entry.name)
    case 'node':
    case 'compare':
      return entry.dir.path
    case 'rename':
      return joinPath(entry.to.dir.path, entry.to.name)
  }
}
