import type { DirectoryNode } from './local-tree.ts'

/** Something of the primary's tree that the backup may not have yet. `since` orders them, for barriers. */
export type Entry = NameEntry | NodeEntry | RenameEntry | CompareEntry | VerifyEntry

export interface NameEntry {
  kind: 'name'
  dir: DirectoryNode
  name: string
  since: number
  lane: Lane
  /** Made while nothing else of that name waited: the backup has nothing there. */
  isNew: boolean
  /** Only owner, mode, times or attributes changed. */
  onlyAttributes: boolean
  /** Its contents may differ from what the backup has under another name of the same file. */
  isWritten: boolean
  /** Whoever wrote it has closed it. */
  isClosed: boolean
  /** When it may be looked at although it is still open for writing, monotonic ms. */
  dueMs: number
  firstMs: number
  /** Its size when it was last looked at and left to settle; -1 before. */
  seenBytes: number
  failures: number
}

/** A directory itself: that it is there, and its attributes. */
export interface NodeEntry {
  kind: 'node'
  dir: DirectoryNode
  since: number
  lane: Lane
  dueMs: number
}

export interface RenameEntry {
  kind: 'rename'
  /** The directory that moved; null for a file. */
  node: DirectoryNode | null
  from: { dir: DirectoryNode; name: string }
  to: { dir: DirectoryNode; name: string }
  since: number
  lane: Lane
}

export interface CompareEntry {
  kind: 'compare'
  dir: DirectoryNode
  since: number
  lane: Lane
  dueMs: number
  /** Into how many parts it is divided at least: the backup has so many more names. */
  parts: number
}

/** A file whose contents are to be compared. */
export interface VerifyEntry {
  kind: 'verify'
  dir: DirectoryNode
  name: string
  /** Infinity: no barrier waits for it. */
  since: number
  lane: Lane
  /** Part of a pass over everything: a difference is damage, and said. */
  isScrub: boolean
}

/** settling: still being written; live: in the order of the changes; bulk: seed and repair, when nothing is live. */
export type Lane = 'settling' | 'live' | 'bulk'

/** A status asks for sizes of so many. */
const sampleMax = 200
/** Exact enough for a lag, and few enough to keep. */
const timeStepMs = 50
/** A file that is still open is sent at the latest so long after its first change. */
const settleMs = 10

/**
 * What waits to be sent. A name waits at most once, at the place of its first change: its contents are read when its
 * turn comes, so that they are at least as new as what was there before anything behind it.
 */
export class WorkQueue {
  readonly #lanes = { settling: new Set<Entry>(), live: new Set<Entry>(), bulk: new Set<Entry>() }
  /** Taken back after a cut: before everything else, in their order. */
  #again = new Set<Entry>()
  #since = 0
  #lastRename: RenameEntry | null = null
  /** Names that were looked at since the kernel's events were read. */
  readonly #looked = new Map<DirectoryNode, Set<string>>()
  readonly #times: { mark: number; atMs: number; afterMs: number }[] = []
  readonly #now: () => number
  /** What is marked now had not happened yet when it was looked for before, at this time. */
  unseenSinceMs: number

  constructor(now: () => number) {
    this.#now = now
    this.unseenSinceMs = now()
  }

  /** The mark of the latest change: a barrier waits for all up to it. */
  get mark(): number {
    return this.#since
  }
  get length(): number {
    return this.#lanes.settling.size + this.#lanes.live.size + this.#lanes.bulk.size + this.#again.size
  }
  get bulkLength(): number {
    return this.#lanes.bulk.size
  }
  get hasLive(): boolean {
    return this.#again.size > 0 || this.#lanes.live.size > 0
  }

  nextMark(): number {
    this.#since += 1
    const nowMs = this.#now()
    if (nowMs - (this.#times.at(-1)?.atMs ?? Number.NEGATIVE_INFINITY) >= timeStepMs) {
      this.#times.push({ mark: this.#since, atMs: nowMs, afterMs: this.unseenSinceMs })
    }
    return this.#since
  }

  /** For how long a mark has been there, to {@link timeStepMs}; forgets what is older. */
  ageMs(mark: number): number {
    return this.#now() - (this.#timesOf(mark)?.atMs ?? this.#now())
  }

  /** When nothing of what has this mark had happened yet: earlier than it was seen where this process did not run for a while. */
  happenedAfterMs(mark: number): number {
    return this.#timesOf(mark)?.afterMs ?? this.unseenSinceMs
  }

  #timesOf(mark: number): { atMs: number; afterMs: number } | undefined {
    while (this.#times.length > 1 && this.#times[1]!.mark <= mark) this.#times.shift()
    return this.#times[0]
  }

  changed(
    dir: DirectoryNode,
    name: string,
    how: Partial<Pick<NameEntry, 'isNew' | 'onlyAttributes' | 'isWritten' | 'isClosed' | 'since'>> & { lane: Lane },
  ): NameEntry {
    const present = dir.waiting?.get(name)
    if (present !== undefined) {
      if (how.onlyAttributes !== true) present.onlyAttributes = false
      present.isWritten ||= how.isWritten ?? false
      present.isClosed ||= how.isClosed ?? false
      // Whoever waits for the earlier one waits for this look.
      present.since = Math.min(present.since, how.since ?? present.since)
      this.#promote(present, how.lane)
      return present
    }
    const firstMs = this.#now()
    const entry: NameEntry = {
      kind: 'name',
      dir,
      name,
      since: how.since ?? this.nextMark(),
      lane: how.lane,
      isNew: how.isNew ?? false,
      onlyAttributes: how.onlyAttributes ?? false,
      isWritten: how.isWritten ?? false,
      isClosed: how.isClosed ?? false,
      firstMs,
      dueMs: firstMs + settleMs,
      seenBytes: -1,
      failures: 0,
    }
    dir.waiting ??= new Map()
    dir.waiting.set(name, entry)
    this.#lanes[how.lane].add(entry)
    return entry
  }

  directory(dir: DirectoryNode, how: { lane: Lane; since?: number; dueMs?: number }): void {
    const present = dir.waitingSelf
    if (present !== null) {
      present.since = Math.min(present.since, how.since ?? present.since)
      return this.#promote(present, how.lane)
    }
    const { lane, since = this.nextMark(), dueMs = 0 } = how
    const entry: NodeEntry = { kind: 'node', dir, since, lane, dueMs }
    dir.waitingSelf = entry
    this.#lanes[how.lane].add(entry)
  }

  renamed(part: Pick<RenameEntry, 'node' | 'from' | 'to' | 'since'>): RenameEntry {
    const entry: RenameEntry = { kind: 'rename', ...part, lane: 'live' }
    this.#lanes.live.add(entry)
    this.#lastRename = entry
    return entry
  }

  /** A rename that was undone, unless it is sent or another one may build on it. Since when it waited. */
  dropRename(entry: RenameEntry): number {
    if (entry === this.#lastRename) this.#lanes.live.delete(entry)
    return entry.since
  }

  compare(dir: DirectoryNode, how: { lane: Lane; since?: number; dueMs?: number; parts?: number }): void {
    const { lane, since = this.nextMark(), dueMs = 0, parts = 1 } = how
    this.#lanes[lane].add({ kind: 'compare', dir, since, lane, dueMs, parts })
  }

  verify(dir: DirectoryNode, name: string, since: number): void {
    this.#lanes.bulk.add({ kind: 'verify', dir, name, since, lane: 'bulk', isScrub: false })
  }

  /**
   * Whether a name had its turn after what an event that is read now tells of: what was made may then be on the backup already.
   */
  isLookedAt(dir: DirectoryNode, name: string): boolean {
    return this.#looked.get(dir)?.has(name) === true
  }

  /** It was sent with another name of its file: since when it waited, Infinity when it did not. */
  lookedAt(dir: DirectoryNode, name: string): number {
    const waiting = this.waiting(dir, name)
    if (waiting !== undefined) this.drop(waiting)
    this.#noteLook({ dir, name })
    return waiting?.since ?? Number.POSITIVE_INFINITY
  }

  /** All events of before are read. */
  eventsRead(): void {
    this.#looked.clear()
  }

  #promote(entry: Entry, lane: Lane): void {
    const rank: Record<Lane, number> = { bulk: 0, settling: 1, live: 2 }
    // What waits again after a cut is in no lane, and ahead of all.
    if (rank[lane] <= rank[entry.lane] || !this.#lanes[entry.lane].delete(entry)) return
    entry.lane = lane
    this.#lanes[lane].add(entry)
  }

  /** Whether this name waits, and its entry. */
  waiting(dir: DirectoryNode, name: string): NameEntry | undefined {
    return dir.waiting?.get(name)
  }

  /** Removes a name that was moved away or whose file is gone for good. */
  drop(entry: NameEntry): void {
    this.#lanes[entry.lane].delete(entry)
    this.#again.delete(entry)
    this.#release(entry)
  }

  /** Files whose time to settle is over take their place in the live lane. */
  settle(nowMs: number): void {
    for (const entry of this.#lanes.settling) {
      if ('dueMs' in entry && entry.dueMs > nowMs) continue
      this.#promote(entry, 'live')
    }
  }

  /** When the next one is due; Infinity when none settles. */
  nextDueMs(): number {
    let due = Number.POSITIVE_INFINITY
    for (const entry of this.#lanes.settling) if ('dueMs' in entry && entry.dueMs < due) due = entry.dueMs
    return due
  }

  takeLive(): Entry | null {
    return this.#take(first(this.#again) ?? first(this.#lanes.live))
  }

  takeBulk(): Entry | null {
    return this.#take(first(this.#lanes.bulk))
  }

  #take(entry: Entry | null): Entry | null {
    if (entry === null) return null
    this.#lanes[entry.lane].delete(entry)
    this.#again.delete(entry)
    if (entry.kind === 'name' || entry.kind === 'node') this.#release(entry)
    if (entry.kind === 'name') this.#noteLook(entry)
    return entry
  }

  #noteLook({ dir, name }: Pick<NameEntry, 'dir' | 'name'>): void {
    const names = this.#looked.get(dir)
    if (names === undefined) this.#looked.set(dir, new Set([name]))
    else names.add(name)
  }

  #release(entry: NameEntry | NodeEntry): void {
    if (entry.kind === 'node') entry.dir.waitingSelf = null
    else {
      entry.dir.waiting?.delete(entry.name)
      if (entry.dir.waiting?.size === 0) entry.dir.waiting = null
    }
  }

  /** Waits once more, still with the place in time it had. `lane` settling: not before `dueMs`. */
  retry(entry: NameEntry, dueMs: number, why: 'failed' | 'settling' = 'failed'): void {
    const { isNew, onlyAttributes, isWritten, isClosed, since } = entry
    const how = { lane: 'settling', isNew, onlyAttributes, isWritten, isClosed, since } as const
    const again = this.changed(entry.dir, entry.name, how)
    again.since = Math.min(again.since, since)
    again.failures = entry.failures + (why === 'failed' ? 1 : 0)
    again.firstMs = entry.firstMs
    again.seenBytes = entry.seenBytes
    again.dueMs = dueMs
  }

  /** Takes back, in order, what was sent and not acknowledged when the connection was cut. */
  takeBack(entries: readonly Entry[]): void {
    const isBack = new Set<Entry>()
    for (const entry of entries) {
      if (entry.kind === 'name') {
        const later = entry.dir.waiting?.get(entry.name)
        // It changed again meanwhile: one look, at the earlier place.
        if (later !== undefined) {
          entry.onlyAttributes &&= later.onlyAttributes
          entry.isWritten ||= later.isWritten
          entry.since = Math.min(entry.since, later.since)
          // Of a name that was removed and made again, both were sent: the backup may have what was there before.
          if (isBack.has(later)) entry.isNew = false
          this.drop(later)
        }
        entry.dir.waiting ??= new Map()
        entry.dir.waiting.set(entry.name, entry)
      } else if (entry.kind === 'node') {
        const later = entry.dir.waitingSelf
        if (later !== null) {
          entry.since = Math.min(entry.since, later.since)
          this.#lanes[later.lane].delete(later)
        }
        entry.dir.waitingSelf = entry
      }
      isBack.add(entry)
    }
    this.#again = new Set([...isBack, ...this.#again])
  }

  /** Drops what a comparison of the whole tree is going to find again. */
  clear(): void {
    for (const lane of Object.values(this.#lanes)) {
      for (const entry of lane) if (entry.kind === 'name' || entry.kind === 'node') this.#release(entry)
      lane.clear()
    }
    for (const entry of this.#again) if (entry.kind === 'name' || entry.kind === 'node') this.#release(entry)
    this.#again.clear()
  }

  /** What a comparison of everything begins anew. */
  dropCompares(): void {
    for (const lane of Object.values(this.#lanes)) {
      for (const entry of lane) if (isQuestion(entry)) lane.delete(entry)
    }
  }

  /** Some of the names that wait, from all over, and how many there are. */
  sampleNames(): { sampled: NameEntry[]; count: number } {
    const step = Math.ceil(this.length / sampleMax)
    const sampled: NameEntry[] = []
    let [at, count] = [0, 0]
    for (const entries of this.#all()) {
      for (const entry of entries) {
        at += 1
        if (entry.kind !== 'name') continue
        count += 1
        if (at % step === 0) sampled.push(entry)
      }
    }
    return { sampled, count }
  }

  /** The earliest mark that waits; Infinity when nothing does. */
  oldestSince(): number {
    let oldest = Number.POSITIVE_INFINITY
    for (const entries of this.#all()) for (const { since } of entries) if (since < oldest) oldest = since
    return oldest
  }

  /** Whether anything up to this mark waits. */
  hasUpTo(mark: number): boolean {
    for (const entries of this.#all()) for (const { since } of entries) if (since <= mark) return true
    return false
  }

  /** Looked through each second, with all names of a large seed: by no generator, which would take ten times as long. */
  #all(): readonly Iterable<Entry>[] {
    return [this.#again, this.#lanes.live, this.#lanes.settling, this.#lanes.bulk]
  }
}

/** Asks what the backup has, and changes nothing there. */
export const isQuestion = (entry: Entry): entry is CompareEntry | VerifyEntry =>
  entry.kind === 'compare' || entry.kind === 'verify'

const first = (lane: Set<Entry>): Entry | null => lane.values().next().value ?? null
