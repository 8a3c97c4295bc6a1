import type { Comparison } from './comparison.ts'
import type { Contents } from './contents.ts'
import type { Emitter } from './emitter.ts'
import { type Transfer, unreadableWhy } from './emitter-part.ts'
import type { Outflow } from './outflow.ts'
import { type Problems, pathOf } from './problems.ts'
import type { Entry, WorkQueue } from './work-queue.ts'

export interface LanesPart {
  queue: WorkQueue
  out: Outflow
  emitter: Emitter
  comparison: Comparison
  contents: Contents
  problems: Problems
  now: () => number
}

/** Seed and repair get a turn after so many others, so that a tree that never rests does not put them off for ever. */
const bulkTurn = 16
/** Directories whose times wait until this many of them do, while a seed runs. */
const touchedMax = 200
/** A file that could not be read is tried again. */
const unreadableMs = 1000

/** Which of what waits is sent next: live changes first, then times of directories, seed and repair, contents. */
export class Lanes {
  readonly #part: LanesPart
  readonly #transfers: { live: Transfer | null; bulk: Transfer | null } = { live: null, bulk: null }
  /** Directories that are looked at part by part: whatever the lane they had their turn in, they hold up no change. */
  readonly #walks: Transfer[] = []
  #liveSteps = 0

  constructor(part: LanesPart) {
    this.#part = part
  }

  /** The connection is gone: what was on its way waits again. */
  detach(): void {
    for (const lane of ['bulk', 'live'] as const) {
      const transfer = this.#transfers[lane]
      this.#transfers[lane] = null
      if (transfer === null) continue
      transfer.abort()
      if (transfer.entry.kind === 'name') this.#part.queue.retry(transfer.entry, 0)
    }
    for (const walk of this.#walks.splice(0)) walk.abort()
    this.#part.contents.cut()
  }

  /** Files on their way that are not in the queue any more, nor in what was sent. */
  get underWay(): number {
    const { live, bulk } = this.#transfers
    return [live, bulk].filter(one => one?.entry.kind === 'name').length
  }

  /** The earliest mark of what is on its way; Infinity when nothing is. */
  oldestSince(): number {
    const { live, bulk } = this.#transfers
    let oldest = Number.POSITIVE_INFINITY
    for (const one of [live, bulk, ...this.#walks]) oldest = Math.min(oldest, one?.entry.since ?? oldest)
    return oldest
  }

  /** One thing; false when nothing can be sent now. */
  step(): boolean {
    const { out, queue } = this.#part
    if (!out.isOpen || out.isFull('live')) return false
    this.#liveSteps += 1
    if (this.#liveSteps > bulkTurn && this.#bulkStep()) return true
    if (this.#transfers.live !== null) return this.#advance('live')
    const entry = queue.takeLive()
    if (entry !== null) return this.#handle(entry, 'live')
    return this.#flushTouched() || this.#bulkStep() || this.#contentStep()
  }

  /** Times of directories come when nothing is to be sent into them for the moment. False when there are none. */
  #flushTouched(): boolean {
    const { queue, emitter } = this.#part
    const { touched } = emitter
    if (touched.size === 0) return false
    for (const [dir, { since, lane }] of touched) {
      if (lane === 'bulk' && queue.bulkLength > 0 && touched.size < touchedMax) continue
      touched.delete(dir)
      if (!dir.isGone) queue.directory(dir, { lane: 'live', since })
    }
    return queue.hasLive
  }

  #bulkStep(): boolean {
    const { out, queue, now } = this.#part
    this.#liveSteps = 0
    if (out.isFull('bulk') || now() < out.bulkFromMs) return false
    const walk = this.#walks[0]
    if (walk !== undefined) {
      if (walk.step() === false) this.#walks.shift()
      return true
    }
    if (this.#transfers.bulk !== null) return this.#advance('bulk')
    const bulk = queue.takeBulk()
    return bulk !== null && this.#handle(bulk, 'bulk')
  }

  #contentStep(): boolean {
    return !this.#part.out.isFull('bulk') && this.#part.contents.step()
  }

  #handle(entry: Entry, lane: 'live' | 'bulk'): true {
    const { comparison, contents, emitter } = this.#part
    if (entry.kind === 'compare') {
      const walk = comparison.compare(entry)
      if (walk !== null) this.#walks.push(walk)
    } else if (entry.kind === 'verify') {
      const file = contents.verify(entry)
      this.#transfers[lane] = { entry, step: () => file.step() !== null, abort: () => file.end() }
    } else this.#transfers[lane] = emitter.emit(entry)
    return true
  }

  #advance(lane: 'live' | 'bulk'): boolean {
    const transfer = this.#transfers[lane]!
    let state: boolean | null
    try {
      state = transfer.step()
    } catch (error) {
      const { problems, queue, now } = this.#part
      problems.set(pathOf(transfer.entry), unreadableWhy(error))
      transfer.abort()
      if (transfer.entry.kind === 'name') queue.retry(transfer.entry, now() + unreadableMs)
      state = false
    }
    if (state === false) this.#transfers[lane] = null
    return state !== null
  }
}
