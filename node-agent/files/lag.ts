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
