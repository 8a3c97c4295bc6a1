import { createSecretKey, type KeyObject, randomBytes } from 'node:crypto'
import { z } from 'zod'
import { otherNode } from '../../shared/protocol/nodes.ts'
import type { DataNode } from '../../shared/protocol/types.ts'
import { cipherFor, derive, type PeerIdentity, pairTagOf, Session, seal, unseal } from './session.ts'
import { type HelloPacket, helloHeader, nonceBytes, randomBytesCount } from './wire.ts'

/** Versions of what travels inside a session that this program speaks. N−1 is kept while hosts are updated in turn. */
export const speaks: VersionRange = { min: 1, max: 1 }
export interface VersionRange {
  min: number
  max: number
}

/** Answered hellos whose sender has not shown yet that it got the answer. More than a few are replayed ones. */
const candidatesMax = 8
/** The same hello comes over several paths; one answer is enough for this long. */
const answerEveryMs = 20
/** For packets on their way while a session is replaced; only while the peer's agent is the same start. */
const previousMs = 2000

const helloSchema = z.object({
  /** The random of the other side that this one heard, '' = none: please answer. */
  echo: z.string().regex(/^([0-9a-f]{32})?$/),
  start: z.string().regex(/^[0-9a-f]{16}$/),
  min: z.int().min(0),
  max: z.int().min(0),
  agent: z.string().max(40),
})

export type HelloResult =
  | { outcome: 'answer'; packet: Buffer }
  | { outcome: 'established'; session: Session }
  | { outcome: 'ignored' }
  | { outcome: 'refused'; why: 'forged' | 'sameNode' | 'incompatible'; sentence?: string }

interface Candidate {
  session: Session
  answeredAt: number
}

/**
 * Makes sessions out of one fresh random of either side. A random is used for one session only, and a session counts
 * only when the other side has shown that it knows our random: by echoing it in a hello, or by a data packet.
 */
export class Handshake {
  readonly pairTag: Buffer
  readonly #pairKey: Buffer
  readonly #self: DataNode
  readonly #identity: PeerIdentity
  readonly #speaks: VersionRange
  readonly #mayCount: (session: Session) => boolean
  #random = randomBytes(randomBytesCount)
  #current: Session | null = null
  #previous: { session: Session; untilMs: number } | null = null
  #candidates: Candidate[] = []

  /** @param part.mayCount whether a conversation by this key may be the one that counts; it may by default */
  constructor(part: {
    pairKey: Buffer
    self: DataNode
    agentVersion: string
    speaks?: VersionRange
    mayCount?: (session: Session) => boolean
  }) {
    this.#pairKey = part.pairKey
    this.#self = part.self
    this.#identity = { start: randomBytes(8).toString('hex'), agentVersion: part.agentVersion }
    this.#speaks = part.speaks ?? speaks
    this.#mayCount = part.mayCount ?? (() => true)
    this.pairTag = pairTagOf(part.pairKey)
  }

  get current(): Session | null {
    return this.#current
  }

  /** Asks the peer for a session; repeated as it is until one is established. */
  hello(echo: string = ''): Buffer {
    const header = helloHeader(this.pairTag, this.#random)
    const nonce = randomBytes(nonceBytes)
    const { start, agentVersion: agent } = this.#identity
    const body = Buffer.from(JSON.stringify({ echo, start, ...this.#speaks, agent }))
    const lead = Buffer.concat([header, nonce])
    return seal({ cipher: cipherFor(this.#helloKey(this.#self, this.#random), nonce), header, lead, body })
  }

  receive(packet: HelloPacket, nowMs: number): HelloResult {
    const other = otherNode(this.#self)
    const body = unseal({ ...packet, key: this.#helloKey(other, packet.random) })
    if (body === null) return this.#stranger(packet)
    const hello = parseHelloBody(body)
    if (hello === null) return { outcome: 'refused', why: 'forged', sentence: 'a hello of the pair that has no sense' }
    const version = Math.min(hello.max, this.#speaks.max)
    if (version < hello.min || version < this.#speaks.min) {
      const sentence = `the other host's agent ${hello.agent} speaks versions ${hello.min} to ${hello.max} of the peer link, this one ${this.#speaks.min} to ${this.#speaks.max}: update one of them`
      return { outcome: 'refused', why: 'incompatible', sentence }
    }
    // An echo of an earlier random answers a hello that somebody repeated, or a copy that came late.
    if (hello.echo !== '' && hello.echo !== this.#random.toString('hex')) return { outcome: 'ignored' }
    const session = this.#sessionWith(packet.random, version, { start: hello.start, agentVersion: hello.agent })
    if (hello.echo !== '') {
      if (!this.#mayCount(session)) return { outcome: 'ignored' }
      this.#establish(session, nowMs)
      return { outcome: 'established', session }
    }
    return this.#answer(session, packet.random, nowMs)
  }

  /** The session a data packet belongs to; whoever opens it tells by `confirm`. */
  sessionOf(tag: string, nowMs: number): Session | null {
    if (this.#current?.tag === tag) return this.#current
    if (this.#previous?.session.tag === tag && nowMs < this.#previous.untilMs) return this.#previous.session
    return this.#candidates.find(candidate => candidate.session.tag === tag)?.session ?? null
  }

  /** A packet of this session was opened. True when that made it the current one. */
  confirm(session: Session, nowMs: number): boolean {
    if (!this.#candidates.some(candidate => candidate.session === session) || !this.#mayCount(session)) return false
    this.#establish(session, nowMs)
    return true
  }

  /** A conversation by another key counts. @param start of the peer, whose answered hellos still may; null: nothing here may */
  giveWay(start: string | null): void {
    this.#current = null
    this.#previous = null
    this.#candidates = this.#candidates.filter(({ session }) => session.peer.start === start)
    if (start === null) this.#random = randomBytes(randomBytesCount)
  }

  #establish(session: Session, nowMs: number): void {
    const old = this.#current
    // Another start of the agent: what its predecessor sealed must not be heard any more.
    const sameStart = old !== null && old.peer.start === session.peer.start
    this.#previous = sameStart ? { session: old, untilMs: nowMs + previousMs } : null
    this.#current = session
    this.#candidates = []
    this.#random = randomBytes(randomBytesCount)
  }

  #answer(session: Session, random: Buffer, nowMs: number): HelloResult {
    const known = this.#candidates.find(candidate => candidate.session.tag === session.tag)
    if (known === undefined) {
      this.#candidates = [...this.#candidates.slice(1 - candidatesMax), { session, answeredAt: nowMs }]
    } else {
      if (nowMs - known.answeredAt < answerEveryMs) return { outcome: 'ignored' }
      known.answeredAt = nowMs
    }
    return { outcome: 'answer', packet: this.hello(random.toString('hex')) }
  }

  #stranger(packet: HelloPacket): HelloResult {
    const own = unseal({ ...packet, key: this.#helloKey(this.#self, packet.random) })
    if (own === null) return { outcome: 'refused', why: 'forged' }
    const sentence = `another agent with the key of this pair says that it is host ${this.#self}, as this one is`
    return { outcome: 'refused', why: 'sameNode', sentence }
  }

  #sessionWith(theirs: Buffer, version: number, peer: PeerIdentity): Session {
    const mine = this.#random
    return new Session({
      pairKey: this.#pairKey,
      pairTag: this.pairTag,
      self: this.#self,
      randomOf: this.#self === 'a' ? { a: mine, b: theirs } : { a: theirs, b: mine },
      version,
      peer,
    })
  }

  /** A key for each random, so that a nonce is never near to being used twice under one key. */
  #helloKey(from: DataNode, random: Buffer): KeyObject {
    return createSecretKey(derive({ pairKey: this.#pairKey, salt: random, info: `hello from ${from}`, bytes: 32 }))
  }
}

function parseHelloBody(body: Buffer): z.infer<typeof helloSchema> | null {
  try {
    return helloSchema.parse(JSON.parse(body.toString()))
  } catch {
    return null
  }
}
