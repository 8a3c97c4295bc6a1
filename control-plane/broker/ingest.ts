import type { MqttClient } from 'mqtt'
import { ackBytesMax } from '../../shared/contract/documents.ts'
import { heartbeatKeyOf, isGenuine } from '../../shared/contract/heartbeat-mac.ts'
import {
  type Heartbeat,
  type HostReport,
  heartbeat,
  parseBounded,
  saidEvents,
  saidReport,
} from '../../shared/contract/report.ts'
import { parseUpTopic, topicRoot } from '../../shared/contract/topics.ts'
import type { Deps } from '../deps.ts'
import { faultLine } from '../fault-text.ts'
import { isDatabaseAway, Refusal } from '../http/problem.ts'
import { takeAck } from '../services/ingest/acks.ts'
import { storeHostEvents } from '../services/ingest/host-events.ts'
import { lookAtPairsOf } from '../services/ingest/look-at-pairs.ts'
import { type FromHost, storeHeartbeats, storeReports } from '../services/ingest/store-reports.ts'
import { isFrom, isTimely, keysOf, newestGenuine, opened, type Said } from './said.ts'
import { Shares } from './shares.ts'

/**
 * What hosts say over the broker, into the database, if it was they who said it and lately: reports and events are signed
 * by the host, heartbeats carry a MAC. So whoever owns the broker can keep a host's words back, and not make them up. Workers share one subscription; messages are acknowledged as they
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
/** Of one host: whoever sends more than is taken keeps no other's answer waiting. */
const singleOfHostMax = 16
const singleAtOnce = 8

export interface IngestCounts {
  reports: number
  heartbeats: number
  refused: number
  dropped: number
}

interface Single {
  of: string
  work: () => Promise<unknown>
}

export class Ingest {
  readonly #deps: Deps
  readonly #client: MqttClient
  readonly #reports: Said<HostReport>[] = []
  readonly #heartbeats: FromHost<Heartbeat>[] = []
  readonly #singles: Single[] = []
  readonly #waitingOf = new Map<string, number>()
  readonly #shares: Shares
  readonly counts: IngestCounts = { reports: 0, heartbeats: 0, refused: 0, dropped: 0 }
  #working = 0
  #away = false
  #flushing: Promise<void> | null = null
  #timer: ReturnType<typeof setTimeout> | null = null
  #closing = false
  readonly #workers = new Set<Promise<void>>()

  constructor(deps: Deps, client: MqttClient) {
    this.#deps = deps
    this.#client = client
    this.#shares = new Shares(() => deps.now().getTime())
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
    // Before anything of it is read: reading is what a flood would cost.
    if (!this.#shares.take(`${organisation}/${host}`, payload.length)) {
      this.counts.dropped++
      return
    }
    switch (channel) {
      case 'hb':
        return this.#takeHeartbeat(payload, { organisation, host })
      case 'report': {
        const said = opened(payload, { schema: saidReport, now: this.#deps.now() })
        if (said === null) return this.#refuse()
        return this.#gather(this.#reports, { organisation, host, text: said.text, body: said.word.report })
      }
      case 'ack': {
        if (payload.length > ackBytesMax) return this.#refuse()
        const text = new TextDecoder().decode(payload)
        return this.#single(host, () => takeAck(this.#deps, text))
      }
      case 'evt': {
        const said = opened(payload, { schema: saidEvents, now: this.#deps.now() })
        if (said === null) return this.#refuse()
        const { text, word } = said
        return this.#single(host, async () => {
          const from = { organisation, host, text }
          const keys = await keysOf(this.#deps, [from])
          if (!(await isFrom(keys.get(host), from, 'events'))) return this.#refuse()
          await storeHostEvents(this.#deps, { organisation, host, events: word.events }).catch((error: unknown) => {
            if (!(error instanceof Refusal)) throw error
            this.counts.dropped++
          })
        })
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

  #takeHeartbeat(payload: Uint8Array, from: { organisation: string; host: string }): void {
    const parsed = heartbeat.safeParse(parseBounded(payload))
    if (!parsed.success || !isTimely(parsed.data.at, this.#deps.now())) return this.#refuse()
    const key = heartbeatKeyOf(this.#deps.heartbeatSecret, from.host)
    if (!isGenuine(key, { host: from.host, heartbeat: parsed.data })) return this.#refuse()
    this.#gather(this.#heartbeats, { ...from, body: parsed.data })
  }

  #gather<Word>(into: Word[], word: Word): void {
    if (into.length >= waitingMax) {
      into.shift()
      this.counts.dropped++
    }
    into.push(word)
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
      await this.#store(await this.#genuine(reports), async rows => {
        const stored = await storeReports(this.#deps, rows)
        this.counts.reports += stored.length
        this.#single('', () => lookAtPairsOf(this.#deps, stored))
      })
    }
  }

  async #genuine(reports: Said<HostReport>[]): Promise<Said<HostReport>[]> {
    if (reports.length === 0) return []
    try {
      const { genuine, refused } = await newestGenuine(this.#deps, reports)
      this.counts.refused += refused
      return genuine
    } catch (error) {
      this.#lost(error, `${reports.length} reports could not be looked at`)
      this.counts.dropped += reports.length
      return []
    }
  }

  /** While the database is away everything that comes is lost; that is said once, and not for each. */
  #lost(error: unknown, what: string): void {
    const away = isDatabaseAway(error)
    if (away && this.#away) return
    this.#away = away
    const until = away ? '; what hosts say is not stored until it answers' : ''
    this.#deps.log({ level: 'warning', message: `${what}: ${faultLine(error)}${until}` })
  }

  /** A row that the database refuses must not take the others with it. */
  async #store<Row>(rows: Row[], store: (rows: Row[]) => Promise<void>): Promise<void> {
    if (rows.length === 0) return
    try {
      await store(rows)
      this.#away = false
    } catch (error) {
      // Hosts say all of it again within seconds; row by row it would take as many time limits as there are rows.
      if (isDatabaseAway(error)) {
        this.counts.dropped += rows.length
        return this.#lost(error, `${rows.length} reports were not stored`)
      }
      if (rows.length === 1) {
        this.#refuse()
        return this.#lost(error, 'a report was not stored')
      }
      const half = Math.ceil(rows.length / 2)
      await this.#store(rows.slice(0, half), store)
      await this.#store(rows.slice(half), store)
    }
  }

  /** @param of the host that it comes from; '' for what is our own */
  #single(of: string, work: () => Promise<unknown>): void {
    const waiting = this.#waitingOf.get(of) ?? 0
    if (this.#singles.length >= singleMax || (of !== '' && waiting >= singleOfHostMax)) {
      this.counts.dropped++
      return
    }
    this.#waitingOf.set(of, waiting + 1)
    this.#singles.push({ of, work })
    if (this.#working >= singleAtOnce) return
    const worker = this.#workOff().finally(() => this.#workers.delete(worker))
    this.#workers.add(worker)
  }

  async #workOff(): Promise<void> {
    this.#working++
    for (let next = this.#singles.shift(); next !== undefined; next = this.#singles.shift()) {
      const { of, work } = next
      const left = (this.#waitingOf.get(of) ?? 1) - 1
      if (left > 0) this.#waitingOf.set(of, left)
      else this.#waitingOf.delete(of)
      await work().catch((error: unknown) => this.#lost(error, 'a message of a host was not taken'))
    }
    this.#working--
  }
}
