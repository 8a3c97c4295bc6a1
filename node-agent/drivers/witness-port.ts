import { timingOf } from '../../shared/protocol/timing.ts'
import type { Incarnation, RegisterReply, RegisterRequest } from '../../shared/protocol/types.ts'
import type { AdmittedWitness, Config, WitnessConfig, WitnessPlace } from '../config.ts'
import { identityFileOf } from '../control/core-side.ts'
import { bootMs } from '../kernel/clock.ts'
import { readEnrolmentKey } from '../keys/enrolment-key.ts'
import { type HostKey, readHostKeys } from '../keys/host-key.ts'
import type { WitnessHealth, WitnessLinkPort } from '../ports.ts'
import { retirePair, type WitnessCaller } from '../witness/admission.ts'
import { WitnessClient } from '../witness/client.ts'
import { trustOf } from '../witness/connection.ts'

/** A vote is repeated on a fresh connection after twice its usual p99, within these bounds. */
const repeatMinMs = 20
/** With fewer answers a p99 means nothing. */
const samplesMin = 20
/** A witness that was replaced is asked no more; until then it may be. */
const idleMs = 60_000

type Name = 'first' | 'alternate' | 'former'
interface Place {
  name: Name
  at: WitnessPlace
  signingKey: HostKey['signingKey']
  client: WitnessClient | null
  askedAt: number
  noVote: { why: string; isVoid: boolean }
}

/**
 * The way to the witness, and to others that this pair has or had: which of them is asked follows from the incarnation
 * that a request names. An alternate is kept in touch with; one that was replaced only while it is asked.
 */
export class WitnessDriver implements WitnessLinkPort {
  readonly #config: Config
  readonly #witness: WitnessConfig
  readonly #keys = new Map<string, HostKey['signingKey']>()
  readonly #places: { [name in Name]?: Place } = {}
  readonly #note: (why: string) => void
  #timer: NodeJS.Timeout | null = null
  #asked: Name = 'first'
  #hear: (reply: RegisterReply) => void = () => {}

  static async open(config: Config, witness: WitnessConfig, note: (why: string) => void): Promise<WitnessDriver> {
    const driver = new WitnessDriver(config, witness, note)
    const places = { first: witness, alternate: witness.alternate, former: witness.former }
    for (const [name, at] of Object.entries(places) as [Name, WitnessPlace | null][]) {
      if (at === null) continue
      const [signingKey] = await driver.#keysAt(at)
      driver.#places[name] = {
        name,
        at,
        signingKey: signingKey!,
        client: null,
        askedAt: 0,
        noVote: { why: '', isVoid: false },
      }
    }
    return driver
  }

  private constructor(config: Config, witness: WitnessConfig, note: (why: string) => void) {
    this.#config = config
    this.#witness = witness
    this.#note = note
  }

  connect(): void {
    for (const name of ['first', 'alternate'] as const) this.#clientOf(this.#places[name])
    this.#timer = setInterval(() => this.#endIdle(), idleMs)
    this.#timer.unref()
  }

  send(request: RegisterRequest): void {
    const place = this.#placeOf(request.inc)
    if (this.#timer === null || place === undefined) return
    this.#asked = place.name
    place.askedAt = bootMs()
    this.#clientOf(place)?.send(request)
  }

  onReply(hear: (reply: RegisterReply) => void): void {
    this.#hear = hear
  }

  health(): WitnessHealth {
    const place = this.#places[this.#asked]
    const url = (place?.at ?? this.#witness).url
    const statistics = place?.client?.statistics()
    if (place === undefined || statistics === undefined) return { url, p99Ms: null, why: '', isVoid: false }
    const { vote, lastFault } = statistics
    const { why, isVoid } = place.noVote
    return { url, p99Ms: vote.count < samplesMin ? null : vote.p99Ms, why: why || (lastFault ?? ''), isVoid }
  }

  answeredAgoMs(inc: Incarnation): number | null {
    return this.#placeOf(inc)?.client?.statistics().answeredAgoMs ?? null
  }

  async retire(inc: Incarnation): Promise<boolean> {
    const place = this.#placeOf(inc)
    if (place === undefined) return false
    return (await retirePair(this.#caller(place), { inc })).ok
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
    this.#timer = null
    for (const place of Object.values(this.#places)) endClient(place)
  }

  /** Whoever is not known by another name is the first: its incarnation may be that of the set-up. */
  #placeOf(inc: Incarnation): Place | undefined {
    const { alternate, former } = this.#witness
    if (inc === alternate?.inc) return this.#places.alternate
    return inc === former?.inc ? this.#places.former : this.#places.first
  }

  #caller({ at, signingKey }: Place): WitnessCaller {
    const { pair, node } = this.#config
    const address = { url: at.url, trust: trustOf(at) }
    return { address, pair, host: node, signingKey, otherKeys: () => this.#keysAt(at) }
  }

  /** As the files have them now; the same key is the same object each time. */
  async #keysAt(at: WitnessPlace): Promise<HostKey['signingKey'][]> {
    const keys = await witnessKeysOf(this.#config, at)
    return keys.map(({ publicKey, signingKey }) => {
      const known = this.#keys.get(publicKey) ?? signingKey
      this.#keys.set(publicKey, known)
      return known
    })
  }

  #clientOf(place: Place | undefined): WitnessClient | null {
    if (place === undefined) return null
    const timing = timingOf(this.#config.profile)
    place.client ??= new WitnessClient({
      ...this.#caller(place),
      now: bootMs,
      repeatAfterMs: { min: repeatMinMs, max: timing.resendMs },
      limitMs: timing.roundLimitMs,
      onReply: reply => {
        place.noVote = { why: '', isVoid: false }
        this.#hear(reply)
      },
      onNoVote: ({ why, standing }) => this.#refused(place, { why, isVoid: standing === 'void' }),
      onFailed: () => {},
    })
    return place.client
  }

  #endIdle(): void {
    const { former } = this.#places
    if (former !== undefined && bootMs() - former.askedAt > idleMs) endClient(former)
  }

  /** Said once, however its words and figures change: the core takes it as silence and asks again, ten times a second in need. */
  #refused(place: Place, noVote: Place['noVote']): void {
    if (place.noVote.why === '' || noVote.isVoid !== place.noVote.isVoid)
      this.#note(`the witness has no vote for this pair: ${noVote.why}`)
    place.noVote = noVote
  }
}

function endClient(place: Place): void {
  place.client?.close()
  place.client = null
}

/** By which a witness knows this host, the newest first: of the enrolment for a hosted one, else the host key. */
export const witnessKeysOf = async (config: Config, at: Pick<AdmittedWitness, 'hosted'>): Promise<HostKey[]> =>
  at.hosted ? [await readEnrolmentKey(identityFileOf(config.stateDir))] : readHostKeys(config.hostKeyFile)
