import type { Comparison } from './comparison.ts'
import type { Emitter } from './emitter.ts'
import type { Lanes } from './lanes.ts'
import type { SentLog } from './sent-log.ts'
import type { WorkQueue } from './work-queue.ts'

/** Marks of what is not durable on the backup, wherever on its way it is. */
export class OpenMarks {
  readonly #part: { queue: WorkQueue; sent: SentLog; emitter: Emitter; lanes: Lanes; comparison: Comparison }
  #unprovenMark = Number.NEGATIVE_INFINITY

  constructor(part: { queue: WorkQueue; sent: SentLog; emitter: Emitter; lanes: Lanes; comparison: Comparison }) {
    this.#part = part
  }

  /** Something that is older than what is proven is about to go: nothing is while any of what there is now is on its way. */
  noteUnproven(): false {
    this.#unprovenMark = this.#part.queue.mark
    return false
  }

  /** For how long nothing is proven, at this time of the queue's clock; Infinity: nothing ever is. */
  unprovenMs(nowMs: number): number {
    const oldest = this.hasUpTo(this.#unprovenMark) ? -1 : this.oldest()
    if (oldest === Number.POSITIVE_INFINITY) return 0
    return oldest < 0 ? Number.POSITIVE_INFINITY : nowMs - this.#part.queue.happenedAfterMs(oldest)
  }

  /** Infinity when nothing is on its way. */
  oldest(): number {
    const { queue, sent, emitter, lanes, comparison } = this.#part
    let oldest = Math.min(queue.oldestSince(), sent.oldestSince(), lanes.oldestSince(), comparison.oldestSince())
    for (const { since } of emitter.touched.values()) if (since < oldest) oldest = since
    return oldest
  }

  /** Whether any is at most this one: soon found where much is on its way. */
  hasUpTo(mark: number): boolean {
    const { queue, sent, emitter, lanes, comparison } = this.#part
    if (sent.hasUpTo(mark) || queue.hasUpTo(mark)) return true
    for (const { since } of emitter.touched.values()) if (since <= mark) return true
    return Math.min(lanes.oldestSince(), comparison.oldestSince()) <= mark
  }
}
