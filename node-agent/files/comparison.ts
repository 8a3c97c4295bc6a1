import { createHash } from 'node:crypto'
import { statAt } from '../kernel/file-calls.ts'
import type { NewOperation } from './emitter.ts'
import type { Filter } from './filter.ts'
import { digestOf, type Listing, listDirectory } from './listing.ts'
import type { DirectoryNode, LinkIndex } from './local-tree.ts'
import type { FromReceiver, Tie } from './messages.ts'
import { joinPath, showName } from './names.ts'
import type { Tree } from './tree.ts'
import type { CompareEntry, Entry, WorkQueue } from './work-queue.ts'

export interface ComparisonPart {
  tree: Tree
  filter: Filter
  root: DirectoryNode
  queue: WorkQueue
  links: LinkIndex
  now: () => number
  note: (why: string) => void
  send: (operation: NewOperation, entry: Entry) => number
  adopt: (dir: DirectoryNode, name: string) => DirectoryNode | null
  /** Called while a large directory is listed. */
  alive: () => void
  /** Null: it is none any more. */
  problem: (path: string, why: string | null) => void
  /** `mark`: all that was found has it. */
  onEnd: (verdict: Verdict, mark: number) => void
}

type Why = 'seed' | 'reconnected' | 'missed' | 'scrub'

interface Run {
  why: Why
  since: number
  startedMs: number
  directories: number
  files: number
  differences: number
  /** Directories that wait for their turn or an answer. */
  open: number
  manifest: ReturnType<typeof createHash>
}

/** The last comparison that ended: what the two copies were seen to have in common. */
export interface Verdict {
  why: Why
  /** SHA-256 over the digests of all directories, in the order of the walk. */
  manifest: string
  directories: number
  files: number
  /** Names that differed and were not on their way already. */
  differences: number
  tookMs: number
  endedMs: number
}

const problemsNoted = 10
/** A directory that is not where it was: its event is read by then. */
const laterMs = 5
/** One that the disk does not give back. */
const unreadableMs = 2000

/**
 * Compares the two copies directory by directory, within the log: the backup looks at its own when all that was sent
 * before is applied, so that a difference is either a change that is on its way or a real one. What differs becomes
 * work of the bulk lane, as if it had just changed; nothing is ever removed on the backup's own judgement.
 */
export class Comparison {
  readonly #part: ComparisonPart
  /** By the number of the compare or listing operation. */
  readonly #asked = new Map<number, { entry: CompareEntry; isListing: boolean; differs: boolean }>()
  #run: Run | null = null
  #begun = 0
  #verdict: Verdict | null = null
  /** Started from somewhere in the tree, outside a run. */
  #strays = 0

  constructor(part: ComparisonPart) {
    this.#part = part
  }

  get isIdle(): boolean {
    return this.#run === null && this.#strays === 0
  }

  get startedMs(): number {
    return this.#run?.startedMs ?? this.#part.now()
  }

  get verdict(): Verdict | null {
    return this.#verdict
  }

  begin(why: Why): void {
    const { queue, root, now } = this.#part
    // A scrub doubts nothing that was acknowledged; any other reason concerns everything before it, so its work is
    // older than every mark. One that runs already may have passed what this one is for.
    this.#begun += 1
    const since = why === 'scrub' ? queue.nextMark() : -this.#begun
    const label = this.#run?.why === 'seed' ? 'seed' : why
    this.#run = {
      why: label,
      since,
      startedMs: now(),
      directories: 0,
      files: 0,
      differences: 0,
      open: 1,
      manifest: createHash('sha256'),
    }
    queue.compare(root, { lane: 'bulk', since })
  }

  /** After a cut: another one begins when the backup is there again. */
  reset(): void {
    this.#asked.clear()
    this.#run = null
    this.#strays = 0
    this.#part.queue.dropCompares()
  }

  /** A directory's turn. */
  compare(entry: CompareEntry): void {
    const { dir } = entry
    if (!dir.isGone) {
      const listing = this.#list(dir)
      if (typeof listing !== 'number') {
        this.#children(entry, listing)
        const digest = digestOf(listing)
        if (this.#run?.since === entry.since) {
          this.#run.directories += 1
          this.#run.files += listing.entries.length
          this.#run.manifest.update(`${dir.remotePath}\0`, 'latin1').update(digest)
        } else this.#strays += 1
        const seq = this.#part.send({ op: 'compare', path: dir.remotePath, digest }, entry)
        this.#asked.set(seq, { entry, isListing: false, differs: false })
        this.#ties(entry, listing)
        return
      }
      this.#later(entry, listing)
      return
    }
    this.#closed(entry, { wasCounted: false })
  }

  #later({ dir, since }: CompareEntry, afterMs: number): void {
    const { queue, now } = this.#part
    queue.compare(dir, { lane: 'settling', since, dueMs: now() + afterMs })
  }

  /** Or after how many milliseconds to try again. */
  #list(dir: DirectoryNode): Listing | number {
    const { tree, filter, links, problem, alive } = this.#part
    try {
      const listing = listDirectory({
        fd: dir.open(tree),
        filter,
        path: dir.path,
        isLinked: stat => stat.links > 1 && links.isShared(stat.ino),
        onFile: (name, stat) => links.note(stat.ino, dir, name),
        onProgress: alive,
      })
      problem(dir.path || '.', null)
      // On its way to somewhere else, as an event will tell.
      return listing ?? laterMs
    } catch (error) {
      problem(dir.path || '.', `it can't be read: ${error instanceof Error ? error.message : String(error)}`)
      return unreadableMs
    }
  }

  /** What is below is compared too; directories that were missed are taken in, those that are gone let go. */
  #children(entry: CompareEntry, listing: Listing): void {
    const { queue, adopt } = this.#part
    const { dir, since, lane } = entry
    const present = new Set<string>()
    for (const { name, meta } of listing.entries) {
      if (meta.kind !== 'directory') continue
      present.add(name)
      const child = dir.children.get(name) ?? adopt(dir, name)
      if (child === null) continue
      queue.compare(child, { lane, since })
      if (this.#run?.since === since) this.#run.open += 1
    }
    for (const [name, child] of dir.children) {
      if (present.has(name)) continue
      child.remove()
      queue.changed(dir, name, { lane, since })
    }
  }

  /** Listings say that a file has other names, not which. */
  #ties(entry: CompareEntry, listing: Listing): void {
    const { dir } = entry
    const ties: Tie[] = []
    for (const { name, meta } of listing.entries) {
      const to = meta.linked ? this.#otherName(dir, name) : null
      if (to !== null) ties.push({ name, to })
    }
    if (ties.length === 0) return
    this.#count(entry)
    const seq = this.#part.send({ op: 'ties', path: dir.remotePath, ties }, entry)
    this.#asked.set(seq, { entry, isListing: false, differs: true })
  }

  /** Of the same file, as of now; null when none is known. */
  #otherName(dir: DirectoryNode, name: string): string | null {
    const { tree, links } = this.#part
    const own = statAt(dir.open(tree), name)
    if (typeof own === 'number') return null
    for (const other of links.others(own.ino, dir, name)) {
      const fd = other.dir.isGone ? -1 : other.dir.open(tree)
      const there = fd < 0 ? fd : statAt(fd, other.name)
      if (typeof there !== 'number' && there.ino === own.ino) return joinPath(other.dir.remotePath, other.name)
    }
    return null
  }

  /** One question more waits for its answer. */
  #count(entry: CompareEntry): void {
    if (this.#run?.since === entry.since) this.#run.open += 1
    else this.#strays += 1
  }

  answer(message: Extract<FromReceiver, { op: 'differs' | 'want' }>): void {
    const asked = this.#asked.get(message.seq)
    if (asked === undefined) return
    const { entry } = asked
    const { dir } = entry
    if (dir.isGone) return
    asked.differs = true
    if (message.op === 'want') return this.#want(entry, message)
    const listing = this.#list(dir)
    if (typeof listing === 'number') {
      if (this.#run?.since === entry.since) this.#run.open += 1
      return this.#later(entry, listing)
    }
    if (message.absent) {
      for (let up: DirectoryNode | null = dir; up !== null; up = up.parent) up.isKnown = up.parent === null
      this.#part.queue.directory(dir, { lane: entry.lane, since: entry.since })
      return this.#want(entry, { names: listing.entries.map(one => one.name), surplus: [], doubtful: [] })
    }
    dir.isKnown = true
    const { own, entries } = listing
    const seq = this.#part.send({ op: 'listing', path: dir.remotePath, own, entries }, entry)
    this.#asked.set(seq, { entry, isListing: true, differs: true })
    this.#count(entry)
  }

  #want(
    { dir, since, lane }: CompareEntry,
    { names, surplus, doubtful }: Record<'names' | 'surplus' | 'doubtful', readonly string[]>,
  ): void {
    const { queue, note, tree } = this.#part
    const run = this.#run?.since === since ? this.#run : null
    for (const name of [...names, ...surplus]) {
      if (run !== null && queue.waiting(dir, name) === undefined) {
        run.differences += 1
        if (run.why === 'scrub' && run.differences <= problemsNoted) {
          note(`${tree.path}: ${showName(joinPath(dir.remotePath, name))} differs on the backup; it is repaired`)
        }
      }
      const child = dir.children.get(name)
      if (child !== undefined && names.includes(name)) queue.directory(child, { lane, since })
      else queue.changed(dir, name, { lane, since, isClosed: true })
    }
    for (const name of doubtful) queue.verify(dir, name, since)
    queue.directory(dir, { lane, since })
  }

  acknowledged(seq: number): void {
    const asked = this.#asked.get(seq)
    if (asked === undefined) return
    this.#asked.delete(seq)
    if (!asked.differs) asked.entry.dir.isKnown = true
    this.#closed(asked.entry, { wasCounted: true })
  }

  #closed(entry: CompareEntry, { wasCounted }: { wasCounted: boolean }): void {
    const run = this.#run
    if (run === null || run.since !== entry.since) {
      if (wasCounted) this.#strays = Math.max(0, this.#strays - 1)
      return
    }
    run.open -= 1
    if (run.open > 0) return
    this.#run = null
    const { why, directories, files, differences, startedMs } = run
    const endedMs = this.#part.now()
    const manifest = run.manifest.digest('hex')
    this.#verdict = { why, manifest, directories, files, differences, tookMs: Math.round(endedMs - startedMs), endedMs }
    this.#part.onEnd(this.#verdict, run.since)
  }

  /** What a barrier has to wait for: until its answer is there, a directory may hide a difference. */
  oldestSince(): number {
    let oldest = this.#run?.since ?? Number.POSITIVE_INFINITY
    for (const { entry } of this.#asked.values()) if (entry.since < oldest) oldest = entry.since
    return oldest
  }

  status() {
    const run = this.#run
    return {
      running: run === null ? null : { why: run.why, directories: run.directories, differences: run.differences },
      last: this.#verdict,
    }
  }
}
