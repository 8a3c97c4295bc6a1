import { randomBytes } from 'node:crypto'
import { basename, dirname, join, resolve } from 'node:path'
import {
  closeFile,
  type FileStat,
  makeDirectoryAt,
  O_DIRECTORY,
  openAt,
  openBeneath,
  openDirectory,
  type Place,
  removeDirectoryAt,
  renameAt,
  statAt,
  statFd,
  unlinkAt,
} from '../kernel/file-calls.ts'
import { EEXIST, ENOENT, KernelError } from '../kernel/libc.ts'
import { fromText, workFolderName } from './names.ts'
import { namesInSlices } from './parts.ts'
import type { Tree } from './tree.ts'

/** Of this process: what an earlier one left may lie there still, and processes are numbered alike after each boot. */
const life = randomBytes(4).toString('hex')
let taken = 0
/** What was put aside, to be removed from the disk a little at a time. */
export const gonePrefix = 'gone'

/**
 * Where files are put together before they get their names: a folder on the same file system as the tree, beside it,
 * or in it (and never replicated) when the tree is a mount of its own. Nothing in it is visible below the tree's paths.
 */
export class WorkFolder {
  readonly fd: number
  /** For people. */
  readonly path: string

  /** @throws KernelError when it can't be made on the tree's file system */
  constructor(tree: Tree) {
    const root = statFd(tree.rootFd)
    if (typeof root === 'number') throw new KernelError(`looking at ${tree.path}`, -root)
    const path = resolve(tree.path)
    const parent = openDirectory(fromText(dirname(path)))
    const above = parent < 0 ? parent : statFd(parent)
    const isBeside = typeof above !== 'number' && above.device === root.device && above.ino !== root.ino
    const name = isBeside ? `.${fromText(basename(path))}.understudy-sync` : workFolderName
    this.path = join(isBeside ? dirname(path) : path, `${isBeside ? `.${basename(path)}.understudy-sync` : name}`)
    this.fd = openFolder(isBeside ? parent : tree.rootFd, name, this.path)
    if (parent >= 0) closeFile(parent)
    const own = statFd(this.fd)
    const why = typeof own === 'number' ? 'can’t be looked at' : faultOf(own, { tree, device: root.device })
    if (why === null) return
    closeFile(this.fd)
    throw new Error(`${this.path} ${why}`)
  }

  /** A name nothing in the folder has, nor had. */
  fresh(prefix: string): Place {
    taken += 1
    return { dirFd: this.fd, name: `${prefix}-${life}-${taken}` }
  }

  /** Moves something out of the tree, whatever it is; removed from the disk later. Answers 0 or minus the errno. */
  discard(at: Place): number {
    return renameAt(at, this.fresh(gonePrefix))
  }

  /** @throws what the disk says */
  names(): string[] {
    return [...namesInSlices(this.fd)].flat()
  }

  /** Of what was put aside, some. @throws what the disk says */
  someGone(isWanted: (name: string) => boolean): string[] {
    const gone: string[] = []
    for (const names of namesInSlices(this.fd)) {
      for (const name of names) if (name.startsWith(`${gonePrefix}-`) && isWanted(name)) gone.push(name)
      if (gone.length >= removedAtOnce) break
    }
    return gone
  }

  close(): void {
    closeFile(this.fd)
  }
}

/** Who can write in it could give any file of the tree any contents and any owner: what lies in it is done again as it is. */
function faultOf({ device, uid, mode }: FileStat, part: { tree: Tree; device: number }): string | null {
  if (device !== part.device) return `is not on the file system of ${part.tree.path}: remove what is mounted there`
  if (uid === process.geteuid?.() && (mode & 0o022) === 0) return null
  const facts = `belongs to user ${uid} with mode ${mode.toString(8)}`
  return `${facts}, so that others than this agent can write in it: see who has made it, and remove it`
}

function openFolder(dirFd: number, name: string, shown: string): number {
  const made = makeDirectoryAt(dirFd, name)
  if (made < 0 && made !== -EEXIST) throw new KernelError(`making ${shown}`, -made)
  const fd = openAt(dirFd, name, { flags: O_DIRECTORY })
  if (fd < 0) throw new KernelError(`opening ${shown}`, -fd)
  return fd
}

/** Removed at once at most this many files, so that the loop is not held up by a directory with a million of them. */
const removedAtOnce = 500

export const someFiles = (): { left: number } => ({ left: removedAtOnce })

/**
 * Removes a name and what is below it, as many files as the budget has. Answers true when nothing more is to be done. What
 * can't be removed is left, to be tried at the next start; and so is another mount below it, which nobody asked to empty.
 */
export function removeSome(at: Place, budget: { left: number }): boolean {
  const removed = unlinkAt(at.dirFd, at.name)
  if (removed === 0 || removed === -ENOENT) {
    budget.left -= 1
    return true
  }
  const stat = statAt(at.dirFd, at.name)
  if (typeof stat === 'number' || stat.kind !== 'directory') return true
  const fd = openBeneath(at.dirFd, at.name, O_DIRECTORY)
  if (fd < 0) return true
  try {
    // As many as are removed now: of a million names all would be read each time.
    for (const names of namesInSlices(fd)) {
      for (const name of names) {
        if (budget.left <= 0 || !removeSome({ dirFd: fd, name }, budget)) return false
      }
    }
  } finally {
    closeFile(fd)
  }
  removeDirectoryAt(at.dirFd, at.name)
  return budget.left > 0
}
