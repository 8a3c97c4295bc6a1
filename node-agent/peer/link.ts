import { assert } from '../../shared/assert.ts'
import type { DataNode, Message } from '../../shared/protocol/types.ts'
import { Pulse } from '../pulse.ts'
import { type Content, decodeBody, decodeMessage, encodeBody, encodeContent, encodeMessage } from './body.ts'
import type { VersionRange } from './handshake.ts'
import { KeyedHandshakes } from './keyed-handshakes.ts'
import {
  type Discard,
  type Extras,
  extrasBytesMax,
  extrasSchema,
  type LinkStatistics,
  type Refused,
  zeroDiscards,
} from './link-report.ts'
import { PathQuality } from './path-quality.ts'
import { type PathConfig, PathSocket } from './path-socket.ts'
import { type PeerIdentity, type Session, sessionPacketsMax } from './session.ts'
import { type Answer, type Handler, Transfers } from './transfers.ts'
import { type DataPacket, type HelloPacket, type Parsed, parsePacket, wireVersion } from './wire.ts'

export interface PeerLinkOptions {
  self: DataNode
  /** Each of 32 bytes and of no other pair; both hosts have one of them in common, and the first is used where both have it. */
  pairKeys: readonly Buffer[]
  paths: readonly PathConfig[]
  agentVersion: string
  /** Milliseconds that never go back, best CLOCK_BOOTTIME. */
  now: () => number
  /** Once for each message, on whatever path it came first; order is not kept. */
  onMessage: (message: Message) => void
  /** A conversation with an agent (start) of the peer began; not a statement that it is alive. */
  onPeer?: (peer: PeerIdentity) => void
  onExtras?: (extras: Extras) => void
  /** Loud matters, at most every ten seconds each: a person has to know. */
  onRefused?: (why: Discard, sentence: string) => void
  /** Answers `ask` of the peer. What it throws is the answer's `why`. */
  onAsked?: Handler
  speaks?: VersionRange
  /** What wakes the process anyway; one of its own where there is none. */
  pulse?: Pulse
}

const pathsMax = 8
/** Asking for a conversation, and keeping transfers going. */
const activeTickMs = 25
const calmTickMs = 500
const helloEveryMs = 50
const helloCalmEveryMs = 500
/** After this long without one the peer's agent is not just restarting. */
const helloEagerMs = 10_000
/** A conversation in which nothing was heard for this long may exist on one side only: a new one is asked for. */
const silentMs = 1000
/** With nothing to send a path is still measured. */
const pingEveryMs = 1000
const refusedEveryMs = 10_000
const extrasLimitMs = 3000
const extrasVerb = 'link.extras'
const undecodable: Refused = {
  why: 'undecodable',
  sentence: 'a packet of the other host has contents that this version can not read',
}

interface Path {
  socket: PathSocket
  quality: PathQuality
  sentAt: number
  sent: number
  received: number
}

/** The datagram link between the two hosts: every message on every path at once, sealed, taken once. See README.md. */
export class PeerLink {
  readonly #options: PeerLinkOptions
  readonly #handshake: KeyedHandshakes
  readonly #transfers: Transfers
  readonly #paths: Path[]
  readonly #discarded = zeroDiscards()
  readonly #refusedAt = new Map<Discard, number>()
  readonly #messages = { sent: 0, unsent: 0, received: 0, copies: 0 }
  readonly #startedAt: number
  #timer: NodeJS.Timeout
  readonly #endCalmTicks: () => void
  #closed = false
  #messageNumber = 0
  #peerStart = ''
  /** Never, to begin with; a clock that starts with the machine may itself be near 0. */
  #heardAt = Number.NEGATIVE_INFINITY
  #helloAt = Number.NEGATIVE_INFINITY
  #extras: { wanted: Extras | null; sending: boolean } = { wanted: null, sending: false }
  #extrasSentTo: { extras: Extras; start: string } | null = null

  constructor(options: PeerLinkOptions) {
    assert(
      options.paths.length >= 1 && options.paths.length <= pathsMax,
      `a link has 1 to ${pathsMax} paths, not ${options.paths.length}`,
    )
    this.#options = options
    this.#startedAt = options.now()
    this.#handshake = new KeyedHandshakes(options)
    this.#transfers = new Transfers({
      send: content => this.#sendContent(content.kind, encodeContent(content)),
      handle: (verb, body) => this.#handleQuestion(verb, body),
      now: options.now,
    })
    this.#paths = options.paths.map((config, index) => ({
      socket: new PathSocket(config, (bytes, from) => this.#receive(index, bytes, from)),
      quality: new PathQuality(),
      sentAt: 0,
      sent: 0,
      received: 0,
    }))
    this.#timer = setTimeout(() => this.#tick(), 1)
    this.#endCalmTicks = (options.pulse ?? new Pulse()).every(calmTickMs, () => this.#tick())
  }

  /** At once, on every path that is open. False: there is no conversation yet, and the message is gone. */
  send(message: Message): boolean {
    const json = encodeMessage(message)
    const sent = this.#sendContent('message', encodeContent({ kind: 'message', number: this.#messageNumber, json }))
    this.#messageNumber++
    if (sent) this.#messages.sent++
    else this.#messages.unsent++
    return sent
  }

  /** Not for what is urgent. At most 64 KiB there and back; ends after `limitMs` at the latest. */
  ask(part: { verb: string; body: unknown; limitMs: number }): Promise<Answer> {
    const answer = this.#transfers.ask(part)
    this.#tickSoon()
    return answer
  }

  /** Keeps the peer informed: only the latest counts, and a peer that restarts gets it anew. */
  publish(extras: Extras): void {
    const bytes = JSON.stringify(extrasSchema.parse(extras)).length
    assert(bytes <= extrasBytesMax, `extras of ${bytes} bytes; ${extrasBytesMax} is the most`)
    this.#extras.wanted = extras
    void this.#sendExtras()
  }

  statistics(): LinkStatistics {
    const now = this.#options.now()
    const session = this.#handshake.current
    return {
      peer:
        session === null ? null : { ...session.peer, version: session.version, byFirstKey: this.#handshake.byFirstKey },
      paths: this.#paths.map(({ socket, quality, sent, received }) => ({
        ...socket.config,
        ...quality.snapshot(now),
        fault: socket.fault,
        sendFaults: socket.sendFaults,
        sent,
        received,
      })),
      messages: { ...this.#messages },
      discarded: { ...this.#discarded },
    }
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#timer)
    this.#endCalmTicks()
    for (const { socket } of this.#paths) socket.close()
  }

  // ---------------------------------------------------------------- out

  #sendContent(kind: Content['kind'], content: Buffer): boolean {
    const session = this.#handshake.current
    if (session === null) return false
    const now = this.#options.now()
    for (const path of this.#paths) this.#sendOn(path, { session, kind, content, now })
    return true
  }

  #sendOn(path: Path, part: { session: Session; kind: Content['kind']; content: Buffer; now: number }): void {
    if (path.socket.fault !== null) return
    const { number: echo, heldUs } = path.quality.echo(part.now)
    const numbers = { number: path.quality.send(part.now), echo, heldUs }
    path.sentAt = part.now
    path.sent++
    path.socket.send(part.session.seal(encodeBody({ kind: part.kind, path: numbers, content: part.content })))
  }

  #ping(session: Session): void {
    const now = this.#options.now()
    for (const path of this.#paths) this.#sendOn(path, { session, kind: 'ping', content: Buffer.alloc(0), now })
  }

  #tickSoon(): void {
    clearTimeout(this.#timer)
    if (!this.#closed) this.#timer = setTimeout(() => this.#tick(), activeTickMs)
  }

  #tick(): void {
    if (this.#closed) return
    const now = this.#options.now()
    this.#transfers.tick()
    this.#askForSession(now)
    const session = this.#handshake.current
    if (session !== null) {
      const content = Buffer.alloc(0)
      for (const path of this.#paths) {
        if (now - path.sentAt >= pingEveryMs) this.#sendOn(path, { session, kind: 'ping', content, now })
      }
      session.prepare()
    }
    void this.#sendExtras()
    if (session === null || this.#transfers.busy) this.#tickSoon()
  }

  #askForSession(now: number): void {
    const session = this.#handshake.current
    const silent = session === null || now - this.#heardAt > silentMs
    if (!silent && session.packetsSent < sessionPacketsMax) return
    const eager = session === null && now - this.#startedAt < helloEagerMs
    if (now - this.#helloAt < (eager ? helloEveryMs : helloCalmEveryMs)) return
    this.#helloAt = now
    for (const hello of this.#handshake.hellos()) for (const path of this.#paths) path.socket.send(hello)
  }

  // ---------------------------------------------------------------- in

  #receive(index: number, bytes: Buffer, from: 'peer' | 'stranger'): void {
    const path = this.#paths[index]!
    const refused =
      from === 'peer' ? this.#read(path, parsePacket(bytes, this.#handshake.pairTags)) : ({ why: 'stranger' } as const)
    if (refused !== null) this.#discard(refused)
  }

  #read(path: Path, packet: Parsed): Refused | null {
    switch (packet.type) {
      case 'data':
        return this.#readData(path, packet)
      case 'hello':
        return this.#readHello(path, packet)
      case 'refused': {
        const from = path.socket.config.peerAddress
        if (packet.why === 'foreign') return this.#foreign(from)
        if (packet.why !== 'version') return packet
        const sentence = `a packet of wire version ${packet.version} came from ${from}; this agent knows version ${wireVersion}. Update the older host.`
        return { why: packet.why, sentence }
      }
    }
  }

  /** Said only while nobody of this pair is heard: else it is somebody's noise. */
  #foreign(from: string): Refused {
    if (this.#options.now() - this.#heardAt < silentMs) return { why: 'foreign' }
    const sentence = `the host at ${from} has the key of another pair: have it join this pair, or correct the addresses in peer.paths`
    return { why: 'foreign', sentence }
  }

  #readHello(path: Path, packet: HelloPacket): Refused | null {
    const now = this.#options.now()
    const result = this.#handshake.receive(packet, now)
    if (result.outcome === 'refused') return result
    if (result.outcome === 'answer') path.socket.send(result.packet)
    if (result.outcome === 'established') {
      this.#begin(result.session, now)
      // The peer takes the conversation for real when it opens something of it.
      this.#ping(result.session)
    }
    return null
  }

  #readData(path: Path, packet: DataPacket): Refused | null {
    const now = this.#options.now()
    const session = this.#handshake.sessionOf(packet, now)
    if (session === null) return { why: 'unknownSession' }
    const opened = session.open(packet)
    if (!opened.ok) return opened
    if (this.#handshake.confirm(session, packet, now)) this.#begin(session, now)
    this.#heardAt = now
    path.received++
    const body = decodeBody(opened.body)
    if (body === null) return undecodable
    path.quality.receive(body.path, now)
    return this.#take(session, body.content)
  }

  #take(session: Session, content: Content): Refused | null {
    switch (content.kind) {
      case 'ping':
        return null
      case 'message': {
        if (!session.messages.take(content.number)) {
          this.#messages.copies++
          return null
        }
        const message = decodeMessage(content.json)
        if (message === null) return undecodable
        this.#messages.received++
        this.#options.onMessage(message)
        return null
      }
      case 'chunk':
      case 'received':
        this.#transfers.receive(content)
        return null
    }
  }

  #begin(session: Session, now: number): void {
    this.#heardAt = now
    if (session.peer.start === this.#peerStart) return
    this.#peerStart = session.peer.start
    for (const path of this.#paths) path.quality.restart()
    this.#transfers.restart()
    this.#extrasSentTo = null
    this.#options.onPeer?.(session.peer)
    void this.#sendExtras()
  }

  #discard({ why, sentence }: Refused): void {
    this.#discarded[why]++
    if (sentence === undefined) return
    const now = this.#options.now()
    const last = this.#refusedAt.get(why)
    if (last !== undefined && now - last < refusedEveryMs) return
    this.#refusedAt.set(why, now)
    this.#options.onRefused?.(why, sentence)
  }

  // ---------------------------------------------------------------- questions and extras

  async #sendExtras(): Promise<void> {
    const { wanted, sending } = this.#extras
    const start = this.#peerStart
    if (wanted === null || sending || this.#handshake.current === null) return
    if (this.#extrasSentTo?.extras === wanted && this.#extrasSentTo.start === start) return
    this.#extras.sending = true
    const answer = await this.ask({ verb: extrasVerb, body: wanted, limitMs: extrasLimitMs })
    this.#extras.sending = false
    // When it failed, the next tick tries again with whatever is the latest then.
    if (answer.ok) this.#extrasSentTo = { extras: wanted, start }
    if (!this.#closed && this.#extras.wanted !== wanted) void this.#sendExtras()
  }

  #handleQuestion(verb: string, body: unknown): unknown {
    if (verb === extrasVerb) {
      this.#options.onExtras?.(extrasSchema.parse(body))
      return null
    }
    if (this.#options.onAsked === undefined) throw new Error(`this host answers no questions, and so not "${verb}"`)
    return this.#options.onAsked(verb, body)
  }
}
