import { randomInt } from 'node:crypto'
import { type Chunk, chunkBytesMax, chunksMax, type Received } from './body.ts'

/**
 * Questions to the peer that are larger than a datagram or need an answer: what `why` shows of both hosts, status,
 * extras. Bounded in size, number and time, and never in the way of messages: at most a few chunks leave at once.
 *
 * A question may reach the handler of the peer twice if its agent restarts in between; make handlers idempotent.
 */
export type Answer = { ok: true; body: unknown } | { ok: false; why: string }
export type Handler = (verb: string, body: unknown) => Promise<unknown> | unknown

export const transferBytesMax = chunksMax * chunkBytesMax
/** Chunks on their way at once: a burst of 18 KiB fits every socket buffer and takes 1.5 ms at 100 Mbit/s. */
const burst = 16
/** Above the round trip of a bad line (fault matrix: 200 ms), then longer each time. */
const resendFirstMs = 250
const resendMaxMs = 1000
const outgoingMax = 32
const incomingMax = 32
/** The answer is kept for a peer that did not get it, and so that a repeated question isn't asked twice. */
const rememberMs = 30_000

interface Outgoing {
  transfer: number
  answer: boolean
  chunks: Buffer[]
  /** Chunks before this one were sent at least once. */
  next: number
  received: bigint
  resendMs: number
  sentAt: number
}

interface Incoming {
  chunks: (Buffer | undefined)[]
  received: bigint
  at: number
  complete: boolean
}

interface Question {
  resolve: (answer: Answer) => void
  untilMs: number
}

export class Transfers {
  readonly #send: (content: Chunk | Received) => void
  readonly #handle: Handler
  readonly #now: () => number
  readonly #questions = new Map<number, Question>()
  readonly #outgoing = new Map<string, Outgoing>()
  /** By the key of what goes the other way: a question under that of our answer, an answer under that of our question. */
  readonly #incoming = new Map<string, Incoming>()
  #next = randomInt(2 ** 31)

  constructor(part: { send: (content: Chunk | Received) => void; handle: Handler; now: () => number }) {
    this.#send = part.send
    this.#handle = part.handle
    this.#now = part.now
  }

  /** True while somebody has to call `tick` every 25 ms or so. */
  get busy(): boolean {
    return this.#outgoing.size > 0 || this.#questions.size > 0
  }

  ask(part: { verb: string; body: unknown; limitMs: number }): Promise<Answer> {
    const bytes = Buffer.from(JSON.stringify({ verb: part.verb, body: part.body }))
    if (bytes.length > transferBytesMax)
      return refusal(`a question of ${bytes.length} bytes; ${transferBytesMax} is the most`)
    if (this.#questions.size >= outgoingMax)
      return refusal(`${outgoingMax} questions to the other host are open already`)
    const transfer = this.#next++ % 2 ** 32
    const asked = new Promise<Answer>(resolve => {
      this.#questions.set(transfer, { resolve, untilMs: this.#now() + part.limitMs })
    })
    this.#start({ transfer, answer: false, bytes })
    return asked
  }

  receive(content: Chunk | Received): void {
    if (content.kind === 'received') this.#acknowledged(content)
    else this.#arrived(content)
  }

  /** Repeats what was lost, and ends what took too long. */
  tick(): void {
    const now = this.#now()
    for (const [transfer, question] of this.#questions) {
      if (now < question.untilMs) continue
      this.#outgoing.delete(keyOf(transfer, false))
      this.#questions.delete(transfer)
      question.resolve({ ok: false, why: 'the other host did not answer in time' })
    }
    for (const outgoing of this.#outgoing.values()) {
      if (now - outgoing.sentAt < outgoing.resendMs) continue
      outgoing.resendMs = Math.min(outgoing.resendMs * 1.5, resendMaxMs)
      this.#resend(outgoing)
    }
    for (const [key, incoming] of this.#incoming) {
      if (now - incoming.at <= rememberMs) continue
      this.#incoming.delete(key)
      this.#outgoing.delete(key)
    }
  }

  /** The peer's agent is another start: its numbers begin anew, and it knows nothing of what was under way. */
  restart(): void {
    this.#incoming.clear()
    for (const [key, outgoing] of this.#outgoing) {
      if (outgoing.answer) this.#outgoing.delete(key)
      else Object.assign(outgoing, { received: 0n, next: 1 })
    }
  }

  #start(part: { transfer: number; answer: boolean; bytes: Buffer }): void {
    const { transfer, answer, bytes } = part
    const chunks: Buffer[] = []
    for (let at = 0; at < bytes.length; at += chunkBytesMax) chunks.push(bytes.subarray(at, at + chunkBytesMax))
    const outgoing = { transfer, answer, chunks, next: 0, received: 0n, resendMs: resendFirstMs, sentAt: 0 }
    this.#outgoing.set(keyOf(transfer, answer), outgoing)
    this.#sendNext(outgoing, burst)
  }

  #sendNext(outgoing: Outgoing, count: number): void {
    outgoing.sentAt = this.#now()
    const end = Math.min(outgoing.next + count, outgoing.chunks.length)
    while (outgoing.next < end) this.#sendChunk(outgoing, outgoing.next++)
  }

  #resend(outgoing: Outgoing): void {
    outgoing.sentAt = this.#now()
    let left = burst
    for (let index = 0; index < outgoing.next && left > 0; index++) {
      if ((outgoing.received >> BigInt(index)) & 1n) continue
      this.#sendChunk(outgoing, index)
      left--
    }
  }

  #sendChunk({ transfer, answer, chunks }: Outgoing, index: number): void {
    this.#send({ kind: 'chunk', transfer, answer, index, count: chunks.length, bytes: chunks[index]! })
  }

  #acknowledged(content: Received): void {
    const outgoing = this.#outgoing.get(keyOf(content.transfer, content.answer))
    if (outgoing === undefined) return
    const before = bitsOf(outgoing.received)
    const all = (1n << BigInt(outgoing.chunks.length)) - 1n
    outgoing.received |= content.chunks & all
    if (outgoing.received === all) {
      this.#outgoing.delete(keyOf(content.transfer, content.answer))
      return
    }
    const arrived = bitsOf(outgoing.received) - before
    if (arrived === 0) return
    outgoing.resendMs = resendFirstMs
    this.#sendNext(outgoing, arrived)
  }

  #arrived(chunk: Chunk): void {
    const key = keyOf(chunk.transfer, !chunk.answer)
    if (chunk.answer && !this.#questions.has(chunk.transfer)) {
      // Answered already, or given up: let the peer stop.
      this.#send({ kind: 'received', transfer: chunk.transfer, answer: true, chunks: allChunks })
      return
    }
    let incoming = this.#incoming.get(key)
    if (incoming === undefined) {
      if (this.#incoming.size >= incomingMax) this.#forgetOldest()
      incoming = { chunks: new Array(chunk.count), received: 0n, at: this.#now(), complete: false }
      this.#incoming.set(key, incoming)
    }
    if (incoming.chunks.length !== chunk.count) return
    incoming.received |= 1n << BigInt(chunk.index)
    this.#send({ kind: 'received', transfer: chunk.transfer, answer: chunk.answer, chunks: incoming.received })
    if (incoming.complete) return
    incoming.chunks[chunk.index] = chunk.bytes
    if (bitsOf(incoming.received) < chunk.count) return
    incoming.complete = true
    const bytes = Buffer.concat(incoming.chunks as Buffer[])
    incoming.chunks = new Array(chunk.count)
    if (chunk.answer) this.#incoming.delete(key)
    if (chunk.answer) this.#answered(chunk.transfer, bytes)
    else void this.#asked(chunk.transfer, bytes)
  }

  #answered(transfer: number, bytes: Buffer): void {
    const question = this.#questions.get(transfer)
    this.#questions.delete(transfer)
    this.#outgoing.delete(keyOf(transfer, false))
    const answer = parseJson(bytes) as Answer | null
    if (typeof answer?.ok !== 'boolean') {
      question?.resolve({ ok: false, why: 'the other host sent an answer without sense' })
      return
    }
    question?.resolve(answer.ok ? { ok: true, body: answer.body } : { ok: false, why: String(answer.why) })
  }

  async #asked(transfer: number, bytes: Buffer): Promise<void> {
    let answer: Answer
    try {
      const question = parseJson(bytes) as { verb?: unknown; body?: unknown } | null
      answer = { ok: true, body: await this.#handle(String(question?.verb), question?.body) }
    } catch (fault) {
      answer = { ok: false, why: fault instanceof Error ? fault.message : String(fault) }
    }
    let encoded = Buffer.from(JSON.stringify(answer))
    if (encoded.length > transferBytesMax) {
      const why = `the answer has ${encoded.length} bytes; ${transferBytesMax} is the most`
      encoded = Buffer.from(JSON.stringify({ ok: false, why }))
    }
    // Forgotten meanwhile: an answer lives no longer than the memory of its question.
    if (this.#incoming.has(keyOf(transfer, true))) this.#start({ transfer, answer: true, bytes: encoded })
  }

  #forgetOldest(): void {
    const [oldest] = this.#incoming.keys()
    if (oldest === undefined) return
    this.#incoming.delete(oldest)
    this.#outgoing.delete(oldest)
  }
}

const allChunks = 2n ** 64n - 1n
/** Ours are told from the peer's by whose question it is. */
const keyOf = (transfer: number, answer: boolean): string => `${answer ? 'answer' : 'question'} ${transfer}`
const refusal = (why: string): Promise<Answer> => Promise.resolve({ ok: false, why })
const bitsOf = (bits: bigint): number => {
  let count = 0
  for (let rest = bits; rest > 0n; rest &= rest - 1n) count++
  return count
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString())
  } catch {
    return null
  }
}
