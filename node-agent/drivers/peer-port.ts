import type { Message } from '../../shared/protocol/types.ts'
import type { Config } from '../config.ts'
import { bootMs } from '../kernel/clock.ts'
import { keysOf, readKeyRing } from '../pair/key-ring.ts'
import { PeerLink } from '../peer/link.ts'
import { zeroDiscards } from '../peer/link-report.ts'
import type { LinkPath, PeerAnswer, PeerLinkPort, RefusedPackets } from '../ports.ts'
import type { Pulse } from '../pulse.ts'
import { softwareVersion } from '../version.ts'

export class PeerDriver implements PeerLinkPort {
  readonly #config: Config
  readonly #pulse: Pulse
  readonly #keys: readonly Buffer[]
  #link: PeerLink | null = null
  #hear: (message: Message) => void = () => {}
  #answer: (verb: string, body: unknown) => unknown = () => null
  #trouble = { why: '', at: 0 }

  constructor(config: Config, pulse: Pulse) {
    this.#config = config
    this.#pulse = pulse
    this.#keys = keysOf(readKeyRing(config.pairKeyFile))
  }

  async open(): Promise<void> {
    const { node, peer } = this.#config
    this.#link = new PeerLink({
      self: node,
      pairKeys: this.#keys,
      paths: peer.paths.map(path => ({ localAddress: path.local, peerAddress: path.peer, port: path.port })),
      agentVersion: softwareVersion,
      now: bootMs,
      pulse: this.#pulse,
      onMessage: message => this.#hear(message),
      onRefused: (_why, sentence) => {
        this.#trouble = { why: sentence, at: bootMs() }
      },
      // With two keys the other host may have known none of the first hellos.
      onPeer: () => {
        this.#trouble = { why: '', at: 0 }
      },
      onAsked: (verb, body) => this.#answer(verb, body),
    })
  }

  send(message: Message): void {
    this.#link?.send(message)
  }

  onMessage(hear: (message: Message) => void): void {
    this.#hear = hear
  }

  ask(question: { verb: string; body: unknown; limitMs: number }): Promise<PeerAnswer> {
    return this.#link?.ask(question) ?? Promise.resolve({ ok: false, why: 'the peer link is not open' })
  }

  onAsked(answer: (verb: string, body: unknown) => unknown): void {
    this.#answer = answer
  }

  paths(): LinkPath[] {
    const statistics = this.#link?.statistics()
    if (statistics === undefined) return []
    return statistics.paths.map(path => ({
      local: path.localAddress,
      peer: path.peerAddress,
      heardMs: path.heardAgoMs === null ? null : Math.round(path.heardAgoMs),
      lossPercent: path.loss === null ? null : Math.round(path.loss * 1000) / 10,
      roundTripMs: path.rttMs === null ? null : Math.round(path.rttMs * 100) / 100,
    }))
  }

  usesNewestKey(): boolean {
    return this.#keys.length > 1 && this.#link?.statistics().peer?.byFirstKey === true
  }

  refused(): RefusedPackets {
    return this.#link?.statistics().discarded ?? zeroDiscards()
  }

  /** What was refused lately; the link says it again every ten seconds while it lasts. */
  trouble(): string {
    return bootMs() - this.#trouble.at < troubleMs ? this.#trouble.why : ''
  }

  close(): void {
    this.#link?.close()
    this.#link = null
  }
}
const troubleMs = 15_000
