import { Worker } from 'node:worker_threads'
import type { Found, Totals } from './totals.ts'
import { addTotals, noTotals } from './totals.ts'

/** Small enough that two workers end at about the same time, large enough that the messages cost nothing. */
const chunkRuns = 20

export interface Batch {
  first: number
  runs: number
  jobs: number
  /** No chunk is begun after this many minutes; those begun are finished. */
  minutes?: number | undefined
  /** A part of the batch without a gap before it is done. */
  progress?: (done: { next: number; totals: Totals }) => void
}

export interface ChunkOrder {
  first: number
  runs: number
}
export interface ChunkResult extends ChunkOrder {
  totals: Totals
  error: string | null
}

/**
 * Runs seeds `first` to `first + runs - 1` in worker threads. Each seed is a world of its own and the totals are added up
 * in the order of the seeds, so the outcome does not depend on how many workers there are or how they take turns.
 */
export async function runBatch(batch: Batch): Promise<Totals> {
  const { first, runs, jobs } = batch
  const began = performance.now()
  const endsAt = batch.minutes === undefined ? Number.POSITIVE_INFINITY : began + batch.minutes * 60_000
  const total = noTotals()
  const early = new Map<number, ChunkResult>()
  let next = first
  let counted = first
  const give = (): ChunkOrder | null => {
    if (next >= first + runs || performance.now() >= endsAt) return null
    const order = { first: next, runs: Math.min(chunkRuns, first + runs - next) }
    next += order.runs
    return order
  }
  const take = (result: ChunkResult): void => {
    early.set(result.first, result)
    for (let one = early.get(counted); one !== undefined; one = early.get(counted)) {
      early.delete(counted)
      addTotals(total, one.totals)
      counted += one.runs
      batch.progress?.({ next: counted, totals: total })
    }
  }
  const workers = Math.max(1, Math.min(jobs, Math.ceil(runs / chunkRuns)))
  await Promise.all(Array.from({ length: workers }, () => work(give, take)))
  return total
}

function work(give: () => ChunkOrder | null, take: (result: ChunkResult) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./batch-worker.ts', import.meta.url))
    const goOn = (): void => {
      const order = give()
      if (order === null) void worker.terminate().then(() => resolve())
      else worker.postMessage(order)
    }
    worker.on('error', reject)
    worker.on('message', (result: ChunkResult) => {
      if (result.error !== null) {
        void worker.terminate().then(() => reject(new Error(result.error ?? '')))
        return
      }
      take(result)
      goOn()
    })
    goOn()
  })
}

export type { Found }
