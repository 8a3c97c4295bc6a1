import { statAt } from '../kernel/file-calls.ts'
import type { Comparison } from './comparison.ts'
import type { Tree } from './tree.ts'
import type { WorkQueue } from './work-queue.ts'

/** For how long the oldest change has waited. While everything is compared, it may be as old as the comparison. */
export function behindS(part: { oldest: number; queue: WorkQueue; comparison: Comparison; now: () => number }): number {
  const { oldest, queue, comparison, now } = part
  if (oldest === Number.POSITIVE_INFINITY) return 0
  const ms = oldest < 0 ? now() - comparison.startedMs : queue.ageMs(oldest)
  return Math.round(ms) / 1000
}

/** An estimate for people: looks at some of what waits. */
export function waitingBytes(queue: WorkQueue, tree: Tree): number {
  const { sampled, count } = queue.sampleNames()
  let bytes = 0
  for (const { dir, name } of sampled) {
    const fd = dir.isGone ? -1 : dir.open(tree)
    const stat = fd < 0 ? fd : statAt(fd, name)
    if (typeof stat !== 'number' && stat.kind === 'file') bytes += stat.size
  }
  return sampled.length === 0 ? 0 : Math.round((bytes * count) / sampled.length)
}

/** How far a seed is. It ends when everything it found has arrived, not when everything was compared. */
export class SeedProgress {
  readonly #now: () => number
  #beganMs: number | null = null
  #most = 0

  constructor(now: () => number) {
    this.#now = now
  }

  get isRunning(): boolean {
    return this.#beganMs !== null
  }

  begin(): void {
    this.#beganMs = this.#now()
    this.#most = 0
  }

  /** `waiting`: names and directories of the bulk lane; null while the copies are still compared. */
  look({ waiting, isInSync }: { waiting: number | null; isInSync: boolean }): void {
    if (waiting !== null) this.#most = Math.max(this.#most, waiting)
    if (isInSync) this.#beganMs = null
  }

  /** An estimate for people: percent by number of what has to be sent, and seconds at the pace so far. */
  status(waiting: number | null): { percent: number; leftS: number | null } | null {
    if (this.#beganMs === null) return null
    if (waiting === null || this.#most === 0) return { percent: 0, leftS: null }
    const share = 1 - Math.min(waiting, this.#most) / this.#most
    const tookS = (this.#now() - this.#beganMs) / 1000
    return { percent: Math.floor(share * 100), leftS: share === 0 ? null : Math.round((tookS / share) * (1 - share)) }
  }
}
