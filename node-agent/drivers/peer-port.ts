import type { Message } from '../../shared/protocol/types.ts'
import type { Config } from '../config.ts'
import { bootMs } from '../kernel/clock.ts'
import { readSecret } from '../keys/secret-file.ts'
import { PeerLink } from '../peer/link.ts'
import { zeroDiscards } from '../peer/link-report.ts'
import type { LinkPath, PeerAnswer, PeerLinkPort, RefusedPackets } from '../ports.ts'
import { softwareVersion } from '../version.ts'

const pairKeyBytes = 32

/** @throws with a sentence if the key is missing, damaged or readable by others. */
export function readPairKey(path: string): Buffer {
  const bytes = readSecret(path)
  if (bytes === null) throw new Error(`${path} does not exist: \`understudy pair init\` or \`pair join\` makes it`)
  const key = Buffer.from(bytes.toString('utf8').trim(), 'base64url')
  if (key.length === pairKeyBytes) return key
  throw new Error(
    `${path} holds ${key.length} bytes, a pair key has ${pairKeyBytes}: copy it from the other host again`,
  )
}

export class PeerDriver implements PeerLinkPort {
  readonly #config: Config
  readonly #key: Buffer
  #link: PeerLink | null = null
  #hear: (message: Message) => void = () => {}
  #answer: (verb: string, body: unknown) => unknown = () => null
  #trouble = { why: '', at: 0 }

  constructor(config: Config) {
    this.#config = config
    this.#key = readPairKey(config.pairKeyFile)
  }

  async open(): Promise<void> {
    const { node, peer } = this.#config
    this.#link = new PeerLink({
      self: node,
      pairKey: this.#key,
      paths: peer.paths.map(path => ({ localAddress: path.local, peerAddress: path.peer, port: path.port })),
      agentVersion: softwareVersion,
      now: bootMs,
      onMessage: message => this.#hear(message),
      onRefused: (_why, sentence) => {
        this.#trouble = { why: sentence, at: bootMs() }
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
