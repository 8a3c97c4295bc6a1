import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { labPaths } from '../../infra/lab/addresses.ts'
import { nodeCommand, startTool } from '../../infra/lab/fabric.ts'
import { type Instrument, stopInstrument } from '../../infra/lab/instruments.ts'
import type { WriteOutage } from '../../infra/lab/write-log.ts'
import { type Summary, summary } from './statistics.ts'

const PROGRAM = join(import.meta.dirname, 'newcomers.ts')

/** Starts and reads newcomers.ts: clients that connect at any moment, also in the middle of an outage. */
export class Newcomers {
  readonly #instrument: Instrument

  private constructor(instrument: Instrument) {
    this.#instrument = instrument
  }

  static async start(lab: string): Promise<Newcomers> {
    const { runDir } = labPaths(lab)
    const file = join(runDir, 'newcomers.times')
    const args = ['--uri-file', join(runDir, 'database-uri'), '--log', file]
    const pid = await startTool(lab, 'c', nodeCommand(PROGRAM, args), 'newcomers.log')
    return new Newcomers({ pid, file })
  }

  stop(): Promise<void> {
    return stopInstrument(this.#instrument)
  }

  /** How long those waited that began while nobody was served; null where there were none. */
  figures(outages: readonly WriteOutage[]): { waitMs: Summary; afterServiceMs: Summary } | null {
    const { file } = this.#instrument
    if (!existsSync(file)) return null
    const lines = readFileSync(file, 'utf8').split('\n').slice(0, -1)
    const waits: number[] = []
    const afterwards: number[] = []
    for (const line of lines) {
      const [startMs = Number.NaN, endMs = Number.NaN] = line.split(' ').map(Number)
      const outage = outages.find(one => startMs > one.fromMs && startMs < one.toMs)
      if (outage === undefined) continue
      waits.push(endMs - startMs)
      afterwards.push(Math.max(0, endMs - outage.toMs))
    }
    return waits.length === 0 ? null : { waitMs: summary(waits), afterServiceMs: summary(afterwards) }
  }
}
