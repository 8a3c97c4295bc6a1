import { timingOf } from '../../shared/protocol/timing.ts'
import type { RegisterReply, RegisterRequest } from '../../shared/protocol/types.ts'
import type { Config, WitnessConfig } from '../config.ts'
import { identityFileOf } from '../control/core-side.ts'
import { bootMs } from '../kernel/clock.ts'
import { readEnrolmentKey } from '../keys/enrolment-key.ts'
import { type HostKey, readHostKey } from '../keys/host-key.ts'
import type { WitnessLinkPort } from '../ports.ts'
import { WitnessClient } from '../witness/client.ts'
import { trustOf } from '../witness/connection.ts'

/** A vote is repeated on a fresh connection after twice its usual p99, within these bounds. */
const repeatMinMs = 20
/** With fewer answers a p99 means nothing. */
const samplesMin = 20

interface Options {
  config: Config
  witness: WitnessConfig
  signingKey: HostKey['signingKey']
}

export class WitnessDriver implements WitnessLinkPort {
  readonly #options: Options
  readonly #note: (why: string) => void
  #client: WitnessClient | null = null
  #hear: (reply: RegisterReply) => void = () => {}
  #noVote = ''

  static async open(config: Config, witness: WitnessConfig, note: (why: string) => void): Promise<WitnessDriver> {
    const { signingKey } = witness.hosted
      ? await readEnrolmentKey(identityFileOf(config.stateDir))
      : await readHostKey(config.hostKeyFile)
    return new WitnessDriver({ config, witness, signingKey }, note)
  }

  private constructor(options: Options, note: (why: string) => void) {
    this.#options = options
    this.#note = note
  }

  connect(): void {
    const { config, witness, signingKey } = this.#options
    const timing = timingOf(config.profile)
    this.#client = new WitnessClient({
      address: { url: witness.url, trust: trustOf(witness) },
      pair: config.pair,
      host: config.node,
      signingKey,
      now: bootMs,
      repeatAfterMs: { min: repeatMinMs, max: timing.resendMs },
      limitMs: timing.roundLimitMs,
      onReply: reply => {
        this.#noVote = ''
        this.#hear(reply)
      },
      onNoVote: ({ why }) => this.#refused(why),
      onFailed: () => {},
    })
  }

  send(request: RegisterRequest): void {
    this.#client?.send(request)
  }

  onReply(hear: (reply: RegisterReply) => void): void {
    this.#hear = hear
  }

  health(): { p99Ms: number | null; why: string } {
    const statistics = this.#client?.statistics()
    if (statistics === undefined) return { p99Ms: null, why: '' }
    const { vote, lastFault } = statistics
    return { p99Ms: vote.count < samplesMin ? null : vote.p99Ms, why: this.#noVote || (lastFault ?? '') }
  }

  close(): void {
    this.#client?.close()
    this.#client = null
  }

  /** Said once for each reason: the core takes it as silence and asks again. */
  #refused(why: string): void {
    if (why !== this.#noVote) this.#note(`the witness has no vote for this pair: ${why}`)
    this.#noVote = why
  }
}
