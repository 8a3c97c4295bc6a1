import { assert } from '../../shared/assert.ts'
import { recordBytesMax } from './record.ts'

/** What goes from the agent to its writer: a number, a length, the bytes. */
export interface Frame {
  number: number
  bytes: Buffer
}

const headerBytes = 12

export function encodeFrame(frame: Frame): Buffer {
  assert(
    frame.bytes.length <= recordBytesMax,
    `a state of ${frame.bytes.length} bytes is longer than ${recordBytesMax}`,
  )
  const header = Buffer.alloc(headerBytes)
  header.writeBigUInt64BE(BigInt(frame.number), 0)
  header.writeUInt32BE(frame.bytes.length, 8)
  return Buffer.concat([header, frame.bytes])
}

export class FrameReader {
  #rest: Buffer = Buffer.alloc(0)

  push(chunk: Buffer): Frame[] {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    const frames: Frame[] = []
    for (;;) {
      if (this.#rest.length < headerBytes) return frames
      const length = this.#rest.readUInt32BE(8)
      assert(length <= recordBytesMax, `a frame of ${length} bytes is longer than ${recordBytesMax}`)
      if (this.#rest.length < headerBytes + length) return frames
      frames.push({
        number: Number(this.#rest.readBigUInt64BE(0)),
        bytes: this.#rest.subarray(headerBytes, headerBytes + length),
      })
      this.#rest = this.#rest.subarray(headerBytes + length)
    }
  }
}

/** One line for a reply: what went wrong, without line breaks. */
export const writerFault = (fault: unknown): string =>
  (fault instanceof Error ? fault.message : String(fault)).replaceAll('\n', ' ').slice(0, 500)
