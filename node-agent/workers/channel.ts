import type { Duplex } from 'node:stream'
import { z } from 'zod'

/**
 * Messages between the core and one worker: one JSON object a line over a stream, the same on both sides. Each side can
 * tell (no answer, dropped when the other side does not keep up) and ask (one answer, or a sentence why there is none).
 *
 * Nothing here waits for the other side: a queue that is full refuses, a question has a limit, and a side that talks
 * faster than `readBytesPerTurn` in `turnMs` is simply read later, so that its words wait in its own memory.
 */

/** A message is a notice or a page of rows; more travels in pages. */
export const messageBytesMax = 256 * 1024
/** Written and not yet taken by the kernel. */
const queueBytesMax = 1024 * 1024
/** Questions of one side that wait for an answer. */
const questionsMax = 64
/** The core's loop ticks each 10 ms: parsing this much takes it below 1 ms. */
const turnMs = 10
const readBytesPerTurn = 64 * 1024

export type Answer = { ok: true; body: unknown } | { ok: false; why: string }

export interface ChannelOptions {
  stream: Duplex
  /** A notice without an answer. */
  told: (topic: string, body: unknown) => void
  /** A question; the answer must be JSON. A thrown error's message is what the other side gets. */
  asked: (verb: string, body: unknown) => unknown
  /** The last call: the stream ended, or the other side broke the rules of this file. */
  closed: (why: string) => void
}

const name = z.string().min(1).max(64)
const frameSchema = z.union([
  z.object({ tell: name, body: z.unknown() }),
  z.object({ ask: name, id: z.int().min(1), body: z.unknown() }),
  z.object({ answer: z.int().min(1), ok: z.literal(true), body: z.unknown() }),
  z.object({ answer: z.int().min(1), ok: z.literal(false), why: z.string().max(1000) }),
])
type Frame = z.output<typeof frameSchema>

export class Channel {
  readonly #options: ChannelOptions
  readonly #waiting = new Map<number, (answer: Answer) => void>()
  #nextId = 1
  #answering = 0
  #rest = ''
  #readInTurn = 0
  #turn: NodeJS.Timeout | null = null
  #closed = false
  #dropped = 0

  constructor(options: ChannelOptions) {
    this.#options = options
    const { stream } = options
    stream.setEncoding('utf8')
    stream.on('data', (text: string) => this.#read(text))
    stream.on('error', error => this.#close(error.message))
    stream.on('end', () => this.#close('the other side has gone'))
    stream.on('close', () => this.#close('the other side has gone'))
  }

  /** Notices that were dropped because the other side did not keep up. */
  get dropped(): number {
    return this.#dropped
  }

  /** False: it was dropped. */
  tell(topic: string, body: unknown): boolean {
    const sent = this.#write({ tell: topic, body }) === ''
    if (!sent) this.#dropped++
    return sent
  }

  /** Never rejects; `limitMs` from now at the latest there is an answer. */
  ask(verb: string, body: unknown, limitMs: number): Promise<Answer> {
    if (this.#waiting.size >= questionsMax)
      return Promise.resolve({ ok: false, why: `${questionsMax} questions wait for an answer already` })
    const id = this.#nextId++
    const why = this.#write({ ask: verb, id, body })
    if (why !== '') return Promise.resolve({ ok: false, why })
    return new Promise(resolve => {
      const end = (answer: Answer): void => {
        clearTimeout(timer)
        this.#waiting.delete(id)
        resolve(answer)
      }
      const timer = setTimeout(() => end({ ok: false, why: `no answer to ${verb} within ${limitMs} ms` }), limitMs)
      this.#waiting.set(id, end)
    })
  }

  close(): void {
    this.#close('closed')
    this.#options.stream.destroy()
  }

  /** '' or why it was not sent. */
  #write(frame: Frame): string {
    const { stream } = this.#options
    if (this.#closed) return 'the channel is closed'
    if (stream.writableLength > queueBytesMax) return 'the other side does not keep up'
    const line = JSON.stringify(frame)
    if (Buffer.byteLength(line) > messageBytesMax) return `a message is longer than ${messageBytesMax} bytes`
    stream.write(`${line}\n`)
    return ''
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split('\n')
    this.#rest = lines.pop() ?? ''
    if (this.#rest.length > messageBytesMax) return this.#break(`a message is longer than ${messageBytesMax} bytes`)
    for (const line of lines) {
      if (this.#closed) return
      this.#take(line)
    }
    this.#readInTurn += text.length
    if (this.#readInTurn < readBytesPerTurn) {
      this.#turn ??= setTimeout(() => this.#nextTurn(), turnMs)
      return
    }
    this.#options.stream.pause()
    this.#turn ??= setTimeout(() => this.#nextTurn(), turnMs)
  }

  #nextTurn(): void {
    this.#turn = null
    this.#readInTurn = 0
    if (!this.#closed) this.#options.stream.resume()
  }

  #take(line: string): void {
    const frame = parse(line)
    if (frame === null) return this.#break('something that is no message arrived')
    if ('tell' in frame) this.#options.told(frame.tell, frame.body)
    else if ('ask' in frame) void this.#answer(frame)
    else this.#waiting.get(frame.answer)?.(frame.ok ? { ok: true, body: frame.body } : { ok: false, why: frame.why })
  }

  async #answer({ ask, id, body }: { ask: string; id: number; body?: unknown }): Promise<void> {
    if (this.#answering >= questionsMax) {
      this.#write({ answer: id, ok: false, why: `${questionsMax} questions are being answered already` })
      return
    }
    this.#answering++
    try {
      const answer = (await this.#options.asked(ask, body)) ?? null
      const why = this.#write({ answer: id, ok: true, body: answer })
      if (why !== '') this.#write({ answer: id, ok: false, why })
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      this.#write({ answer: id, ok: false, why: why.slice(0, 1000) })
    } finally {
      this.#answering--
    }
  }

  #break(why: string): void {
    this.#close(why)
    this.#options.stream.destroy()
  }

  #close(why: string): void {
    if (this.#closed) return
    this.#closed = true
    if (this.#turn !== null) clearTimeout(this.#turn)
    for (const end of [...this.#waiting.values()]) end({ ok: false, why })
    this.#options.closed(why)
  }
}

function parse(line: string): Frame | null {
  try {
    const parsed = frameSchema.safeParse(JSON.parse(line))
    return parsed.success ? parsed.data : null
  } catch {
    return null
  }
}
