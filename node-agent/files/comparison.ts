import { createHash } from 'node:crypto'
import { statAt } from '../kernel/file-calls.ts'
import { type NewOperation, type Transfer, unreadableWhy } from './emitter-part.ts'
import type { Filter } from './filter.ts'
import type { LinkIndex } from './link-index.ts'
import { digestOf, isReplicated, type Listing, listNames } from './listing.ts'
import { type DirectoryNode, unreachable } from './local-tree.ts'
import type { FromReceiver, Tie } from './messages.ts'
import { joinPath, pathBytesMax, showName } from './names.ts'
import { crowdedNames, type Part, parted, partsFor, readNames, type Steps } from './parts.ts'
import type { Tree } from './tree.ts'
import type { CompareEntry, Entry, WorkQueue } from './work-queue.ts'

export interface ComparisonPart {
  tree: Tree
  filter: Filter
  root: DirectoryNode
  queue: WorkQueue
  links: LinkIndex
  /** Of the hash that divides a directory; the backup has the same. */
  hashStart: number
  now: () => number
  note: (why: string) => void
  send: (operation: NewOperation, entry: Entry) => number
  adopt: (dir: DirectoryNode, name: string) => DirectoryNode | null
  /** Null: it is none any more. */
  problem: (path: string, why: string | null) => void
  /** `mark`: all that was found has it. */
  onEnd: (verdict: Verdict, mark: number) => void
}

type Why = 'seed' | 'reconnected' | 'missed' | 'scrub'

interface Run {
  why: Why
  /** On the backup alone. Removed when all else was asked: what was moved is there under its new name before. */
  surplus: { dir: DirectoryNode; name: string }[]
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

/** What was asked within the log, by the number of the operation. */
interface Asked {
  entry: CompareEntry
  run: Run | null
  part: Part
  /** Of the entries of that part when it was looked at. */
  names: readonly string[]
  differs: boolean
}

/**
 * Compares the two copies directory by directory, and in a large one part by part, within the log: the backup looks at its
 * own when all that was sent before is applied, so that a difference is either a change that is on its way or a real one.
 * What differs becomes work of the bulk lane, as if it had just changed; nothing is ever removed on the backup's own
 * judgement.
 */
export class Comparison {
  readonly #part: ComparisonPart
  readonly #asked = new Map<number, Asked>()
  #run: Run | null = null
  #begun = 0
  #verdict: Verdict | null = null
  /** Looked at or asked from somewhere in the tree, outside the run. */
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
    const { queue, root, now, links } = this.#part
    // A scrub doubts nothing that was acknowledged; any other reason concerns everything before it, so its work is
    // older than every mark. One that runs already may have passed what this one is for.
    this.#begun += 1
    const since = why === 'scrub' ? queue.nextMark() : -this.#begun
    const label = this.#run?.why === 'seed' ? 'seed' : why
    // Nothing of those before is missed by this one; one after the other, as events are lost, they would never end.
    if (why !== 'scrub') queue.dropCompares()
    this.#run = {
      why: label,
      surplus: [],
      since,
      startedMs: now(),
      directories: 0,
      files: 0,
      differences: 0,
      open: 1,
      manifest: createHash('sha256'),
    }
    links.beginRun()
    queue.compare(root, { lane: 'bulk', since })
  }

  /** After a cut: another one begins when the backup is there again. */
  reset(): void {
    this.#asked.clear()
    this.#run = null
    this.#strays = 0
    this.#part.queue.dropCompares()
  }

  /** A directory's turn: null when it was looked at as a whole, else what goes on with it. */
  compare(entry: CompareEntry): Transfer | null {
    const run = this.#run?.since === entry.since ? this.#run : null
    if (run === null) this.#strays += 1
    const walk = this.#walk(entry, run)
    const step = (): boolean => walk.next().done !== true
    return step() ? { entry, step, abort: () => void walk.return() } : null
  }

  *#walk(entry: CompareEntry, run: Run | null): Steps<void> {
    const { dir } = entry
    const { problem, tree } = this.#part
    tree.drop(dir.path)
    let againMs: number | null
    try {
      const why = dir.isGone ? null : unreachable(dir, tree)
      againMs = dir.isGone || why !== null ? null : yield* this.#parts(entry, run)
      problem(dir.path || '.', why)
    } catch (error) {
      problem(dir.path || '.', unreadableWhy(error))
      againMs = unreadableMs
    }
    if (againMs !== null) {
      // It counts on in the run; outside one it does by waiting in the queue.
      if (run === null) this.#closed(run)
      return this.#again(entry, { afterMs: againMs, parts: entry.parts })
    }
    if (run !== null) run.directories += 1
    this.#closed(run)
  }

  #again({ dir, since }: CompareEntry, { afterMs, parts }: { afterMs: number; parts: number }): void {
    const { queue, now } = this.#part
    queue.compare(dir, { lane: 'settling', since, dueMs: now() + afterMs, parts })
  }

  /** Null when all parts are asked for, or nobody needs the answer any more; or after how many milliseconds to try again. */
  *#parts(entry: CompareEntry, run: Run | null): Steps<number | null> {
    const { tree, filter, hashStart: start } = this.#part
    const { dir } = entry
    const { path } = dir
    const fd = dir.open(tree)
    const names = fd < 0 ? null : yield* readNames(fd, name => isReplicated(filter, path, name))
    // On its way to somewhere else, as an event will tell.
    if (names === null) return laterMs
    const count = Math.max(partsFor(names.length), entry.parts)
    const how = { count, start }
    const parts = count === 1 ? [names] : yield* parted(names, how)
    const known = count === 1 ? [[...dir.children.keys()]] : yield* parted(dir.children.keys(), how)
    for (let index = 0; index < count; index += 1) {
      if (index > 0) yield
      if (dir.isGone) return null
      const part = { index, count }
      const listing = this.#list(dir, part, parts[index]!)
      if (listing === null) return laterMs
      parts[index] = []
      this.#children(entry, run, { listing, known: known[index]! })
      this.#ask(entry, run, { listing, part })
    }
    return null
  }

  #list(dir: DirectoryNode, { index }: Part, names: readonly string[]): Listing | null {
    const { tree, links } = this.#part
    return listNames({
      fd: dir.open(tree),
      path: dir.path,
      names,
      what: index === 0 ? 'with the directory itself' : 'names alone',
      isLinked: stat => stat.links > 1 && links.isShared(stat.ino),
      onFile: (name, stat) => {
        if (stat.links > 1) links.note(stat.ino, dir, name)
        else links.noteOnly(stat.ino, dir, name)
      },
    })
  }

  /** What is below is compared too; directories that were missed are taken in, those that are gone let go. */
  #children(entry: CompareEntry, run: Run | null, part: { listing: Listing; known: readonly string[] }): void {
    const { queue, adopt, filter } = this.#part
    const { dir, since, lane } = entry
    const present = new Set<string>()
    for (const { name, meta } of part.listing.entries) {
      if (meta.kind !== 'directory') continue
      present.add(name)
      const child = dir.children.get(name) ?? adopt(dir, name)
      if (child === null) continue
      queue.compare(child, { lane, since })
      if (run !== null) run.open += 1
    }
    for (const name of part.known) {
      const child = present.has(name) ? undefined : dir.children.get(name)
      if (child === undefined) continue
      child.remove()
      // One that is excluded since it was renamed is let go, here and there.
      if (isReplicated(filter, dir.path, name)) queue.changed(dir, name, { lane, since })
    }
  }

  #ask(entry: CompareEntry, run: Run | null, { listing, part }: { listing: Listing; part: Part }): void {
    const { remotePath: path } = entry.dir
    const digest = digestOf(listing)
    if (run !== null) {
      run.files += listing.entries.length
      run.manifest.update(`${path}\0`, 'latin1').update(digest)
    }
    const names = listing.entries.map(one => one.name)
    this.#question({ op: 'compare', path, part, digest }, { entry, run, part, names, differs: false })
    const ties = this.#ties(entry, listing)
    if (ties.length > 0) this.#question({ op: 'ties', path, ties }, { entry, run, part, names: [], differs: true })
  }

  #question(operation: NewOperation, asked: Asked): void {
    if (asked.run === null) this.#strays += 1
    else asked.run.open += 1
    this.#asked.set(this.#part.send(operation, asked.entry), asked)
  }

  /** Listings say that a file has other names, not which. */
  #ties({ dir }: CompareEntry, listing: Listing): Tie[] {
    const ties: Tie[] = []
    for (const { name, meta } of listing.entries) {
      const to = meta.linked ? this.#otherName(dir, name) : null
      if (to !== null && to.length <= pathBytesMax) ties.push({ name, to })
    }
    return ties
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

  answer(message: Extract<FromReceiver, { op: 'differs' | 'want' }>): void {
    const asked = this.#asked.get(message.seq)
    if (asked === undefined) return
    const { entry, run, part, names } = asked
    const { dir, lane, since } = entry
    if (dir.isGone) return
    asked.differs = true
    if (message.op === 'want') return this.#want(asked, message)
    if (message.absent) {
      for (let up: DirectoryNode | null = dir; up !== null; up = up.parent) up.isKnown = up.parent === null
      this.#part.queue.directory(dir, { lane, since })
      return this.#want(asked, { names, surplus: [], doubtful: [] })
    }
    dir.isKnown = true
    const isCrowded = message.names > crowdedNames * part.count
    const listing = isCrowded ? null : this.#listedAgain(dir, part, names)
    if (listing === null) {
      if (run !== null) run.open += 1
      return this.#again(entry, { afterMs: laterMs, parts: isCrowded ? partsFor(message.names) : entry.parts })
    }
    const { own, entries } = listing
    this.#question({ op: 'listing', path: dir.remotePath, part, own, entries }, { ...asked, names: [], differs: true })
  }

  /** Null when it can't be looked at now; its next turn tells why. */
  #listedAgain(dir: DirectoryNode, part: Part, names: readonly string[]): Listing | null {
    try {
      return this.#list(dir, part, names)
    } catch {
      return null
    }
  }

  #want(
    { entry: { dir, since, lane }, run }: Asked,
    { names, surplus, doubtful }: Record<'names' | 'surplus' | 'doubtful', readonly string[]>,
  ): void {
    const { queue } = this.#part
    for (const name of names) {
      this.#found(run, dir, name)
      const child = dir.children.get(name)
      if (child !== undefined) queue.directory(child, { lane, since })
      else queue.changed(dir, name, { lane, since, isClosed: true })
    }
    for (const name of surplus) {
      // One that is here came after the names were read, and is on its way.
      const isHere = this.#isHere(dir, name)
      if (!isHere) this.#found(run, dir, name)
      if (run === null || isHere) queue.changed(dir, name, { lane, since, isClosed: true })
      else run.surplus.push({ dir, name })
    }
    for (const name of doubtful) queue.verify(dir, name, since)
    queue.directory(dir, { lane, since })
  }

  #isHere(dir: DirectoryNode, name: string): boolean {
    const fd = dir.open(this.#part.tree)
    return fd >= 0 && typeof statAt(fd, name) !== 'number'
  }

  /** A difference, unless it is on its way already. */
  #found(run: Run | null, dir: DirectoryNode, name: string): void {
    const { queue, note, tree } = this.#part
    if (run === null || queue.waiting(dir, name) !== undefined || dir.sending.has(name)) return
    run.differences += 1
    if (run.why !== 'scrub' || run.differences > problemsNoted) return
    note(`${tree.path}: ${showName(joinPath(dir.remotePath, name))} differs on the backup; it is repaired`)
  }

  acknowledged(seq: number): void {
    const asked = this.#asked.get(seq)
    if (asked === undefined) return
    this.#asked.delete(seq)
    if (!asked.differs) asked.entry.dir.isKnown = true
    this.#closed(asked.run)
  }

  #closed(of: Run | null): void {
    if (of === null) this.#strays = Math.max(0, this.#strays - 1)
    // One that another has taken the place of ends with nobody's verdict.
    if (of === null || of !== this.#run) return
    of.open -= 1
    if (of.open > 0) return
    this.#run = null
    const { why, directories, files, differences, startedMs, since } = of
    for (const { dir, name } of of.surplus) {
      if (!dir.isGone) this.#part.queue.changed(dir, name, { lane: 'bulk', since, isClosed: true })
    }
    const endedMs = this.#part.now()
    const manifest = of.manifest.digest('hex')
    this.#verdict = { why, manifest, directories, files, differences, tookMs: Math.round(endedMs - startedMs), endedMs }
    this.#part.links.endRun()
    this.#part.onEnd(this.#verdict, since)
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
