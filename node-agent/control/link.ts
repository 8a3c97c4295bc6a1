import { join } from 'node:path'
import { heartbeatMac } from '../../shared/contract/heartbeat-mac.ts'
import type { Heartbeat, HostEvent, HostReport } from '../../shared/contract/report.ts'
import type { DownChannel } from '../../shared/contract/topics.ts'
import type { Standing } from '../agent.ts'
import { isDue, readCredentials, renewCredentials } from './broker-credentials.ts'
import { BrokerLink } from './broker-link.ts'
import { Cloud, type Relay, type ToldInventory } from './cloud.ts'
import type { LocalPolicy } from './commands.ts'
import type { Identity } from './identity.ts'
import { msToNextLook, pullAloneSeconds, secondsToNextPull } from './link-times.ts'
import { ControlMemory } from './memory.ts'
import { ControlSession, type HostPort } from './session.ts'
import { changesOf, Spool } from './spool.ts'

/**
 * One host's standing link to its control plane: it pulls by HTTPS, listens and tells over the broker where there is one,
 * and keeps what could not be told. Every loop here is bounded and none of them is the core's: whatever the other end
 * does, the pair does not notice.
 */
export interface LinkOptions {
  identity: Identity
  /** Identity, memory, certificate and spool lie here. */
  folder: string
  host: HostPort
  policy: LocalPolicy
  nowMs: () => number
  /** In [0, 1). */
  random: () => number
  note: (why: string) => void
  /** Networks and storage as they are now. */
  inventory: () => Promise<Pick<ToldInventory, 'summary' | 'network' | 'storage'>>
  /** After something was done here: what it needs beside, such as the core to be started anew. */
  settled: () => void
  /** The control plane knows no host by this key: others that this host has may be the ones that count. */
  unknown: () => Promise<void>
  fetch?: typeof fetch
  relay?: Relay
}

const heartbeatMs = 10_000
/** Without a heartbeat on the broker the report is what shows that this host lives; it counts as silent after 30 s. */
const reportAloneMs = 10_000
const reportMs = 30_000
const retryApplyMs = 1_000
/** Of those. */
const refusedEvery = 60
/** Networks and storage: an incident is several changes, and nobody acts on them by the second. */
const inventoryMs = 1_000
const inventoryAtMostEveryMs = 10_000
const inventoryRetryMs = 30_000
/** Several changes of one incident come within this time. */
const changeMs = 100
/** Messages of the broker that wait to be looked at: whole documents come again, commands are sent again. */
const waitingMax = 64
const commandsAtOnce = 8
const eventsAtOnce = 100

export interface LinkState {
  url: string
  host: string
  reachedAt: string | null
  /** It was the peer who carried the last request. */
  throughPeer: boolean
  broker: 'connected' | 'not connected' | 'none'
  generation: number
  why: string
}

export class ControlLink {
  readonly #options: LinkOptions
  readonly #cloud: Cloud
  readonly #memory: ControlMemory
  readonly #spool: Spool
  readonly #session: ControlSession
  #broker: BrokerLink | null = null
  #certificateEndsAt: string | null = null
  #standing: Standing | null = null
  #documents: Promise<void> = Promise.resolve()
  #waiting = 0
  #commands = 0
  #failures = 0
  #retries = 0
  #reachedAtMs: number | null = null
  #reportedAtMs = 0
  #why = ''
  #timers = new Set<NodeJS.Timeout>()
  #changeTimer: NodeJS.Timeout | null = null
  /** Another report comes soon, since what this one told is about to change; so many were made for that. */
  #lookTimer: NodeJS.Timeout | null = null
  #looks = 0
  #pullTimer: NodeJS.Timeout | null = null
  #inventoryTimer: NodeJS.Timeout | null = null
  #inventoryToldAtMs = -Infinity
  #pulling = false
  #closed = false

  static async open(options: LinkOptions): Promise<ControlLink> {
    const memory = await ControlMemory.open(join(options.folder, 'memory.json'))
    const spool = await Spool.open(join(options.folder, 'events.json'))
    return new ControlLink(options, { memory, spool })
  }

  private constructor(options: LinkOptions, { memory, spool }: { memory: ControlMemory; spool: Spool }) {
    this.#options = options
    this.#memory = memory
    this.#spool = spool
    const { identity, host, policy, nowMs, fetch: given, relay } = options
    this.#cloud = new Cloud(identity, { nowMs, fetch: given, relay })
    this.#session = new ControlSession({
      identity,
      memory,
      host,
      policy,
      nowMs,
      cloud: {
        pull: () => this.#cloud.pull(),
        report: report => this.#tellReport(report),
        ack: async ack => {
          // The broker is quicker; what it takes may still be dropped there.
          await this.#broker?.publishAhead('ack', ack)
          return this.#cloud.ack(ack)
        },
      },
      certificateEndsAt: () => this.#certificateEndsAt,
      note: why => this.#note(why),
    })
  }

  async start(): Promise<void> {
    await this.#session.sayUnfinished()
    await this.#session.applyHeld()
    void this.#pull()
    const every = (ms: number, work: () => void): void => void this.#timers.add(setInterval(work, ms))
    every(heartbeatMs, () => this.#beat())
    every(reportMs, () => void this.#report())
    every(retryApplyMs, () => void this.#retryApply())
  }

  /** The core's own word of where this host stands; each change is told at once. */
  standing(standing: Standing): void {
    const before = this.#standing
    this.#standing = standing
    if (before !== null) this.#spoolChanges(before, standing)
    this.#changeTimer ??= setTimeout(() => {
      this.#changeTimer = null
      void this.#report()
    }, changeMs)
  }

  /** They changed: the control plane is told, once for several changes. */
  inventoryChanged(): void {
    const sinceMs = this.#options.nowMs() - this.#inventoryToldAtMs
    this.#tellInventoryIn(Math.max(inventoryMs, inventoryAtMostEveryMs - sinceMs))
  }

  #tellInventoryIn(ms: number): void {
    this.#inventoryTimer ??= setTimeout(() => {
      this.#inventoryTimer = null
      void this.tellInventory().then(why => {
        if (why === null || this.#closed) return
        this.#note(`the inventory is not taken: ${why}`)
        this.#tellInventoryIn(inventoryRetryMs)
      })
    }, ms)
  }

  /** @returns why the control plane does not have it, or null */
  async tellInventory(): Promise<string | null> {
    try {
      const told = await this.#options.inventory()
      this.#inventoryToldAtMs = this.#options.nowMs()
      const { boot } = this.#memory.present
      const sent = await this.#cloud.inventory({ v: 1, boot, seq: this.#session.nextSeq(), ...told })
      return sent.ok ? null : sent.why
    } catch (error) {
      return error instanceof Error ? error.message : String(error)
    }
  }

  /** From now on this host signs with other keys. */
  async keysChanged(): Promise<void> {
    await this.#session.keysChanged()
    // Its answer is what brings the documents that name them.
    this.#cloud.forget()
  }

  state(): LinkState {
    const { identity } = this.#options
    const { connected } = this.#broker ?? { connected: null }
    return {
      url: identity.url,
      host: identity.host,
      reachedAt: this.#reachedAtMs === null ? null : new Date(this.#reachedAtMs).toISOString(),
      throughPeer: this.#cloud.throughPeer,
      broker: connected === null ? 'none' : connected ? 'connected' : 'not connected',
      generation: this.#memory.present.generation,
      why: this.#why,
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const timer of this.#timers) clearInterval(timer)
    for (const timer of [this.#changeTimer, this.#lookTimer, this.#pullTimer, this.#inventoryTimer])
      if (timer !== null) clearTimeout(timer)
    await this.#broker?.close()
    await this.#spool.close()
    await this.#memory.close()
  }

  async #pull(): Promise<void> {
    if (this.#closed || this.#pulling) return
    this.#pulling = true
    const askedSeconds = await this.#session.cycle().catch((error: unknown) => {
      // What a full disk does not keep is not taken: it is asked for again, and this host goes on telling of itself.
      this.#cloud.forget()
      this.#note(`what the control plane wants can't be kept here: ${String(error)}`)
      return null
    })
    this.#pulling = false
    if (this.#closed) return
    if (askedSeconds === null) {
      this.#failures++
      if (this.#session.isUnknown) await this.#options.unknown()
    } else {
      this.#failures = 0
      this.#why = ''
      this.#reachedAtMs = this.#options.nowMs()
      await this.#tellEvents()
      await this.#keepBroker().catch(error => this.#note(`no way to the broker: ${error}`))
    }
    this.#options.settled()
    if (this.#closed) return
    const brokerAway = this.#broker !== null && !this.#broker.connected
    const { random } = this.#options
    this.#pullIn(secondsToNextPull({ askedSeconds, failures: this.#failures, brokerAway, random }))
  }

  #pullIn(seconds: number): void {
    if (this.#pullTimer !== null) clearTimeout(this.#pullTimer)
    this.#pullTimer = setTimeout(() => void this.#pull(), seconds * 1000)
  }

  /** The certificate first, by HTTPS; the broker is entered with it. */
  async #keepBroker(): Promise<void> {
    const { identity, folder, nowMs, random } = this.#options
    const { broker } = identity
    if (broker === null) return
    const path = join(folder, 'broker.json')
    let credentials = readCredentials(path)
    if (credentials === null || isDue(credentials, nowMs())) {
      const renewed = await renewCredentials(path, { cloud: this.#cloud, nowMs: nowMs() })
      if (!renewed.ok) return this.#note(`no certificate for the broker: ${renewed.why}`)
      credentials = renewed.credentials
      await this.#broker?.close()
      this.#broker = null
    }
    this.#certificateEndsAt = credentials.endsAt
    if (this.#broker !== null || this.#closed) return
    const { organisation, host } = identity
    const boot = this.#memory.present.boot
    const heard = (channel: DownChannel, text: string): void => this.#heard(channel, text)
    const note = (why: string): void => this.#note(why)
    const changed = (connected: boolean): void => {
      if (connected) void this.#report()
      // What it would have brought is looked for by the other way, soon.
      else if (!this.#closed) this.#pullIn(pullAloneSeconds * random())
    }
    const options = { url: broker.url, organisation, host, boot, random, heard, changed, note }
    this.#broker = new BrokerLink(options, credentials)
  }

  #heard(channel: DownChannel, text: string): void {
    if (channel === 'cmd') {
      if (this.#commands >= commandsAtOnce) return
      this.#commands++
      void this.#session
        .takeCommand(text)
        .catch(error => this.#note(`a command could not be taken: ${String(error)}`))
        .finally(() => {
          this.#commands--
          this.#options.settled()
        })
      return
    }
    if (this.#waiting >= waitingMax) return
    this.#waiting++
    this.#documents = this.#documents
      .then(() => this.#takeDocument(channel, text))
      .catch(error => this.#note(`a document could not be taken: ${String(error)}`))
      .finally(() => {
        this.#waiting--
        this.#options.settled()
      })
  }

  async #takeDocument(channel: Exclude<DownChannel, 'cmd'>, text: string): Promise<void> {
    switch (channel) {
      case 'trust':
        return this.#session.takeTrust(text)
      case 'fresh':
        return this.#session.takeFresh(text)
      case 'desired': {
        await this.#session.takeDesired(text)
        await this.#report()
      }
    }
  }

  async #report(): Promise<void> {
    if (this.#closed || this.#reachedAtMs === null) return
    await this.#session.sendReport().catch(error => this.#note(`a report was not made: ${error}`))
    if (!this.#session.inMotion) this.#looks = 0
    else if (!this.#closed)
      this.#lookTimer ??= setTimeout(
        () => {
          this.#lookTimer = null
          void this.#report()
        },
        msToNextLook(this.#looks++),
      )
  }

  /** Over the broker where it is connected, and by HTTPS besides as long as each pull: it may drop what it takes. */
  async #tellReport(
    report: HostReport,
  ): Promise<{ ok: true; value: unknown } | { ok: false; status: number | null; why: string }> {
    const now = this.#options.nowMs()
    const published =
      this.#broker?.connected === true && (await this.#broker.publish('report', await this.#said(report)))
    if (published && !this.#pulling) return { ok: true, value: null }
    if (this.#pulling && now - this.#reportedAtMs < reportAloneMs && published) return { ok: true, value: null }
    const sent = await this.#cloud.report(report)
    if (sent.ok) this.#reportedAtMs = now
    return sent
  }

  /** What is under way is looked after soon, what was refused now and then: its reason may have gone. */
  async #retryApply(): Promise<void> {
    const { status } = this.#session.applied
    const held = this.#memory.present.desired
    if (status === 'True' || held === null) return
    this.#retries++
    if (status === 'False' && this.#retries % refusedEvery !== 0) return
    await this.#session.applyHeld().catch(error => this.#note(`the wish was not applied: ${error}`))
    if (this.#session.applied.status !== status) await this.#report()
    this.#options.settled()
  }

  #beat(): void {
    const { boot } = this.#memory.present
    const key = this.#cloud.heartbeatKey
    if (this.#broker?.connected !== true || key === null) {
      if (this.#reachedAtMs !== null) void this.#report()
      return
    }
    const role: Heartbeat['role'] = this.#standing?.role ?? 'unknown'
    const heartbeat = {
      v: 2 as const,
      boot,
      seq: this.#session.nextSeq(),
      role,
      epoch: this.#standing?.epoch ?? 0,
      observedGeneration: this.#session.observedGeneration,
      at: this.#cloud.correctedNowMs(),
    }
    const mac = heartbeatMac(key, { host: this.#options.identity.host, heartbeat })
    void this.#broker.publish('hb', JSON.stringify({ ...heartbeat, mac }))
  }

  #said(report: HostReport): Promise<string> {
    return this.#session.sign('report', { v: 2, at: this.#cloud.correctedNowMs(), report })
  }

  /** At once, for who looks; what the broker drops of it comes from the spool, by HTTPS. */
  async #publishEvent(event: HostEvent): Promise<void> {
    if (this.#broker?.connected !== true) return
    const said = { v: 2 as const, at: this.#cloud.correctedNowMs(), events: [event] }
    await this.#broker.publish('evt', await this.#session.sign('events', said))
  }

  #spoolChanges(before: Standing, now: Standing): void {
    for (const change of changesOf(before, now)) void this.#publishEvent(this.#spool.add(change, this.#options.nowMs()))
  }

  /** Taken out of the spool only when the control plane itself has said that it has them. */
  async #tellEvents(): Promise<void> {
    const events = this.#spool.next(eventsAtOnce)
    if (events.length === 0) return
    const sent = await this.#cloud.events(events)
    if (sent.ok) this.#spool.told(events)
    else this.#note(`events are not taken: ${sent.why}`)
  }

  #note(why: string): void {
    if (why !== this.#why) this.#options.note(why)
    this.#why = why
  }
}
