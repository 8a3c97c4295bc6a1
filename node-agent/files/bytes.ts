/** Little-endian fields, one after the other: the wire form of the file log. */

export class ByteWriter {
  #buffer: Buffer
  #at = 0

  constructor(expectedBytes = 256) {
    this.#buffer = Buffer.allocUnsafe(expectedBytes)
  }

  u8(value: number): void {
    this.#room(1)
    this.#at = this.#buffer.writeUInt8(value, this.#at)
  }
  u16(value: number): void {
    this.#room(2)
    this.#at = this.#buffer.writeUInt16LE(value, this.#at)
  }
  u32(value: number): void {
    this.#room(4)
    this.#at = this.#buffer.writeUInt32LE(value, this.#at)
  }
  /** Whole numbers beyond 32 bits: exact up to 2^53. */
  f64(value: number): void {
    this.#room(8)
    this.#at = this.#buffer.writeDoubleLE(value, this.#at)
  }
  /** One byte a character. */
  text(value: string): void {
    this.u32(value.length)
    this.#room(value.length)
    this.#at += this.#buffer.write(value, this.#at, value.length, 'latin1')
  }
  bytes(value: Uint8Array): void {
    this.u32(value.length)
    this.#room(value.length)
    this.#buffer.set(value, this.#at)
    this.#at += value.length
  }

  done(): Buffer {
    return this.#buffer.subarray(0, this.#at)
  }

  #room(bytes: number): void {
    const needed = this.#at + bytes
    if (needed <= this.#buffer.length) return
    const larger = Buffer.allocUnsafe(Math.max(needed, this.#buffer.length * 2))
    this.#buffer.copy(larger, 0, 0, this.#at)
    this.#buffer = larger
  }
}

/** Reads what {@link ByteWriter} wrote; a field beyond the end is a RangeError. */
export class ByteReader {
  readonly #buffer: Buffer
  #at: number

  constructor(buffer: Buffer, at = 0) {
    this.#buffer = buffer
    this.#at = at
  }

  get left(): number {
    return this.#buffer.length - this.#at
  }
  u8(): number {
    return this.#buffer.readUInt8(this.#move(1))
  }
  u16(): number {
    return this.#buffer.readUInt16LE(this.#move(2))
  }
  u32(): number {
    return this.#buffer.readUInt32LE(this.#move(4))
  }
  f64(): number {
    return this.#buffer.readDoubleLE(this.#move(8))
  }
  text(): string {
    const length = this.u32()
    const at = this.#move(length)
    return this.#buffer.toString('latin1', at, at + length)
  }
  /** Shares memory with the frame. */
  bytes(): Buffer {
    const length = this.u32()
    const at = this.#move(length)
    return this.#buffer.subarray(at, at + length)
  }

  #move(bytes: number): number {
    const at = this.#at
    if (at + bytes > this.#buffer.length) {
      throw new RangeError(`a field of ${bytes} bytes at ${at} goes beyond the frame's ${this.#buffer.length}`)
    }
    this.#at = at + bytes
    return at
  }
}
