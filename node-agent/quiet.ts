/** Nothing was decided for so long; repeated announcements of addresses are over by then (10 s). */
const quietAfterMs = 15_000

/**
 * Whether a turn of recurring work may be left out: every other one may, once nothing has happened for a while. Half of
 * what an idle agent does would otherwise be looking whether there is something to do.
 */
export class Quiet {
  #happenedAt = 0
  #leftOut = false

  happened(now: number): void {
    this.#happenedAt = now
  }

  /** To be asked at each turn. @param now of the same monotonic clock, ms */
  leavesOut(now: number): boolean {
    this.#leftOut = !this.#leftOut && now - this.#happenedAt > quietAfterMs
    return this.#leftOut
  }
}
