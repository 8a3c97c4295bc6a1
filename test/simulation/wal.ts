/**
 * Write-ahead logs as a tree of timelines. A log is a pair (timeline, end); a record is a place in the tree, so that
 * "this log contains that record" is a short walk. Each record is `recordBytes` long and holds one user write or none.
 */
export const recordBytes = 100

/** No user data: a checkpoint, the end-of-recovery record, the barrier. */
export const noWrite = 0

export class Timeline {
  readonly id: number
  /** What PostgreSQL calls the timeline. Two that are forked apart by hand can bear the same number. */
  readonly number: number
  readonly parent: Timeline | null
  readonly fork: number
  /** User write of each record from `fork` on. */
  readonly writes: number[] = []

  constructor(id: number, number: number, parent: Timeline | null, fork: number) {
    this.id = id
    this.number = number
    this.parent = parent
    this.fork = fork
  }

  get end(): number {
    return this.fork + this.writes.length * recordBytes
  }

  /** The user write of the record that ends at `lsn` on this timeline or one it came from. */
  writeEndingAt(lsn: number): number {
    let tl: Timeline = this
    while (lsn <= tl.fork && tl.parent !== null) tl = tl.parent
    return tl.writes[(lsn - tl.fork) / recordBytes - 1] ?? noWrite
  }
}

/** A log on disk. */
export interface Log {
  tl: Timeline
  end: number
}

/** The timeline that `lsn` of `timeline` was written on: up to the fork, a timeline is its parent. */
function ancestorWith(timeline: Timeline, lsn: number): Timeline {
  let tl = timeline
  while (lsn <= tl.fork && tl.parent !== null) tl = tl.parent
  return tl
}

/** Whether `log` contains everything up to `lsn` of `timeline`. */
export function contains(log: Log, timeline: Timeline, lsn: number): boolean {
  const tl = ancestorWith(timeline, lsn)
  let at: Timeline | null = log.tl
  let end = log.end
  while (at !== null) {
    if (at === tl) return lsn <= end
    if (at.fork < end) end = at.fork
    at = at.parent
  }
  return false
}

/** The timeline of the position itself: a log that ends before a fork is still on the parent. */
export function timelineAt(log: Log): Timeline {
  let tl = log.tl
  while (log.end < tl.fork && tl.parent !== null) tl = tl.parent
  return tl
}

/** End of what two logs have in common. */
export function commonEnd(x: Log, y: Log): number {
  let xt: Timeline | null = x.tl
  let xEnd = x.end
  while (xt !== null) {
    let yt: Timeline | null = y.tl
    let yEnd = y.end
    while (yt !== null) {
      if (yt === xt) return Math.min(xEnd, yEnd)
      yEnd = Math.min(yEnd, yt.fork)
      yt = yt.parent
    }
    xEnd = Math.min(xEnd, xt.fork)
    xt = xt.parent
  }
  return 0
}

/** How far user data that was acknowledged, or read, reaches on each timeline. */
export class Reach {
  private readonly ends = new Map<Timeline, number>()

  note(timeline: Timeline, lsn: number): void {
    const tl = ancestorWith(timeline, lsn)
    if (lsn > (this.ends.get(tl) ?? 0)) this.ends.set(tl, lsn)
  }

  /** The first thing that `log` lacks, or null. */
  lackingIn(log: Log): { tl: Timeline; lsn: number } | null {
    for (const [tl, lsn] of this.ends) if (!contains(log, tl, lsn)) return { tl, lsn }
    return null
  }

  /** Whether `log` has something beyond `common` that is in here. */
  cutTo(log: Log): { tl: Timeline; lsn: number }[] {
    const lost: { tl: Timeline; lsn: number }[] = []
    for (const [tl, lsn] of this.ends) {
      if (contains(log, tl, lsn)) continue
      lost.push({ tl, lsn })
      const kept = commonEnd(log, { tl, end: lsn })
      this.ends.delete(tl)
      this.note(tl, kept)
    }
    return lost
  }

  *[Symbol.iterator](): Iterator<{ tl: Timeline; lsn: number }> {
    for (const [tl, lsn] of this.ends) yield { tl, lsn }
  }
}
