import { closeSync } from 'node:fs'
import {
  type FileStat,
  flushAll,
  flushData,
  O_RDONLY,
  O_RDWR,
  openAt,
  type Place,
  truncateFd,
  unlinkAt,
} from '../kernel/file-calls.ts'
import { copyOf } from './copy-file.ts'
import { applyMeta } from './meta.ts'
import { Turns } from './parts.ts'
import { completeRedo } from './recovery.ts'
import { applyRedo, openForRedo, readBack, redoOf, redoPrefix, writeRedo } from './redo.ts'
import type { Arriving } from './staging.ts'
import { isZero, writeAll, writeHole } from './staging.ts'
import type { Tree } from './tree.ts'
import type { WorkFolder } from './work-folder.ts'

/** Changes inside large files: written in place by a redo file, or to a copy that takes the name afterwards. */
export class Patches {
  readonly #tree: Tree
  readonly #folder: WorkFolder
  /** Redo files that could not be applied (a full disk), with the path they are for. */
  readonly #halfDone = new Map<string, string>()

  constructor({ tree, folder }: { tree: Tree; folder: WorkFolder }) {
    this.#tree = tree
    this.#folder = folder
  }

  /** 0, minus the errno, or 'not open': the file is another one by now, or busy. */
  async inPlace(arriving: Arriving, at: Place, stat: FileStat): Promise<number | 'not open'> {
    const redo = redoOf(arriving, stat)
    const redoAt = this.#folder.fresh(redoPrefix)
    const written = await writeRedo(redoAt, redo)
    // Its name has to be durable too before the first block changes.
    const named = written < 0 ? written : await flushAll(this.#folder.fd)
    const fd = named < 0 ? named : openForRedo(at, { ino: stat.ino, flags: O_RDWR })
    if (fd < 0) {
      unlinkAt(redoAt.dirFd, redoAt.name)
      return named < 0 ? named : 'not open'
    }
    try {
      const applied = await applyRedo(fd, redo)
      // It stays where the blocks may be half written: the next start does it again, unless another change of this file
      // succeeds before.
      if (applied < 0) this.#halfDone.set(redoAt.name, arriving.path)
      else {
        this.forget(arriving.path)
        unlinkAt(redoAt.dirFd, redoAt.name)
      }
      return Math.min(0, applied)
    } finally {
      closeSync(fd)
    }
  }

  /**
   * The changed file in the work folder, durable, or minus the errno. A copy takes no space where the file system can share
   * blocks (XFS, Btrfs), and is a real one elsewhere.
   */
  async copy(arriving: Arriving, at: Place, stat: FileStat): Promise<Place | number> {
    const base = openForRedo(at, { ino: stat.ino, flags: O_RDONLY })
    if (base < 0) return base
    const to = this.#folder.fresh('copy')
    const copied = await copyOf(base, to, stat)
    closeSync(base)
    const fd = copied < 0 ? copied : openAt(to.dirFd, to.name, { flags: O_RDWR })
    const errno = fd < 0 ? fd : await patchOpen(fd, arriving)
    if (fd >= 0) closeSync(fd)
    if (errno === 0) return to
    unlinkAt(to.dirFd, to.name)
    return errno
  }

  /** A start must not bring back what was replaced or removed since, at this path or below it. */
  forget(path: string): void {
    for (const name of this.#halfDoneIn(path)) this.#forgetRedo(name)
  }

  /** A redo file knows its file by the path: it has to be done before that changes. 0 or minus the errno. */
  async complete(path: string): Promise<number> {
    for (const name of this.#halfDoneIn(path)) {
      const redone = await completeRedo({ tree: this.#tree, folder: this.#folder, name })
      if (redone !== null && redone.errno < 0) return redone.errno
      this.#forgetRedo(name)
    }
    return 0
  }

  #forgetRedo(name: string): void {
    unlinkAt(this.#folder.fd, name)
    this.#halfDone.delete(name)
  }

  #halfDoneIn(path: string): string[] {
    const found: string[] = []
    for (const [name, of] of this.#halfDone) if (of === path || of.startsWith(`${path}/`)) found.push(name)
    return found
  }
}

async function patchOpen(fd: number, { meta, blocks, staged, sparse }: Arriving): Promise<number> {
  let errno = Math.min(0, truncateFd(fd, meta.size))
  // All of a file of any size may have changed.
  const turns = new Turns()
  for (const block of blocks) {
    if (errno < 0) return errno
    await turns.next()
    const bytes = readBack(staged.fd, block.at, block.length)
    errno = (sparse && isZero(bytes) ? writeHole : writeAll)(fd, bytes, block.offset)
  }
  errno ||= Math.min(0, applyMeta(fd, meta))
  return errno || Math.min(0, await flushData(fd))
}
