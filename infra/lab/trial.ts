/**
 * A trial: load and observers on a running pair, faults with the outage each one cost, and at the end the verdict on
 * every acknowledged row and on who served. The demo, the lab tests and the benchmark are made of these.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { HOSTS, type HostName } from './addresses.ts'
import { nowMs } from './database-client.ts'
import type { Fault } from './fault-verbs.ts'
import { heal, inject } from './faults.ts'
import {
  type Instrument,
  type Observers,
  type ObserverTargets,
  observeAgain,
  prepareObservers,
  servedSpansNow,
  startObservers,
  startWriter,
  stopInstrument,
  stopObservers,
  WriteLogReader,
  type WriterSettings,
} from './instruments.ts'
import { observerTargets } from './lab.ts'
import { readLabState } from './lab-state.ts'
import { type Judgement, judgeObservations } from './observations.ts'
import { databaseUri, queryHost, until } from './pair.ts'
import {
  errorCounts,
  errorsIn,
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
  /** The same one by one, and when the window began, on the writer's clock. */
  errorsAt: { code: string; connection: number; atMs: number }[]
  fromMs: number
}

export interface TrialVerdict {
  writes: { [host in HostName]: WriteVerdict }
  judgement: Judgement
}

export class Trial {
  readonly lab: string
  readonly steps: Step[] = []
  /** For whoever wants to read what was written so far. */
  readonly writer: Instrument
  private readonly log: WriteLogReader
  /** null: nobody looks. */
  private readonly observers: Observers | null
  private readonly targets: ObserverTargets

  private constructor(
    lab: string,
    parts: { writer: Instrument; observers: Observers | null; targets: ObserverTargets },
  ) {
    this.lab = lab
    this.writer = parts.writer
    this.log = new WriteLogReader(parts.writer)
    this.observers = parts.observers
    this.targets = parts.targets
  }

  /** Begins load (and, unless told otherwise, observers) on a protected pair. */
  static async begin(
    lab: string,
    options: { observe?: 'nothing' | Partial<ObserverTargets>; writer?: Omit<WriterSettings, 'uri'> } = {},
  ): Promise<Trial> {
    const uri = databaseUri(lab)
    if (uri === null) throw new Error(`The pair of lab ${lab} is not formed: there is nothing to try.`)
    const { observe = {} } = options
    const targets = { ...observerTargets(lab), ...(observe === 'nothing' ? {} : observe) }
    const looking = async (): Promise<Observers> => {
      await prepareObservers(lab, uri)
      return startObservers(lab, targets)
    }
    const [observers, writer] = await Promise.all([
      observe === 'nothing' ? null : looking(),
      startWriter(lab, { ...options.writer, uri }),
    ])
    return new Trial(lab, { writer, observers, targets })
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
      this.log.events().findLast(event => event.kind === 'acknowledged' && event.sentMs > doneMs) ? true : null,
    )
    await sleep(CALM_AFTER_MS)
    const window = { fromMs, toMs: nowMs() }
    const events = this.log.events()
    const step = {
      name,
      outage: writeOutage(events, window),
      errors: errorCounts(events, window),
      errorsAt: errorsIn(events, window),
      fromMs,
    }
    this.steps.push(step)
    return step
  }

  /** A fault. A host that boots has a new network: the observer in the old one would see nothing any more. */
  async inject(fault: Fault): Promise<void> {
    await inject(this.lab, fault)
    if (fault.kind === 'power') await this.unobserve(fault.host)
    if (fault.kind === 'power-on') await this.observeInside(fault.host)
  }

  /** Undoes every fault, as `lab heal` does. */
  async heal(): Promise<void> {
    const booting = HOSTS.filter(host => readLabState(this.lab).off.includes(host))
    await heal(this.lab)
    for (const host of booting) await this.observeInside(host)
  }

  private async unobserve(host: HostName): Promise<void> {
    const observer = this.observers?.[host]
    if (observer !== undefined) await stopInstrument(observer)
    delete this.observers?.[host]
  }

  private async observeInside(host: HostName): Promise<void> {
    if (this.observers === null) return
    await this.unobserve(host)
    const observer = await observeAgain(this.lab, host, this.targets)
    if (observer !== null) this.observers[host] = observer
  }

  /**
   * The verdict so far, with load and observers going on: every row that was acknowledged before this call is looked for
   * on both hosts, which must both be on.
   */
  async verdict(): Promise<TrialVerdict> {
    return { writes: await this.judge(), judgement: await this.seen() }
  }

  /** Who served so far, by what the observers saw, which go on. */
  async seen(): Promise<Judgement> {
    return judgeObservations(this.observers === null ? [] : await servedSpansNow(this.lab))
  }

  /** Ends load and observers and looks for every acknowledged row on both hosts, which must both be on. */
  async end(): Promise<TrialVerdict> {
    await stopInstrument(this.writer)
    const writes = await this.judge()
    return { writes, judgement: this.observers === null ? judgeObservations([]) : await stopObservers(this.lab) }
  }

  private async judge(): Promise<TrialVerdict['writes']> {
    const events = this.log.events()
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
    return { a: a!, b: b! }
  }
}
