import { frameBytesMax } from './messages.ts'

/** Cuts a stream of bytes into frames, without copying those that arrive whole. */
export class FrameSplitter {
  #parts: Buffer[] = []
  #bytes = 0

  /** The frames completed by this chunk, each without its length. @throws when one is longer than allowed */
  push(chunk: Buffer): Buffer[] {
    this.#parts.push(chunk)
    this.#bytes += chunk.length
    const frames: Buffer[] = []
    for (;;) {
      if (this.#bytes < 4) return frames
      const head = this.#parts[0]!.length >= 4 ? this.#parts[0]! : this.#join()
      const length = head.readUInt32LE(0)
      if (length === 0 || length > frameBytesMax) {
        throw new Error(`a frame of ${length} bytes is not between 1 and ${frameBytesMax}`)
      }
      if (this.#bytes < 4 + length) return frames
      const whole = this.#join()
      frames.push(whole.subarray(4, 4 + length))
      const rest = whole.subarray(4 + length)
      this.#parts = rest.length === 0 ? [] : [rest]
      this.#bytes = rest.length
    }
  }

  #join(): Buffer {
    if (this.#parts.length > 1) this.#parts = [Buffer.concat(this.#parts, this.#bytes)]
    return this.#parts[0]!
  }
}
