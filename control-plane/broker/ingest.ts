import type { MqttClient } from 'mqtt'
import { ackBytesMax } from '../../shared/contract/documents.ts'
import {
  eventBatch,
  type Heartbeat,
  type HostReport,
  heartbeat,
  hostReport,
  parseBounded,
} from '../../shared/contract/report.ts'
import { parseUpTopic, topicRoot } from '../../shared/contract/topics.ts'
import type { Deps } from '../deps.ts'
import { takeAck } from '../services/ingest/acks.ts'
import { storeHostEvents } from '../services/ingest/host-events.ts'
import { lookAtPairsOf } from '../services/ingest/look-at-pairs.ts'
import { type FromHost, storeHeartbeats, storeReports } from '../services/ingest/store-reports.ts'

/**
 * What hosts say over the broker, into the database. Workers share one subscription; messages are acknowledged as they
 * come and gathered for some milliseconds, so that thousands of hosts cost a few statements. What is lost with a worker
 * comes again: heartbeats in ten seconds, reports in five minutes, events and answers from the host's spool.
 */
const subscription = `$share/ingest/${topicRoot}/+/+/up/#`
/** A person waits for a report at most this much longer. */
const gatherMs = 25
const batchRows = 500
/** Of each kind; beyond it the oldest are dropped, since newer ones replace them anyway. */
const waitingMax = 20_000
/** Answers and events each cost a transaction of their own. */
const singleMax = 1_000
const singleAtOnce = 8

export interface IngestCounts {
  reports: number
  heartbeats: number
  refused: number
  dropped: number
}

export class Ingest {
  readonly #deps: Deps
  readonly #client: MqttClient
  readonly #reports: FromHost<HostReport>[] = []
  readonly #heartbeats: FromHost<Heartbeat>[] = []
  readonly #singles: (() => Promise<unknown>)[] = []
  readonly counts: IngestCounts = { reports: 0, heartbeats: 0, refused: 0, dropped: 0 }
  #working = 0
  #flushing: Promise<void> | null = null
  #timer: ReturnType<typeof setTimeout> | null = null
  #closing = false
  readonly #workers = new Set<Promise<void>>()

  constructor(deps: Deps, client: MqttClient) {
    this.#deps = deps
    this.#client = client
    client.on('message', (topic, payload) => this.take(topic, payload))
    client.on('connect', () => this.#subscribe())
    if (client.connected) this.#subscribe()
  }

  #subscribe(): void {
    this.#client.subscribe(subscription, { qos: 1 }, error => {
      if (error) this.#deps.log({ level: 'warning', message: `the broker refuses ${subscription}: ${error.message}` })
    })
  }

  /** Never throws; whatever a host sent is stored, or counted as refused. */
  take(topic: string, payload: Uint8Array): void {
    if (this.#closing) return
    const from = parseUpTopic(topic)
    if (from === null) return this.#refuse()
    const { organisation, host, channel } = from
    switch (channel) {
      case 'hb':
        return this.#gather(this.#heartbeats, heartbeat.safeParse(parseBounded(payload)), { organisation, host })
      case 'report':
        return this.#gather(this.#reports, hostReport.safeParse(parseBounded(payload)), { organisation, host })
      case 'ack': {
        if (payload.length > ackBytesMax) return this.#refuse()
        const text = new TextDecoder().decode(payload)
        return this.#single(() => takeAck(this.#deps, text))
      }
      case 'evt': {
        const parsed = eventBatch.safeParse(parseBounded(payload))
        if (!parsed.success) return this.#refuse()
        return this.#single(() => storeHostEvents(this.#deps, { organisation, host, events: parsed.data.events }))
      }
      case 'presence':
        // A hint for people who look at the broker; anybody may have written it, so nothing here rests on it.
        return
    }
  }

  /** Takes no more; what was taken is in the database afterwards. */
  async close(): Promise<void> {
    this.#closing = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    await this.flush()
    await Promise.all(this.#workers)
  }

  #refuse(): void {
    this.counts.refused++
  }

  #gather<Body>(
    into: FromHost<Body>[],
    parsed: { success: true; data: Body } | { success: false },
    from: { organisation: string; host: string },
  ): void {
    if (!parsed.success) return this.#refuse()
    if (into.length >= waitingMax) {
      into.shift()
      this.counts.dropped++
    }
    into.push({ ...from, body: parsed.data })
    this.#timer ??= setTimeout(() => {
      this.#timer = null
      void this.flush()
    }, gatherMs)
  }

  /** Batches one after the other: two at once would only wait for each other's rows. */
  flush(): Promise<void> {
    this.#flushing ??= this.#flushAll().finally(() => {
      this.#flushing = null
    })
    return this.#flushing
  }

  async #flushAll(): Promise<void> {
    while (this.#reports.length > 0 || this.#heartbeats.length > 0) {
      const heartbeats = this.#heartbeats.splice(0, batchRows)
      await this.#store(heartbeats, async rows => {
        this.counts.heartbeats += await storeHeartbeats(this.#deps, rows)
      })
      const reports = this.#reports.splice(0, batchRows)
      await this.#store(reports, async rows => {
        const stored = await storeReports(this.#deps, rows)
        this.counts.reports += stored.length
        this.#single(() => lookAtPairsOf(this.#deps, stored))
      })
    }
  }

  /** A row that the database refuses must not take the others with it. */
  async #store<Row>(rows: Row[], store: (rows: Row[]) => Promise<void>): Promise<void> {
    if (rows.length === 0) return
    try {
      await store(rows)
    } catch (error) {
      if (rows.length === 1) {
        this.#refuse()
        this.#deps.log({
          level: 'warning',
          message: `a report was not stored: ${error instanceof Error ? error.message : ''}`,
        })
        return
      }
      const half = Math.ceil(rows.length / 2)
      await this.#store(rows.slice(0, half), store)
      await this.#store(rows.slice(half), store)
    }
  }

  #single(work: () => Promise<unknown>): void {
    if (this.#singles.length >= singleMax) {
      this.counts.dropped++
      return
    }
    this.#singles.push(work)
    if (this.#working >= singleAtOnce) return
    const worker = this.#workOff().finally(() => this.#workers.delete(worker))
    this.#workers.add(worker)
  }

  async #workOff(): Promise<void> {
    this.#working++
    for (let next = this.#singles.shift(); next !== undefined; next = this.#singles.shift()) {
      await next().catch((error: unknown) => {
        this.#deps.log({
          level: 'warning',
          message: `a message of a host was not taken: ${error instanceof Error ? error.message : ''}`,
        })
      })
    }
    this.#working--
  }
}
