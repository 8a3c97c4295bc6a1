import { FramePool } from './framing.ts'
import { encode, type FromSender } from './messages.ts'
import type { SentLog } from './sent-log.ts'

/** To the backup; `send` never blocks, `backlogBytes` tells what it has not taken yet. */
export interface Outlet {
  /** `taken`: the buffer may be used again. */
  send(frame: Buffer, taken?: () => void): void
  backlogBytes(): number
}

/** Sent and not acknowledged: more would only wait on the other side. */
const windowBytes = 32 * 2 ** 20
/** Less for seed and repair, so that a live change never has much before it. */
const bulkWindowBytes = 4 * 2 ** 20
/**
 * What the socket holds back at most before no more files are read: enough that a busy machine which lets this process
 * wait for some ten milliseconds does not let the connection run dry; little for seed and repair, see above.
 */
const backlogBytesMax = { live: 8 * 2 ** 20, bulk: 2 * 2 ** 20 }
const operationsMax = 8192

/** Frames on their way out, and how much may be: back-pressure and the limit of the bulk lane's rate. */
export class Outflow {
  sentBytes = 0
  /** When the bulk lane may go on, monotonic ms. */
  bulkFromMs = 0
  readonly #sent: SentLog
  readonly #bulkBytesPerS: number
  readonly #now: () => number
  readonly #onRoom: () => void
  readonly pool = new FramePool()
  #outlet: Outlet | null = null

  constructor(part: { sent: SentLog; bulkBytesPerS: number; now: () => number; onRoom: () => void }) {
    this.#sent = part.sent
    this.#bulkBytesPerS = part.bulkBytesPerS
    this.#now = part.now
    this.#onRoom = part.onRoom
  }

  set outlet(outlet: Outlet | null) {
    this.#outlet = outlet
  }
  get isOpen(): boolean {
    return this.#outlet !== null
  }

  /** Answers the number of bytes. Without a connection they are lost, as they are when it is cut. */
  frame(message: FromSender): number {
    const frame = encode(message)
    this.#outlet?.send(frame)
    return this.#count(frame)
  }

  /** A frame in a buffer of the pool, which gets it back. */
  data(buffer: Buffer, frame: Buffer): void {
    const taken = (): void => {
      this.pool.give(buffer)
      this.#onRoom()
    }
    if (this.#outlet === null) this.pool.give(buffer)
    else this.#outlet.send(frame, taken)
    this.#count(frame)
  }

  #count(frame: Buffer): number {
    this.sentBytes += frame.length
    if (this.#bulkBytesPerS > 0) {
      this.bulkFromMs = Math.max(this.#now(), this.bulkFromMs) + (frame.length / this.#bulkBytesPerS) * 1000
    }
    return frame.length
  }

  isFull(lane: 'live' | 'bulk'): boolean {
    const bytes = lane === 'live' ? windowBytes : bulkWindowBytes
    const backlog = this.#outlet?.backlogBytes() ?? 0
    return this.#sent.bytes >= bytes || this.#sent.size >= operationsMax || backlog > backlogBytesMax[lane]
  }
}
