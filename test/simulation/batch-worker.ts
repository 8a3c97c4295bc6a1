import { parentPort } from 'node:worker_threads'
import type { ChunkOrder, ChunkResult } from './batch.ts'
import { run } from './run.ts'
import { addRun, found, noTotals } from './totals.ts'

/**
 * One of so many runs is done twice, with and without the ticks in rests: a difference means that something but the seed
 * decides, or that a rest is none.
 */
const replayEvery = 50

function chunk(order: ChunkOrder): ChunkResult {
  const totals = noTotals()
  for (let seed = order.first; seed < order.first + order.runs; seed++) {
    try {
      const result = run({ seed })
      addRun(totals, result)
      if (seed % replayEvery !== 0) continue
      const again = run({ seed, ticks: result.options.ticks === 'all' ? 'outside of rests' : 'all' })
      if (again.hash !== result.hash || again.steps !== result.steps)
        totals.found.push(found(result, { checker: 'replay', message: 'the same seed made another run', at: 0 }))
    } catch (error) {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
      return { ...order, totals, error: `seed ${seed}: ${text}` }
    }
  }
  return { ...order, totals, error: null }
}

parentPort?.on('message', (order: ChunkOrder) => parentPort?.postMessage(chunk(order)))
