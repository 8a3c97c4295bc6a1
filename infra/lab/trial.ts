/**
 * A trial: load and observers on a running pair, faults with the outage each one cost, and at the end the verdict on
 * every acknowledged row and on who served. The demo, the lab tests and the benchmark are made of these.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { HOSTS, type HostName } from './addresses.ts'
import { nowMs } from './database-client.ts'
import type { Fault } from './fault-verbs.ts'
import { inject } from './faults.ts'
import {
  type Instrument,
  observeAgain,
  prepareObservers,
  readWriter,
  startObservers,
  startWriter,
  stopInstrument,
  stopObservers,
  type WriterSettings,
} from './instruments.ts'
import { observerTargets } from './lab.ts'
import type { Judgement } from './observations.ts'
import { databaseUri, queryHost, until } from './pair.ts'
import {
  errorCounts,
  judgeWrites,
  parseRows,
  WRITE_TABLE,
  type WriteOutage,
  type WriteVerdict,
  writeOutage,
} from './write-log.ts'

/** Before a fault, so that the window of its measurement begins in calm. */
const CALM_BEFORE_MS = 300
/** After a fault was survived: a second interruption belongs to the same outage window. */
const CALM_AFTER_MS = 1_500
/** The backup replays what it has within milliseconds; a rejoining one may still be copying. */
const CATCH_UP_LIMIT_MS = 30_000
const RECOVERY_LIMIT_MS = 60_000

export interface Step {
  /** What was done, in words. */
  name: string
  outage: WriteOutage
  /** Errors clients saw in the window, by code. */
  errors: { [code: string]: number }
}

export interface TrialVerdict {
  writes: { [host in HostName]: WriteVerdict }
  judgement: Judgement
}

export class Trial {
  readonly lab: string
  readonly steps: Step[] = []
  private readonly writer: Instrument
  private readonly observed: boolean

  private constructor(lab: string, parts: { writer: Instrument; observed: boolean }) {
    this.lab = lab
    this.writer = parts.writer
    this.observed = parts.observed
  }

  /** Begins load (and, unless told otherwise, observers) on a protected pair. */
  static async begin(
    lab: string,
    options: { observe?: boolean; writer?: Omit<WriterSettings, 'uri'> } = {},
  ): Promise<Trial> {
    const uri = databaseUri(lab)
    if (uri === null) throw new Error(`The pair of lab ${lab} is not formed: there is nothing to try.`)
    const observed = options.observe ?? true
    if (observed) {
      await prepareObservers(lab, uri)
      await startObservers(lab, observerTargets(lab))
    }
    const writer = await startWriter(lab, { ...options.writer, uri })
    return new Trial(lab, { writer, observed })
  }

  /**
   * Does something and measures the longest time without an acknowledged write from shortly before it until writes have
   * flowed again for a while.
   */
  async measure(name: string, act: () => Promise<unknown>): Promise<Step> {
    await sleep(CALM_BEFORE_MS)
    const fromMs = nowMs() - CALM_BEFORE_MS
    await act()
    const doneMs = nowMs()
    await until(RECOVERY_LIMIT_MS, `No write was acknowledged after: ${name}`, async () =>
      readWriter(this.writer).some(event => event.kind === 'acknowledged' && event.sentMs > doneMs) ? true : null,
    )
    await sleep(CALM_AFTER_MS)
    const window = { fromMs, toMs: nowMs() }
    const events = readWriter(this.writer)
    const step = { name, outage: writeOutage(events, window), errors: errorCounts(events, window) }
    this.steps.push(step)
    return step
  }

  /** A fault; a host that boots gets its inside observer again. */
  async inject(fault: Fault): Promise<void> {
    await inject(this.lab, fault)
    if (fault.kind === 'power-on' && this.observed) await observeAgain(this.lab, fault.host, observerTargets(this.lab))
  }

  /** Ends load and observers and looks for every acknowledged row on both hosts, which must both be on. */
  async end(): Promise<TrialVerdict> {
    await stopInstrument(this.writer)
    const events = readWriter(this.writer)
    const rows = (host: HostName): Promise<string> =>
      queryHost(this.lab, host, { sql: `select id, attempts from ${WRITE_TABLE}` })
    const judge = async (host: HostName): Promise<WriteVerdict> => {
      const deadline = nowMs() + CATCH_UP_LIMIT_MS
      for (;;) {
        const verdict = judgeWrites(events, parseRows(await rows(host)))
        // What is replayed a moment later is not lost; what is still missing at the deadline is.
        if (verdict.lost.length === 0 || nowMs() > deadline) return verdict
        await sleep(200)
      }
    }
    const [a, b] = await Promise.all(HOSTS.map(judge))
    const judgement = this.observed ? await stopObservers(this.lab) : { instances: [], violations: [], undecided: [] }
    return { writes: { a: a!, b: b! }, judgement }
  }
}
