import type { WalPosition } from '../../shared/protocol/types.ts'

/**
 * From where the log is read on after a kill: the end of a record that is on disk for certain. What PostgreSQL calls
 * flushed may end in the middle of a record, with a page; only an insert position is always a record's end, and counts
 * once the flush position has reached it.
 */
export class FlushedEnd {
  #known: WalPosition | null = null
  #next: WalPosition | null = null

  get position(): WalPosition | null {
    return this.#known
  }

  /** One look: `end` was the insert position before `flushed` was read. */
  note({ end, flushed }: { end: WalPosition; flushed: WalPosition }): void {
    if (this.#known !== null && this.#known.timeline !== end.timeline) this.clear()
    const reached = (position: WalPosition): boolean =>
      position.timeline === flushed.timeline && flushed.lsn >= position.lsn
    if (reached(end)) {
      this.#known = end
      this.#next = null
    } else if (this.#next === null || reached(this.#next)) {
      this.#known = this.#next ?? this.#known
      this.#next = end
    }
  }

  clear(): void {
    this.#known = null
    this.#next = null
  }
}
