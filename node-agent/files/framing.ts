import { frameBytesMax, isDataFrame } from './messages.ts'

/** Length and type. */
const headBytes = 5
/** Frames of a large file's data have about this size; one buffer serves them all, one after the other. */
const reusedBytes = 256 * 1024 + 64

/**
 * Cuts a stream of bytes into frames. Those of a large file's data share one buffer, so that a file of a gigabyte does
 * not leave a gigabyte of garbage: such a frame is only valid during the call that gets it.
 */
export class FrameSplitter {
  readonly #onFrame: (frame: Buffer) => void
  readonly #head = Buffer.alloc(headBytes)
  #headLength = 0
  #reused: Buffer | null = null
  #target: Buffer | null = null
  #filled = 0
  #isReferred = false

  constructor(onFrame: (frame: Buffer) => void) {
    this.#onFrame = onFrame
  }

  /**
   * Gives each frame that is completed by this chunk, without its length. Answers whether nothing refers to the chunk's
   * memory any more. @throws when a frame is longer than allowed
   */
  push(chunk: Buffer): boolean {
    let at = 0
    this.#isReferred = false
    while (at < chunk.length) {
      if (this.#target === null) {
        at = this.#begin(chunk, at)
        continue
      }
      const copied = chunk.copy(this.#target, this.#filled, at)
      at += copied
      this.#filled += copied
      if (this.#filled < this.#target.length) break
      const frame = this.#target
      this.#target = null
      this.#onFrame(frame)
    }
    return !this.#isReferred
  }

  /** Reads the head; a frame that is whole in this chunk is given as it is. Answers where to go on. */
  #begin(chunk: Buffer, from: number): number {
    const copied = chunk.copy(this.#head, this.#headLength, from)
    this.#headLength += copied
    if (this.#headLength < headBytes) return from + copied
    const length = this.#head.readUInt32LE(0)
    if (length === 0 || length > frameBytesMax) {
      throw new Error(`a frame of ${length} bytes is not between 1 and ${frameBytesMax}`)
    }
    const isWholeHead = copied === headBytes
    this.#headLength = 0
    const start = from + 4
    if (isWholeHead && start + length <= chunk.length) {
      this.#isReferred = true
      this.#onFrame(chunk.subarray(start, start + length))
      return start + length
    }
    this.#target = this.#room(length)
    this.#target[0] = this.#head[4]!
    this.#filled = 1
    if (length === 1) {
      const frame = this.#target
      this.#target = null
      this.#onFrame(frame)
    }
    return from + copied
  }

  #room(length: number): Buffer {
    if (length > reusedBytes || !isDataFrame(this.#head[4]!)) return Buffer.allocUnsafe(length)
    this.#reused ??= Buffer.allocUnsafeSlow(reusedBytes)
    return this.#reused.subarray(0, length)
  }
}

/**
 * Gives the memory of a chunk that was read back at once. Left to the collector, a large file's chunks make it collect
 * everything again and again.
 */
export function freeChunk(chunk: Buffer): void {
  const { buffer } = chunk
  if (buffer instanceof ArrayBuffer && buffer.byteLength === chunk.byteLength) buffer.transfer(0)
}

/** Kept for the next frames of data; more are given back to the collector. */
const pooledMax = 40

/** Buffers for frames of data on their way out: one is free again when the socket has taken it. */
export class FramePool {
  readonly #free: Buffer[] = []

  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(reusedBytes)
  }

  give(buffer: Buffer): void {
    if (this.#free.length < pooledMax) this.#free.push(buffer)
  }
}
