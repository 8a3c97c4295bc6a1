import { joinPath } from './names.ts'
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
  readonly sending = new Set<string>()

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

/** Which names share a file. Known names are hints: each is looked at before it is used. */
export class LinkIndex {
  readonly #places = new Map<number, FilePlace[]>()
  /** Files that have names we do not know (yet): what comes to light under one has to be looked at. */
  readonly #partial = new Set<number>()

  note(ino: number, dir: DirectoryNode, name: string): void {
    const places = this.#places.get(ino)
    if (places === undefined) this.#places.set(ino, [{ dir, name }])
    else if (!places.some(one => one.dir === dir && one.name === name)) places.push({ dir, name })
  }

  forget(ino: number, place: FilePlace): void {
    const rest = this.#places.get(ino)?.filter(one => one !== place)
    if (rest === undefined || rest.length === 0) this.#places.delete(ino)
    else this.#places.set(ino, rest)
  }

  others(ino: number, dir: DirectoryNode, name: string): readonly FilePlace[] {
    return this.#places.get(ino)?.filter(one => one.dir !== dir || one.name !== name) ?? []
  }

  setPartial(ino: number, is: { partial: boolean }): void {
    if (is.partial) this.#partial.add(ino)
    else this.#partial.delete(ino)
  }

  isPartial(ino: number): boolean {
    return this.#partial.has(ino)
  }

  isShared(ino: number): boolean {
    return (this.#places.get(ino)?.length ?? 0) > 1
  }

  get size(): number {
    return this.#places.size
  }

  clear(): void {
    this.#places.clear()
    this.#partial.clear()
  }
}

export interface FilePlace {
  dir: DirectoryNode
  name: string
}
