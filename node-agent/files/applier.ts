import { closeSync } from 'node:fs'
import {
  chownAt,
  EISDIR,
  ENOTEMPTY,
  ESTALE,
  EXDEV,
  type FileStat,
  flushAll,
  flushFileSystem,
  linkAt,
  makeDirectoryAt,
  O_DIRECTORY,
  O_NONBLOCK,
  openAt,
  openBeneath,
  type Place,
  renameAt,
  setModified,
  statAt,
  statFd,
  symlinkAt,
  unlinkAt,
} from '../kernel/file-calls.ts'
import { EEXIST, ENOENT, KernelError } from '../kernel/libc.ts'
import type { NackCode } from './messages.ts'
import { applyMeta, type Meta } from './meta.ts'
import { splitPath } from './names.ts'
import { Patches } from './patches.ts'
import { redoBytesMax } from './redo.ts'
import type { Arriving, Staged, Staging } from './staging.ts'
import type { Tree } from './tree.ts'
import type { WorkFolder } from './work-folder.ts'

/** More directories than this are flushed at once, with their file system. */
const foldersFlushedAloneMax = 8

/** What has to happen to something before it disappears from the tree: a returning primary's own versions are kept. */
export interface Keeper {
  /** Nothing is kept: what is not needed any more may be used for patches, and removed. */
  readonly isIndifferent: boolean
  /** Takes something away, which was at `path`. 0 or minus the errno. */
  take(at: Place, path: string, stat: FileStat): number
  /** Whose copy what follows comes from. */
  from(copy: string): void
  /** It came from the primary: it is nobody's own change. */
  placed(stat: FileStat): void
  /** Whether it has to be taken before something else is put in its place. */
  wants(stat: FileStat): boolean
}

export interface ApplierPart {
  tree: Tree
  folder: WorkFolder
  staging: Staging
  keeper: () => Keeper
}

/** Puts operations into effect on the backup's copy, one after the other, and then makes a group of them durable. */
export class Applier {
  readonly #part: ApplierPart
  /** Directories whose entries changed since the last flush. */
  readonly #folders = new Set<string>()
  readonly #patches: Patches
  #touchesWorkFolder = false
  /** At first for what an earlier life of this process may have left in memory alone, and nothing here knows of. */
  #flushesAll = true
  #isStale = false

  constructor(part: ApplierPart) {
    this.#part = part
    this.#patches = new Patches(part)
  }

  /** A staged file gets its name, at once and in one step. */
  place(path: string, staged: Staged): NackCode | null {
    const { staging } = this.#part
    if (staged.errno !== 0) {
      staging.release(staged, { keepName: false })
      return codeOf(staged.errno)
    }
    const nack = this.#renameInto(staged.at, path)
    staging.release(staged, { keepName: nack === null })
    if (nack === null) this.#placed(path)
    return nack
  }

  /** Something in the work folder takes a name in the tree; what had it is kept or removed. */
  #renameInto(from: Place, path: string): NackCode | null {
    const at = this.#place(path)
    if (typeof at === 'string') return at
    const stat = statAt(at.dirFd, at.name)
    if (typeof stat !== 'number' && (stat.kind === 'directory' || this.#part.keeper().wants(stat))) {
      const taken = this.#take(at, path, stat)
      if (taken < 0) return codeOf(taken)
    }
    const renamed = renameAt(from, at)
    if (renamed < 0) return this.#codeOfPlace(renamed)
    this.#patches.forget(path)
    return null
  }

  /** Whatever is at this name now is as the primary has it. */
  #placed(path: string): void {
    if (this.#part.keeper().isIndifferent) return
    const at = this.#placeOf(path)
    const stat = typeof at === 'string' ? -1 : statAt(at.dirFd, at.name)
    if (typeof stat !== 'number' && stat.kind !== 'directory') this.#part.keeper().placed(stat)
  }

  /** The blocks of a patch go into the file they were computed against. */
  async patch(arriving: Arriving): Promise<NackCode | null> {
    const { staging, keeper } = this.#part
    const { staged, path, base } = arriving
    try {
      if (staged.errno !== 0) return staged.errno === -ENOENT ? 'base' : codeOf(staged.errno)
      const at = this.#place(path)
      if (typeof at === 'string') return at
      const stat = statAt(at.dirFd, at.name)
      if (typeof stat === 'number' || stat.kind !== 'file' || base === null || !isBase(stat, base)) return 'base'
      if (!keeper().isIndifferent) return 'base'
      return await this.#patched(arriving, at, stat)
    } finally {
      staging.release(staged, { keepName: false })
    }
  }

  async #patched(arriving: Arriving, at: Place, stat: FileStat): Promise<NackCode | null> {
    // Other names of it may belong to other files by now: the sender says which names share the new one.
    const isAlone = stat.links === 1 && arriving.bytes <= redoBytesMax
    const written = isAlone ? await this.#patches.inPlace(arriving, at, stat) : 'not open'
    this.#touchesWorkFolder = true
    if (written !== 'not open') return codeOrNull(written)
    const copy = await this.#patches.copy(arriving, at, stat)
    if (typeof copy === 'number') return copy === -ESTALE ? 'base' : codeOf(copy)
    const nack = this.#renameInto(copy, arriving.path)
    if (nack !== null) unlinkAt(copy.dirFd, copy.name)
    return nack
  }

  directory(path: string, meta: Meta): NackCode | null {
    if (path === '') {
      this.#folders.add('')
      return this.#describe(this.#part.tree.rootFd, meta)
    }
    const at = this.#place(path)
    if (typeof at === 'string') return at
    const stat = statAt(at.dirFd, at.name)
    if (typeof stat === 'number' || stat.kind !== 'directory') {
      const taken = typeof stat === 'number' ? 0 : this.#take(at, path, stat)
      const made = taken < 0 ? taken : makeDirectoryAt(at.dirFd, at.name)
      if (made < 0 && made !== -EEXIST) return this.#codeOfPlace(made)
    }
    // Not one that is mounted there: it belongs to somebody else.
    const fd = openBeneath(at.dirFd, at.name, O_DIRECTORY)
    if (fd < 0) return codeOf(fd)
    try {
      this.#folders.add(path)
      return this.#describe(fd, meta)
    } finally {
      closeSync(fd)
    }
  }

  /** A change of attributes alone, of the very file the sender has. */
  attributes(path: string, meta: Meta): NackCode | null {
    const at = this.#place(path)
    if (typeof at === 'string') return at
    const fd = openAt(at.dirFd, at.name, { flags: O_NONBLOCK })
    if (fd < 0) return fd === -ENOENT ? 'gone' : 'different'
    try {
      const stat = statFd(fd)
      const isSame =
        typeof stat !== 'number' &&
        stat.kind === 'file' &&
        isBase(stat, meta) &&
        // A tie to another name that the primary does not know must not carry the change there.
        (stat.links === 1 || meta.linked) &&
        !this.#part.keeper().wants(stat)
      if (!isSame) return 'different'
      // Attributes are not in any directory; many at once are flushed together.
      this.#flushesAll = true
      const nack = this.#describe(fd, meta)
      if (nack === null) this.#placed(path)
      return nack
    } finally {
      closeSync(fd)
    }
  }

  #describe(fd: number, meta: Meta): NackCode | null {
    const described = applyMeta(fd, meta)
    return described < 0 ? codeOf(described) : null
  }

  symlink(path: string, meta: Meta): NackCode | null {
    const made = this.#part.folder.fresh('link')
    const errno =
      Math.min(0, symlinkAt(meta.target, made)) ||
      Math.min(0, chownAt(made, meta.uid, meta.gid)) ||
      Math.min(0, setModified(made, meta.mtimeS, meta.mtimeNs))
    const nack = errno < 0 ? codeOf(errno) : this.#renameInto(made, path)
    if (nack !== null) unlinkAt(made.dirFd, made.name)
    else this.#placed(path)
    return nack
  }

  link(path: string, to: string): NackCode | null {
    const at = this.#placeOf(path)
    const other = this.#place(to)
    if (typeof at === 'string' || typeof other === 'string') return 'gone'
    const stat = statAt(at.dirFd, at.name)
    const isLinkable = typeof stat !== 'number' && (stat.kind === 'file' || stat.kind === 'symlink')
    if (!isLinkable || this.#part.keeper().wants(stat)) return 'gone'
    const there = statAt(other.dirFd, other.name)
    // Renaming one name of a file over another does nothing (rename(2)).
    if (typeof there !== 'number' && there.ino === stat.ino) return null
    const made = this.#part.folder.fresh('link')
    const linked = linkAt(at, made)
    const nack = linked < 0 ? codeOf(linked) : this.#renameInto(made, to)
    if (nack !== null) unlinkAt(made.dirFd, made.name)
    return nack
  }

  async rename(path: string, to: string): Promise<NackCode | null> {
    const unfinished = await this.#patches.complete(path)
    if (unfinished < 0) return codeOf(unfinished)
    const at = this.#placeOf(path)
    if (typeof at === 'string') return at === 'no parent' ? 'gone' : at
    const stat = statAt(at.dirFd, at.name)
    if (typeof stat === 'number') return 'gone'
    const other = this.#place(to)
    if (typeof other === 'string') return other
    this.#folders.add(splitPath(path).folder)
    const isOwn = this.#part.keeper().wants(stat)
    const there = statAt(other.dirFd, other.name)
    // No directory takes the name of a file (rename(2)).
    const isOther = stat.kind === 'directory' && typeof there !== 'number' && there.kind !== 'directory'
    const taken = isOther ? this.#take(other, to, there) : 0
    const nack = taken < 0 ? codeOf(taken) : this.#renameInto(at, to)
    // Renaming one name of a file over another does nothing (rename(2)), and here leaves what the primary has not.
    const isTied = typeof there !== 'number' && there.ino === stat.ino && path !== to
    if (nack === null && isTied) unlinkAt(at.dirFd, at.name)
    // A rename changes the time of the last change of status.
    if (nack === null && !isOwn) this.#placed(to)
    if (stat.kind === 'directory') {
      this.#isStale = true
      if (nack === null) this.#foldersMoved(path, to)
    }
    return nack
  }

  /** What changed below a directory is flushed where it is by then; null: it is not in the tree any more. */
  #foldersMoved(path: string, to: string | null): void {
    for (const folder of [...this.#folders]) {
      if (folder !== path && !folder.startsWith(`${path}/`)) continue
      this.#folders.delete(folder)
      if (to !== null) this.#folders.add(to + folder.slice(path.length))
    }
  }

  remove(path: string): NackCode | null {
    const at = this.#place(path)
    if (typeof at === 'string') return at === 'no parent' ? null : at
    const stat = statAt(at.dirFd, at.name)
    if (typeof stat === 'number') return null
    this.#patches.forget(path)
    const { keeper } = this.#part
    if (stat.kind === 'directory' || keeper().wants(stat)) {
      const taken = this.#take(at, path, stat)
      return taken < 0 ? codeOf(taken) : null
    }
    const removed = unlinkAt(at.dirFd, at.name)
    return removed < 0 && removed !== -ENOENT ? codeOf(removed) : null
  }

  #take(at: Place, path: string, stat: FileStat): number {
    const { isIndifferent } = this.#part.keeper()
    this.#touchesWorkFolder = true
    // What is kept lies in directories of its own, some of them new.
    this.#flushesAll ||= !isIndifferent
    const taken = this.#part.keeper().take(at, path, stat)
    if (stat.kind !== 'directory') return taken
    this.#isStale = true
    if (taken >= 0) this.#foldersMoved(path, null)
    return taken
  }

  /**
   * To be called after each operation. Once a directory was moved, open descriptors belong to paths that lead elsewhere;
   * closed within the operation they would be taken from under it, and their numbers given to other directories.
   */
  settle(): void {
    if (this.#isStale) this.#part.tree.forget()
    this.#isStale = false
  }

  /**
   * Everything applied so far is durable when this resolves with null. When not, nobody knows what is: what is done again
   * may find nothing to do, so that the next time the whole file system is flushed.
   */
  async flush(): Promise<NackCode | null> {
    const failed = await this.#flush()
    this.#flushesAll ||= failed !== null
    return failed
  }

  async #flush(): Promise<NackCode | null> {
    const { tree, folder } = this.#part
    const folders = [...this.#folders]
    this.#folders.clear()
    const isMany = this.#flushesAll || folders.length > foldersFlushedAloneMax
    const fds = isMany ? [] : folders.map(path => tree.directory(path))
    if (this.#touchesWorkFolder) fds.push(folder.fd)
    this.#flushesAll = false
    this.#touchesWorkFolder = false
    // One that can't be opened (somebody else moved it, or there are no descriptors) has to be durable too.
    if (isMany || fds.some(fd => fd < 0)) return codeOrNull(await flushFileSystem(tree.rootFd))
    // One after the other: the first commit of the journal usually carries the others.
    for (const fd of fds) {
      const flushed = await flushAll(fd)
      if (flushed < 0) return codeOf(flushed)
    }
    return null
  }

  /** Nothing can be made in a directory that somebody removed while we have it open: it is looked up again. */
  #codeOfPlace(errno: number): NackCode {
    if (errno !== -ENOENT) return codeOf(errno)
    this.#isStale = true
    return 'no parent'
  }

  #placeOf(path: string): Place | NackCode {
    const { folder, name } = splitPath(path)
    const dirFd = this.#part.tree.directory(folder)
    if (dirFd >= 0) return { dirFd, name }
    // Below another mount nothing is ours; the directory is there, and sending it again would not help.
    return dirFd === -EXDEV ? 'EXDEV' : 'no parent'
  }

  /** Where an entry of a directory is going to change. */
  #place(path: string): Place | NackCode {
    const at = this.#placeOf(path)
    if (typeof at !== 'string') this.#folders.add(splitPath(path).folder)
    return at
  }
}

export const isBase = (stat: FileStat, base: { size: number; mtimeS: number; mtimeNs: number }): boolean =>
  stat.size === base.size && stat.mtimeS === base.mtimeS && stat.mtimeNs === base.mtimeNs

const codeOrNull = (result: number): NackCode | null => (result < 0 ? codeOf(result) : null)

export function codeOf(errno: number): NackCode {
  if (errno === -ENOENT || errno === -ENOTEMPTY || errno === -EISDIR) return 'gone'
  return new KernelError('', -errno).code as NackCode
}
