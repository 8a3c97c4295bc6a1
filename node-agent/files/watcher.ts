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
import type { Filter } from './filter.ts'
import type { LinkIndex } from './link-index.ts'
import { DirectoryNode } from './local-tree.ts'
import { workFolderName } from './names.ts'
import { readNames, type Steps } from './parts.ts'
import { fileRenamed, type HalfRename, LatestRenames } from './renamed-file.ts'
import type { Tree } from './tree.ts'
import type { Lane, WorkQueue } from './work-queue.ts'

/** The second half of a rename follows at once, but possibly in the next read (inotify(7), "Dealing with rename()"). */
const renameHalfMs = 5
/** Of what appears, names are taken in for so long before others have their turn. */
const adoptMs = 4
const namesAStep = 128

/** A directory that is watched, and whose names are taken in. */
interface Adoption {
  node: DirectoryNode
  lane: Lane | null
  /** Of what it has: whoever waits for the directory waits for that too. */
  since: number
  /** Of its watch: as long as no event was read since, nothing of it can have been sent. */
  drain: number
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
  readonly #renames = new LatestRenames()
  /** The last one first: what is deep is taken in before its neighbours, and the list stays short. */
  readonly #adoptions: Adoption[] = []
  #adopting: Steps<void> | null = null
  #drains = 0
  #drainedMs: number

  constructor(part: WatcherPart) {
    this.#part = part
    this.#drainedMs = part.now()
    this.#watch(part.root, IN_DELETE_SELF | IN_MOVE_SELF)
  }

  get watched(): number {
    return this.#byWatch.size
  }

  /** Begins to take in the whole tree, by {@link adoptSome}. */
  adoptAll(): void {
    const { root, queue } = this.#part
    this.#adoptions.push({ node: root, lane: null, since: queue.mark, drain: this.#drains })
  }

  /** Some of the names of what appeared; false when all are taken in. */
  adoptSome(): boolean {
    const endMs = this.#part.now() + adoptMs
    do {
      if (this.#adopting === null) {
        const next = this.#adoptions.pop()
        if (next === undefined) return false
        this.#adopting = this.#take(next)
      }
      if (this.#adopting.next().done === true) this.#adopting = null
    } while (this.#part.now() < endMs)
    return true
  }

  wait(limitMs: number): Promise<boolean> {
    return this.#inotify.wait(this.#halves.size > 0 ? Math.min(limitMs, renameHalfMs) : limitMs)
  }

  /** Nothing more is awaited: a {@link wait} that is under way ends, since the end of a watch is an event too. */
  end(): void {
    const { watch } = this.#part.root
    if (watch >= 0) this.#inotify.remove(watch)
  }

  close(): void {
    this.#inotify.close()
  }

  /** Handles all that happened before the call. */
  drain(): void {
    this.#drains += 1
    const { queue, now } = this.#part
    queue.unseenSinceMs = this.#drainedMs
    this.#drainedMs = now()
    do for (const event of this.#inotify.read()) this.#handle(event)
    while (this.#inotify.hasMore)
    queue.eventsRead()
    this.#renames.forgetBefore(this.#drainedMs)
    this.#verify()
    const endMs = now() - renameHalfMs
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

  /** Tries once more to watch what could not be; a comparison has to follow, for what happened there meanwhile. */
  watchAgain(): void {
    for (const node of this.#part.root.all()) if (node.watch < 0) this.#watch(node, 0)
  }

  /** No half of a rename is awaited, and all names of what appeared are known. */
  get isSettled(): boolean {
    return this.#halves.size === 0 && this.#adopting === null && this.#adoptions.length === 0
  }

  /**
   * Takes in a directory that appeared: watches it, and goes on with what is in it, now if that is little. With a lane, its
   * contents are work of that lane; without one, a comparison is going to look at them.
   */
  adopt(parent: DirectoryNode, name: string, lane: Lane | null): DirectoryNode | null {
    const node = this.#adopted({ parent, name, lane, since: null })
    // With others before it, it has its turn with them: events come by thousands.
    if (this.#adopting === null && this.#adoptions.length === 1) this.adoptSome()
    return node
  }

  /** `since`: of the directory it is in, if that appeared with it. */
  #adopted(part: {
    parent: DirectoryNode
    name: string
    lane: Lane | null
    since: number | null
  }): DirectoryNode | null {
    const { parent, name, lane } = part
    const { queue } = this.#part
    parent.children.get(name)?.remove()
    const node = new DirectoryNode(parent, name)
    if (!this.#watch(node, 0)) {
      node.remove()
      return null
    }
    const since = part.since ?? (lane === null ? queue.mark : queue.nextMark())
    if (lane !== null) queue.directory(node, { lane, since })
    this.#adoptions.push({ node, lane, since, drain: this.#drains })
    return node
  }

  *#take(adoption: Adoption): Steps<void> {
    const { tree, queue } = this.#part
    const { node, lane, since } = adoption
    if (node.isGone) return
    const below: string[] = []
    try {
      const names = yield* readNames(node.open(tree), name => !this.#isExcluded(node, name))
      // Where it is not, or not any more, there an event or a comparison finds it.
      if (names === null) return queue.compare(node, { lane: 'live', since })
      for (let at = 0; at < names.length; at += namesAStep) {
        if (at > 0) yield
        if (node.isGone) return
        if (!this.#takeNames(adoption, names.slice(at, at + namesAStep), below)) {
          return queue.compare(node, { lane: 'live', since })
        }
      }
    } catch {
      // The disk does not give it back: a comparison says so, and tries again.
      return queue.compare(node, { lane: 'live', since })
    }
    for (let at = 0; at < below.length; at += 1) {
      if (at % namesAStep === namesAStep - 1) yield
      if (node.isGone) return
      const name = below[at]!
      if (node.children.has(name) || this.#adopted({ parent: node, name, lane, since }) !== null) continue
      // One that is not there any more either was removed or went with this directory: a comparison finds it.
      queue.compare(node, { lane: 'live', since })
    }
  }

  /** False when the directory is not to be reached now. */
  #takeNames({ node, lane, since, drain }: Adoption, names: readonly string[], below: string[]): boolean {
    const { tree, queue, links } = this.#part
    const fd = node.open(tree)
    const own = fd < 0 ? fd : statAt(fd, '')
    if (typeof own === 'number') return false
    const isNew = drain === this.#drains
    for (const name of names) {
      const stat = statAt(fd, name)
      if (typeof stat === 'number') continue
      if (stat.kind === 'directory') {
        // Another mount has files and rules of its own.
        if (own.device === stat.device) below.push(name)
      } else {
        if (stat.links > 1) links.note(stat.ino, node, name)
        if (lane !== null) queue.changed(node, name, { lane, since, isNew, isWritten: true })
      }
    }
    return true
  }

  #watch(node: DirectoryNode, more: number): boolean {
    const fd = this.#part.tree.fresh(node.path)
    const stat = fd < 0 ? fd : statAt(fd, '')
    if (typeof stat === 'number') return false
    node.ino = stat.ino
    const watch = this.#inotify.add(fd, more)
    if (watch === -ENOSPC) {
      this.#part.onUnwatched(
        `the limit of watches is used up after ${this.#byWatch.size} directories: what changes in others is found by comparing alone; raise fs.inotify.max_user_watches`,
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
      const { queue, now } = this.#part
      const isDirectory = (mask & IN_ISDIR) !== 0
      this.#halves.set(cookie, { dir, name, isDirectory, atMs: now(), since: queue.nextMark() })
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
      else {
        this.#halves.delete(cookie)
        const to = { dir, name }
        const opposite = this.#renames.opposite(half, to)
        if (opposite?.entry?.node === null) half.since = Math.min(half.since, queue.dropRename(opposite.entry))
        const part = { from: half, to, isExchange: opposite !== undefined }
        this.#renames.note(half, to, fileRenamed(this.#part, part))
      }
    } else if ((mask & IN_DELETE) !== 0) this.#deleted(dir, name, queue.nextMark())
    else if ((mask & IN_CREATE) !== 0)
      queue.changed(dir, name, { lane: 'settling', isNew: !queue.isLookedAt(dir, name) })
    else if ((mask & IN_CLOSE_WRITE) !== 0) queue.changed(dir, name, { lane: 'live', isWritten: true, isClosed: true })
    else if ((mask & IN_MODIFY) !== 0) queue.changed(dir, name, { lane: 'settling', isWritten: true })
    else if ((mask & IN_ATTRIB) !== 0) queue.changed(dir, name, { lane: 'live', onlyAttributes: true })
  }

  #deleted(dir: DirectoryNode, name: string, since: number): void {
    const { queue } = this.#part
    const waiting = queue.waiting(dir, name)
    if (waiting?.isNew === true) {
      // Made and removed before anybody looked; only the directory's time of change tells.
      queue.drop(waiting)
      queue.directory(dir, { lane: 'live', since: Math.min(since, waiting.since) })
    } else queue.changed(dir, name, { lane: 'live', since })
  }

  #directoryEvent(dir: DirectoryNode, { mask, cookie, name }: { mask: number; cookie: number; name: string }): void {
    const { queue, tree, filter } = this.#part
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
      const from = { dir: half.dir, name: half.name }
      const to = { dir, name }
      const opposite = this.#renames.opposite(from, to)
      if (opposite?.entry?.node === node && node.open(tree) >= 0) {
        // It is where the first half of an exchange has put it. What the other one has is sent anew: it is gone on the backup.
        const since = Math.min(half.since, queue.oldestSince())
        if (this.#adopted({ parent: dir, name, lane: 'live', since }) !== null) return
      }
      if (opposite?.entry?.node === null) half.since = Math.min(half.since, queue.dropRename(opposite.entry))
      node.moveTo(dir, name)
      this.#suspects.add(node)
      this.#renames.note(from, to, queue.renamed({ node, from, to, since: half.since }))
      if (opposite !== undefined) queue.changed(from.dir, from.name, { lane: 'live', since: half.since })
      // What was excluded below its old place was never watched nor sent, and may not be excluded here.
      if (filter.dependsOnPlace) queue.compare(node, { lane: 'live', since: half.since })
    } else if ((mask & IN_DELETE) !== 0) {
      child?.remove()
      tree.forget()
      queue.changed(dir, name, { lane: 'live' })
    } else if ((mask & IN_ATTRIB) !== 0 && child !== undefined) queue.directory(child, { lane: 'live' })
  }

  /** The other half did not come: it left the tree. */
  #movedOut(cookie: number, half: HalfRename): void {
    const { queue, tree } = this.#part
    this.#halves.delete(cookie)
    if (!half.isDirectory) return this.#deleted(half.dir, half.name, half.since)
    const node = half.dir.children.get(half.name)
    for (const one of node?.all() ?? []) {
      if (one.watch >= 0 && this.#byWatch.get(one.watch) === one) this.#inotify.remove(one.watch)
    }
    node?.remove()
    tree.forget()
    queue.changed(half.dir, half.name, { lane: 'live', since: half.since })
  }
}
