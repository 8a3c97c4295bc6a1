import { ENOSPC, ESTALE, statAt } from '../kernel/file-calls.ts'
import {
  type FileEvent,
  IN_ATTRIB,
  IN_CLOSE_WRITE,
  IN_CREATE,
  IN_DELETE,
  IN_DELETE_SELF,
  IN_IGNORED,
  IN_ISDIR,
  IN_MODIFY,
  IN_MOVE_SELF,
  IN_MOVED_FROM,
  IN_MOVED_TO,
  IN_Q_OVERFLOW,
  IN_UNMOUNT,
  Inotify,
} from '../kernel/inotify.ts'
import { smallBytesMax } from './big-file.ts'
import type { Filter } from './filter.ts'
import { DirectoryNode, type LinkIndex } from './local-tree.ts'
import { workFolderName } from './names.ts'
import { namesIn, type Tree } from './tree.ts'
import type { Lane, WorkQueue } from './work-queue.ts'

/** The second half of a rename follows at once, but possibly in the next read (inotify(7), "Dealing with rename()"). */
const renameHalfMs = 5

interface HalfRename {
  dir: DirectoryNode
  name: string
  isDirectory: boolean
  atMs: number
}

export interface WatcherPart {
  tree: Tree
  filter: Filter
  root: DirectoryNode
  queue: WorkQueue
  links: LinkIndex
  now: () => number
  /** Something may have been missed: everything is to be compared. */
  onMissed: (why: string) => void
  /** The tree can't be watched as a whole any more: comparing at intervals is all that is left. */
  onUnwatched: (why: string) => void
}

/**
 * Turns the kernel's events into work for the queue. Events are hints: they say where to look, never what is there. A
 * directory is watched before it is listed, so that nothing made in it falls between the two.
 */
export class TreeWatcher {
  readonly #part: WatcherPart
  readonly #inotify = new Inotify()
  readonly #byWatch = new Map<number, DirectoryNode>()
  readonly #suspects = new Set<DirectoryNode>()
  readonly #halves = new Map<number, HalfRename>()

  constructor(part: WatcherPart) {
    this.#part = part
    this.#watch(part.root, IN_DELETE_SELF | IN_MOVE_SELF)
  }

  get watched(): number {
    return this.#byWatch.size
  }

  /** Takes in the whole tree, before anything is compared. */
  adoptAll(): void {
    const { root } = this.#part
    this.#take(root, null)
  }

  wait(limitMs: number): Promise<boolean> {
    return this.#inotify.wait(this.#halves.size > 0 ? Math.min(limitMs, renameHalfMs) : limitMs)
  }

  close(): void {
    this.#inotify.close()
  }

  /** Handles all that happened before the call. */
  drain(): void {
    for (;;) {
      const events = this.#inotify.read()
      if (events.length === 0) break
      for (const event of events) this.#handle(event)
    }
    this.#verify()
    const endMs = this.#part.now() - renameHalfMs
    for (const [cookie, half] of this.#halves) if (half.atMs <= endMs) this.#movedOut(cookie, half)
  }

  /**
   * Events are read after the fact, so that a name may lead to another directory than the one an event was about. What
   * was moved is looked at when all events are read; another directory there is taken in as new.
   */
  #verify(): void {
    if (this.#suspects.size === 0) return
    const { tree, queue } = this.#part
    tree.forget()
    for (const node of this.#suspects) {
      this.#suspects.delete(node)
      if (node.isGone || node.parent === null) continue
      const fd = node.open(tree)
      if (fd === -ESTALE) {
        const other = this.adopt(node.parent, node.name, null)
        if (other === null) continue
        queue.directory(other, { lane: 'live' })
        queue.compare(other, { lane: 'live' })
      } else if (fd >= 0 && this.#byWatch.get(node.watch) !== node) {
        // Its events went to what was taken for it.
        this.#watch(node, 0)
        queue.compare(node, { lane: 'live' })
      }
    }
  }

  /** No half of a rename is awaited. */
  get isSettled(): boolean {
    return this.#halves.size === 0
  }

  /**
   * Takes in a directory that appeared: watches it and all below. With a lane, its contents are work of that lane;
   * without one, a comparison is going to look at them.
   */
  adopt(parent: DirectoryNode, name: string, lane: Lane | null): DirectoryNode | null {
    parent.children.get(name)?.remove()
    const node = new DirectoryNode(parent, name)
    if (!this.#watch(node, 0)) {
      node.remove()
      return null
    }
    if (lane !== null) this.#part.queue.directory(node, { lane })
    this.#take(node, lane)
    return node
  }

  #take(node: DirectoryNode, lane: Lane | null): void {
    const { tree, queue, links } = this.#part
    // Looked at through one descriptor: by the time its children are taken in, it may have been moved.
    const fd = node.open(tree)
    const own = fd < 0 ? fd : statAt(fd, '')
    const below: string[] = []
    const names = fd < 0 ? null : this.#namesIn(fd)
    if (names === null) queue.compare(node, { lane: 'live' })
    for (const name of names ?? []) {
      if (this.#isExcluded(node, name)) continue
      const stat = statAt(fd, name)
      if (typeof stat === 'number') continue
      if (stat.kind === 'directory') {
        // Another mount has files and rules of its own.
        if (typeof own !== 'number' && own.device === stat.device) below.push(name)
      } else {
        if (stat.links > 1) links.note(stat.ino, node, name)
        if (lane !== null) queue.changed(node, name, { lane, isNew: true, isWritten: true })
      }
    }
    // One that is not there any more either was removed or went with this directory: a comparison finds it.
    const missed = below.filter(name => this.adopt(node, name, lane) === null)
    if (missed.length > 0) queue.compare(node, { lane: 'live' })
  }

  /** Null: it is gone, or the disk does not give it back; a comparison says so, and tries again. */
  #namesIn(fd: number): string[] | null {
    try {
      return namesIn(fd)
    } catch {
      return null
    }
  }

  #watch(node: DirectoryNode, more: number): boolean {
    const fd = this.#part.tree.fresh(node.path)
    const stat = fd < 0 ? fd : statAt(fd, '')
    if (typeof stat === 'number') return false
    node.ino = stat.ino
    const watch = this.#inotify.add(fd, more)
    if (watch === -ENOSPC) {
      this.#part.onUnwatched(
        `the limit of watches is used up after ${this.#byWatch.size} directories: raise fs.inotify.max_user_watches`,
      )
      return true
    }
    if (watch < 0) return false
    node.watch = watch
    // One directory, two places: the other one was taken for what it is not.
    const other = this.#byWatch.get(watch)
    if (other !== undefined && other !== node && !other.isGone) this.#suspects.add(other)
    this.#byWatch.set(watch, node)
    return true
  }

  #handle({ watch, mask, cookie, name }: FileEvent): void {
    if ((mask & IN_Q_OVERFLOW) !== 0) return this.#part.onMissed('the kernel’s queue of events overflowed')
    const dir = this.#byWatch.get(watch)
    if (dir === undefined) return
    if ((mask & IN_IGNORED) !== 0) {
      this.#byWatch.delete(watch)
      return
    }
    // Of the root: who reads these events looks then whether it is in its place.
    if ((mask & (IN_UNMOUNT | IN_DELETE_SELF | IN_MOVE_SELF)) !== 0) return
    if (dir.isGone) return
    if (name === '') {
      if (dir.parent === null && (mask & IN_ATTRIB) !== 0) this.#part.queue.directory(dir, { lane: 'live' })
      return
    }
    if (this.#isExcluded(dir, name)) return this.#excluded(dir, { mask, cookie, name })
    if ((mask & IN_MOVED_FROM) !== 0) {
      this.#halves.set(cookie, { dir, name, isDirectory: (mask & IN_ISDIR) !== 0, atMs: this.#part.now() })
    } else if ((mask & IN_ISDIR) !== 0) this.#directoryEvent(dir, { mask, cookie, name })
    else this.#fileEvent(dir, { mask, cookie, name })
  }

  #isExcluded(dir: DirectoryNode, name: string): boolean {
    return (dir.parent === null && name === workFolderName) || this.#part.filter.isExcluded(dir.path, name)
  }

  /** Moved to a name that is not replicated: for the backup it is gone. */
  #excluded(dir: DirectoryNode, { mask, cookie }: { mask: number; cookie: number; name: string }): void {
    const half = this.#halves.get(cookie)
    if ((mask & IN_MOVED_TO) !== 0 && half !== undefined) this.#movedOut(cookie, half)
    this.#part.queue.directory(dir, { lane: 'live' })
  }

  #fileEvent(dir: DirectoryNode, { mask, cookie, name }: { mask: number; cookie: number; name: string }): void {
    const { queue } = this.#part
    if ((mask & IN_MOVED_TO) !== 0) {
      const half = this.#halves.get(cookie)
      if (half === undefined) queue.changed(dir, name, { lane: 'live', isWritten: true, isClosed: true })
      else this.#renamedFile(cookie, half, { dir, name })
    } else if ((mask & IN_DELETE) !== 0) this.#deleted(dir, name)
    else if ((mask & IN_CREATE) !== 0) queue.changed(dir, name, { lane: 'settling', isNew: true })
    else if ((mask & IN_CLOSE_WRITE) !== 0) queue.changed(dir, name, { lane: 'live', isWritten: true, isClosed: true })
    else if ((mask & IN_MODIFY) !== 0) queue.changed(dir, name, { lane: 'settling', isWritten: true })
    else if ((mask & IN_ATTRIB) !== 0) queue.changed(dir, name, { lane: 'live', onlyAttributes: true })
  }

  #deleted(dir: DirectoryNode, name: string): void {
    const { queue } = this.#part
    const waiting = queue.waiting(dir, name)
    if (waiting?.isNew === true) {
      // Made and removed before anybody looked; only the directory's time of change tells.
      queue.drop(waiting)
      queue.directory(dir, { lane: 'live' })
    } else queue.changed(dir, name, { lane: 'live' })
  }

  #directoryEvent(dir: DirectoryNode, { mask, cookie, name }: { mask: number; cookie: number; name: string }): void {
    const { queue, tree } = this.#part
    const child = dir.children.get(name)
    if ((mask & IN_CREATE) !== 0) this.adopt(dir, name, 'live')
    else if ((mask & IN_MOVED_TO) !== 0) {
      const half = this.#halves.get(cookie)
      const node = half?.dir.children.get(half.name)
      tree.forget()
      if (half === undefined || node === undefined) {
        if (half !== undefined) this.#movedOut(cookie, half)
        this.adopt(dir, name, 'live')
        return
      }
      this.#halves.delete(cookie)
      node.moveTo(dir, name)
      this.#suspects.add(node)
      queue.renamed({ node, from: { dir: half.dir, name: half.name }, to: { dir, name } })
    } else if ((mask & IN_DELETE) !== 0) {
      child?.remove()
      tree.forget()
      queue.changed(dir, name, { lane: 'live' })
    } else if ((mask & IN_ATTRIB) !== 0 && child !== undefined) queue.directory(child, { lane: 'live' })
  }

  #renamedFile(cookie: number, from: HalfRename, to: { dir: DirectoryNode; name: string }): void {
    const { queue } = this.#part
    this.#halves.delete(cookie)
    const waiting = queue.waiting(from.dir, from.name)
    if (waiting !== undefined) queue.drop(waiting)
    if (waiting?.isNew === true) {
      // The usual "write a temporary file, rename it": the backup never sees the temporary name.
      queue.changed(to.dir, to.name, { lane: 'live', isWritten: true, isClosed: true })
      queue.directory(from.dir, { lane: 'live' })
      return
    }
    // What the backup has under the old name is older: under the new one it must not show, unless a large file would
    // have to be sent as a whole because of it.
    const isOlder = waiting !== undefined || from.dir.halfSent.has(from.name) || from.dir.sending.has(from.name)
    if (!isOlder || (isLarge(to, this.#part.tree) && !from.dir.halfSent.has(from.name))) {
      queue.renamed({ node: null, from: { dir: from.dir, name: from.name }, to })
    } else queue.changed(from.dir, from.name, { lane: 'live' })
    if (isOlder) queue.changed(to.dir, to.name, { lane: 'live', isWritten: true, isClosed: true })
  }

  /** The other half did not come: it left the tree. */
  #movedOut(cookie: number, half: HalfRename): void {
    const { queue, tree } = this.#part
    this.#halves.delete(cookie)
    if (!half.isDirectory) return this.#deleted(half.dir, half.name)
    const node = half.dir.children.get(half.name)
    for (const one of node?.all() ?? []) {
      if (one.watch >= 0 && this.#byWatch.get(one.watch) === one) this.#inotify.remove(one.watch)
    }
    node?.remove()
    tree.forget()
    queue.changed(half.dir, half.name, { lane: 'live' })
  }
}

function isLarge(at: { dir: DirectoryNode; name: string }, tree: Tree): boolean {
  const fd = at.dir.open(tree)
  const stat = fd < 0 ? fd : statAt(fd, at.name)
  return typeof stat !== 'number' && stat.size > smallBytesMax
}
