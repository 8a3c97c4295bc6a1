import { EXDEV } from '../kernel/file-calls.ts'
import { joinPath, pathBytesMax } from './names.ts'
import type { Tree } from './tree.ts'
import type { NameEntry, NodeEntry } from './work-queue.ts'

/**
 * A directory of the primary's tree. It has two places: where it is here, and where it is in the backup's copy as of
 * the operations sent so far. They differ between the moment a directory is renamed here and the moment that rename's
 * turn comes in the log, so that what was to be sent below its old name still goes there first.
 */
export class DirectoryNode {
  parent: DirectoryNode | null
  name: string
  remoteParent: DirectoryNode | null
  remoteName: string
  readonly children = new Map<string, DirectoryNode>()
  /** Which directory it is, wherever it is by now. */
  ino = 0
  /** Of inotify; -1 when it is not watched. */
  watch = -1
  /** The backup has it, as far as is known. */
  isKnown = false
  /** Deleted or moved away: whatever waits below it is void. */
  isGone = false
  /** Work that waits, by the name in this directory. */
  waiting: Map<string, NameEntry> | null = null
  waitingSelf: NodeEntry | null = null
  /** Names sent while somebody was still writing: the backup may have half of what was meant. */
  readonly halfSent = new Set<string>()
  /** Large files on their way: the backup has an older version, or nothing, until their stream has ended. */
  readonly sending = new Map<string, NameEntry>()

  constructor(parent: DirectoryNode | null, name: string) {
    this.parent = parent
    this.name = name
    this.remoteParent = parent
    this.remoteName = name
    parent?.children.set(name, this)
  }

  get path(): string {
    return this.parent === null ? this.name : joinPath(this.parent.path, this.name)
  }

  /** A descriptor of this directory, or minus the errno: ESTALE and ENOENT when it is not where events have put it yet. */
  open(tree: Tree): number {
    return tree.directory(this.path, this.ino)
  }

  get remotePath(): string {
    return this.remoteParent === null ? this.remoteName : joinPath(this.remoteParent.remotePath, this.remoteName)
  }

  /** Here; the backup's copy follows when the log gets there. A directory that was at the new name is gone. */
  moveTo(parent: DirectoryNode, name: string): void {
    parent.children.get(name)?.remove()
    this.parent?.children.delete(this.name)
    this.parent = parent
    this.name = name
    parent.children.set(name, this)
  }

  /** Marks it and all below as gone. */
  remove(): void {
    this.parent?.children.delete(this.name)
    for (const node of this.all()) node.isGone = true
  }

  /** This one and all below, parents first. */
  *all(): Generator<DirectoryNode> {
    yield this
    for (const child of [...this.children.values()]) yield* child.all()
  }

  /** The backup's copy is where this tree is: nothing is on its way any more. */
  settleRemote(): void {
    for (const node of this.all()) {
      node.remoteParent = node.parent
      node.remoteName = node.name
      node.isKnown = false
    }
  }
}

/** Why a directory is not replicated although it is there, for people; null when it is. */
export function unreachable(dir: DirectoryNode, tree: Tree): string | null {
  if (Math.max(dir.path.length, dir.remotePath.length) > pathBytesMax) return longWhy
  return dir.open(tree) === -EXDEV ? mountedWhy : null
}

export const longWhy = `its path has more than ${pathBytesMax} bytes`
export const mountedWhy = 'something is mounted there, and other mounts are not replicated'
