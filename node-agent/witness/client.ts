import { headerHost, headerSignature, type NoVote, voteReply, witnessPath } from '../../shared/contract/witness.ts'
import { type Figures, RecentDurations } from '../../shared/figures.ts'
import type { DataNode, RegisterReply, RegisterRequest } from '../../shared/protocol/types.ts'
import { type SigningKey, signRequest } from '../../shared/signing.ts'
import {
  type ExchangeResult,
  isUnknownKey,
  LastAddresses,
  type WitnessAddress,
  WitnessConnection,
} from './connection.ts'

export interface WitnessClientOptions {
  address: WitnessAddress
  pair: string
  host: DataNode
  signingKey: SigningKey
  /** As they are now: the witness may know this host by another one, while its key is changed. */
  otherKeys?: () => Promise<readonly SigningKey[]>
  /** Monotonic milliseconds. */
  now: () => number
  /**
   * A vote unanswered for twice its usual p99, but within these bounds, is sent again, the same bytes, on a fresh
   * connection: the old one may be dead without anybody having said so.
   */
  repeatAfterMs: { min: number; max: number }
  /** Then it is given up; the core asks again if it still wants to know. */
  limitMs: number
  onReply: (reply: RegisterReply) => void
  /** The witness answered that it has no vote: an admission is missing, or it is another one than expected. */
  onNoVote: (none: NoVote, request: RegisterRequest) => void
  /** No answer at all. */
  onFailed: (why: string, request: RegisterRequest) => void
}

export interface WitnessStatistics {
  /** Of the last 512 answered votes, from `send` to the answer, repetitions included. */
  vote: Figures
  answered: number
  repeated: number
  failed: number
  /** More were wanted at once than is sensible. */
  dropped: number
  /** How long ago the witness last answered anything: null = never. */
  answeredAgoMs: number | null
  lastFault: string | null
}

/** The core repeats a request each resendMs (100 ms by default) at most; more than this under way means it is dead. */
const underWayMax = 32
const attemptsMax = 3
/** With fewer answers a p99 means nothing. */
const samplesForRepeat = 20
/** A connection that is idle for longer may be forgotten by whatever lies between; probes are rarer than this. */
const warmEveryMs = 8000
/** How often the keys of this host are read, where the witness knows none of those before. */
const keysEveryMs = 100
const warmLimitMs = 5000

interface Vote {
  request: RegisterRequest
  body: Buffer
  signature: string
  /** All that have signed it, the newest last. */
  signedBy: SigningKey[]
  /** By another key, just now. */
  isSigning: boolean
  startedAt: number
  attempts: number
  cancels: (() => void)[]
  timer: NodeJS.Timeout | null
  done: boolean
}

/** Sends votes to the witness and reports what comes back; never blocks, never throws, keeps a connection open. */
export class WitnessClient {
  readonly #options: WitnessClientOptions
  readonly #addresses = new LastAddresses()
  readonly #durations = new RecentDurations(512)
  readonly #underWay = new Set<Vote>()
  readonly #retired = new Set<WitnessConnection>()
  readonly #counts = { answered: 0, repeated: 0, failed: 0, dropped: 0 }
  readonly #warmTimer: NodeJS.Timeout
  #connection: WitnessConnection
  #usedAt = Number.NEGATIVE_INFINITY
  #answeredAt: number | null = null
  #lastFault: string | null = null
  #closed = false
  #signingKey: SigningKey
  #others: { keys: Promise<readonly SigningKey[]>; readAt: number } | null = null

  constructor(options: WitnessClientOptions) {
    this.#options = options
    this.#signingKey = options.signingKey
    this.#connection = new WitnessConnection(options.address, this.#addresses)
    this.#warmTimer = setInterval(() => this.#warm(), warmEveryMs / 2)
    this.#warm()
  }

  send(request: RegisterRequest): void {
    if (this.#closed) return
    if (this.#underWay.size >= underWayMax) {
      this.#counts.dropped++
      return
    }
    void this.#start(request)
  }

  statistics(): WitnessStatistics {
    const answeredAgoMs = this.#answeredAt === null ? null : this.#options.now() - this.#answeredAt
    return { vote: this.#durations.figures(), ...this.#counts, answeredAgoMs, lastFault: this.#lastFault }
  }

  close(): void {
    this.#closed = true
    clearInterval(this.#warmTimer)
    for (const vote of this.#underWay) this.#end(vote)
    for (const connection of [this.#connection, ...this.#retired]) connection.close()
  }

  async #start(request: RegisterRequest): Promise<void> {
    const vote: Vote = {
      request,
      body: Buffer.from(JSON.stringify(request)),
      signature: '',
      signedBy: [],
      isSigning: false,
      startedAt: this.#options.now(),
      attempts: 0,
      cancels: [],
      timer: null,
      done: false,
    }
    this.#underWay.add(vote)
    await this.#sign(vote, this.#signingKey)
    if (!vote.done) this.#attempt(vote)
  }

  async #sign(vote: Vote, key: SigningKey): Promise<void> {
    const { host, pair } = this.#options
    vote.signature = await signRequest(key, { host, method: 'POST', path: witnessPath.vote(pair), body: vote.body })
    vote.signedBy.push(key)
  }

  #attempt(vote: Vote): void {
    vote.attempts++
    const { host, pair, limitMs, now } = this.#options
    const leftMs = limitMs - (now() - vote.startedAt)
    if (leftMs <= 0) {
      this.#fail(vote, `no answer within ${limitMs} ms`)
      return
    }
    this.#usedAt = now()
    const connection = this.#connection
    const key = vote.signedBy.at(-1)!
    const { cancel } = connection.exchange(
      {
        method: 'POST',
        path: witnessPath.vote(pair),
        headers: { 'content-type': 'application/json', [headerHost]: host, [headerSignature]: vote.signature },
        body: vote.body,
        limitMs: leftMs,
      },
      result => this.#result(vote, { connection, key, result }),
    )
    vote.cancels.push(cancel)
    if (vote.attempts >= attemptsMax) return
    vote.timer = setTimeout(() => this.#repeat(vote, connection), this.#repeatAfterMs())
  }

  #repeat(vote: Vote, connection: WitnessConnection): void {
    if (vote.done || vote.attempts >= attemptsMax) return
    this.#counts.repeated++
    this.#renew(connection)
    this.#attempt(vote)
  }

  #result(vote: Vote, part: { connection: WitnessConnection; key: SigningKey; result: ExchangeResult }): void {
    const { connection, key, result } = part
    if (vote.done) return
    if (!result.ok) {
      // Most often a kept connection that the other side had closed: at once on a fresh one.
      if (vote.timer !== null) clearTimeout(vote.timer)
      vote.timer = null
      if (vote.attempts < attemptsMax) this.#repeat(vote, connection)
      else this.#fail(vote, result.why)
      return
    }
    this.#answeredAt = this.#options.now()
    if (isUnknownKey(result)) void this.#signAnew(vote, { key, result })
    else {
      this.#signingKey = key
      this.#take(vote, result)
    }
  }

  /** Once by each other key that this host has. */
  async #signAnew(vote: Vote, { key, result }: { key: SigningKey; result: Answered }): Promise<void> {
    // Of a repetition: this vote is on its way by another key already.
    if (vote.isSigning || key !== vote.signedBy.at(-1)) return
    vote.isSigning = true
    if (vote.timer !== null) clearTimeout(vote.timer)
    vote.timer = null
    const next = (await this.#otherKeys()).find(one => !vote.signedBy.includes(one))
    if (next !== undefined) await this.#sign(vote, next)
    vote.isSigning = false
    if (vote.done) return
    if (next === undefined) return this.#take(vote, result)
    vote.attempts = 0
    this.#attempt(vote)
  }

  #otherKeys(): Promise<readonly SigningKey[]> {
    const { now, otherKeys } = this.#options
    if (otherKeys === undefined) return Promise.resolve([])
    if (this.#others === null || now() - this.#others.readAt >= keysEveryMs)
      this.#others = { keys: otherKeys().catch(() => []), readAt: now() }
    return this.#others.keys
  }

  #take(vote: Vote, result: Answered): void {
    const reply = readReply(result)
    if (!reply.ok) {
      this.#fail(vote, reply.why)
      return
    }
    this.#end(vote)
    this.#counts.answered++
    this.#durations.add(this.#options.now() - vote.startedAt)
    if (reply.value.kind === 'none') this.#options.onNoVote(reply.value, vote.request)
    else this.#options.onReply(reply.value)
  }

  #fail(vote: Vote, why: string): void {
    this.#end(vote)
    this.#counts.failed++
    this.#lastFault = why
    this.#options.onFailed(why, vote.request)
  }

  #end(vote: Vote): void {
    vote.done = true
    if (vote.timer !== null) clearTimeout(vote.timer)
    for (const cancel of vote.cancels) cancel()
    this.#underWay.delete(vote)
  }

  /** A fresh set of connections, unless somebody else asked for it already; the old one ends with its last votes. */
  #renew(connection: WitnessConnection): void {
    if (this.#connection !== connection || this.#closed) return
    this.#connection = new WitnessConnection(this.#options.address, this.#addresses)
    this.#retired.add(connection)
    setTimeout(() => {
      this.#retired.delete(connection)
      connection.close()
    }, this.#options.limitMs).unref()
  }

  #repeatAfterMs(): number {
    const { min, max } = this.#options.repeatAfterMs
    const usual = this.#durations.figures()
    return usual.count < samplesForRepeat ? max : Math.min(max, Math.max(min, 2 * usual.p99Ms))
  }

  #warm(): void {
    const now = this.#options.now()
    if (now - this.#usedAt < warmEveryMs) return
    this.#usedAt = now
    const connection = this.#connection
    connection.exchange(
      { method: 'GET', path: witnessPath.health, headers: {}, body: null, limitMs: warmLimitMs },
      result => {
        if (result.ok) {
          this.#answeredAt = this.#options.now()
          return
        }
        this.#lastFault = result.why
        this.#renew(connection)
      },
    )
  }
}

type Answered = Extract<ExchangeResult, { ok: true }>

function readReply(result: Answered): { ok: true; value: RegisterReply | NoVote } | { ok: false; why: string } {
  try {
    const parsed = voteReply.safeParse(JSON.parse(result.body.toString()))
    if (parsed.success) return { ok: true, value: parsed.data }
  } catch {
    // Said below: a proxy's page, for example.
  }
  return { ok: false, why: `the witness answered with status ${result.status} and something that is no vote` }
}
