import { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import mqtt, { type MqttClient } from 'mqtt'
import type { Presence } from '../../shared/contract/report.ts'
import {
  channels,
  type DownChannel,
  downChannels,
  downTopic,
  type UpChannel,
  upTopic,
} from '../../shared/contract/topics.ts'
import type { BrokerCredentials } from './broker-credentials.ts'

/**
 * The way over the broker: documents come at once, reports go out cheaply. Nothing rests on it: what it says is verified
 * like everything else, what it takes may be dropped, and what matters goes by HTTPS too.
 */
export interface BrokerLinkOptions {
  url: string
  organisation: string
  host: string
  /** Of this start; whoever reads presence tells an old will from a new one by it. */
  boot: number
  heard: (channel: DownChannel, text: string) => void
  /** Connected, or not any more. */
  changed: (connected: boolean) => void
  note: (why: string) => void
  /** In [0, 1): a fleet that lost its broker does not come back in one instant. */
  random: () => number
}

/** The greatest document is a command with a sealed secret; a wish has some kilobytes. */
const packetBytesMax = 256 * 1024
const reconnectMinMs = 500
const reconnectSpreadMs = 2_000
const connectLimitMs = 10_000
const publishLimitMs = 5_000
const keepAliveSeconds = 15
const aheadMs = 250

export class BrokerLink {
  readonly #options: BrokerLinkOptions
  readonly #client: MqttClient
  #lastNote = ''
  #closed = false

  constructor(options: BrokerLinkOptions, credentials: BrokerCredentials) {
    this.#options = options
    const { url, host, boot, random } = options
    this.#client = mqtt.connect(url, {
      protocolVersion: 5,
      clientId: host,
      // No session at the broker: a command for a host that is away is honestly "not connected", and never comes late.
      clean: true,
      ca: credentials.authority,
      cert: credentials.certificate,
      key: credentials.keyPem,
      rejectUnauthorized: true,
      keepalive: keepAliveSeconds,
      connectTimeout: connectLimitMs,
      reconnectPeriod: reconnectMinMs + Math.floor(random() * reconnectSpreadMs),
      queueQoSZero: false,
      resubscribe: false,
      properties: { receiveMaximum: 16, maximumPacketSize: packetBytesMax, sessionExpiryInterval: 0 },
      will: { topic: this.#up('presence'), payload: Buffer.from(presence('offline', boot)), qos: 1, retain: true },
    })
    this.#client.on('connect', () => this.#connected())
    this.#client.on('close', () => options.changed(false))
    // mqtt.js throws an error that nobody listens for, and reconnects by itself after it.
    this.#client.on('error', error => this.#say(`broker: ${error.message}`))
    this.#client.on('message', (topic, payload) => this.#heard(topic, payload))
  }

  get connected(): boolean {
    return this.#client.connected && !this.#closed
  }

  /** Whether the broker took it, which says nothing about anybody having read it. */
  publish(channel: UpChannel, payload: string): Promise<boolean> {
    if (!this.connected) return Promise.resolve(false)
    const { qos, retain, expirySeconds } = channels[channel]
    return new Promise(resolve => {
      // mqtt.js drops its connection after a refusal and then forgets to call back.
      const timer = setTimeout(() => resolve(false), publishLimitMs)
      const properties = expirySeconds === null ? {} : { messageExpiryInterval: expirySeconds }
      this.#client.publish(this.#up(channel), payload, { qos, retain, properties }, error => {
        clearTimeout(timer)
        resolve(error === undefined || error === null)
      })
    })
  }

  /** For what also goes by HTTPS: resolves when that would not be in the way of this any more, or at once without a broker. */
  async publishAhead(channel: UpChannel, payload: string): Promise<void> {
    if (!this.connected) return
    void this.publish(channel, payload)
    await pause(aheadMs)
  }

  async close(): Promise<void> {
    const online = this.connected
    this.#closed = true
    if (online) await this.#lastWord()
    this.#client.end(true)
  }

  /** The will is for those who can't say it themselves. */
  #lastWord(): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, lastWordLimitMs)
      const payload = presence('offline', this.#options.boot)
      this.#client.publish(this.#up('presence'), payload, { qos: 1, retain: true }, () => {
        clearTimeout(timer)
        resolve()
      })
    })
  }

  #connected(): void {
    const { organisation, host, boot, changed } = this.#options
    this.#lastNote = ''
    // Nagle's algorithm holds a packet until the broker has acknowledged the one before, which it puts off for up to 40 ms.
    if (this.#client.stream instanceof Socket) this.#client.stream.setNoDelay(true)
    const topics = downChannels.map(channel => downTopic({ organisation, host }, channel))
    this.#client.subscribe(topics, { qos: 1 }, error => {
      if (error) this.#say(`the broker refuses the subscription: ${error.message}`)
    })
    this.#client.publish(this.#up('presence'), presence('online', boot), { qos: 1, retain: true })
    changed(true)
  }

  #heard(topic: string, payload: Buffer): void {
    const { organisation, host, heard } = this.#options
    const channel = downChannels.find(one => topic === downTopic({ organisation, host }, one))
    if (channel === undefined || payload.length > packetBytesMax) return
    heard(channel, payload.toString('utf8'))
  }

  #up(channel: UpChannel): string {
    return upTopic(this.#options, channel)
  }

  #say(why: string): void {
    if (why !== this.#lastNote) this.#options.note(why)
    this.#lastNote = why
  }
}
const lastWordLimitMs = 300

const presence = (state: Presence['state'], boot: number): string =>
  JSON.stringify({ v: 1, state, boot } satisfies Presence)
