import { readSync } from 'node:fs'
import { type FileStat, nextData, nextHole, statFd } from '../kernel/file-calls.ts'
import { ENXIO } from '../kernel/libc.ts'
import { blockBytes, blockCount, hashBlock, hashBytes, isSameHash } from './block-hashes.ts'
import type { FramePool } from './framing.ts'
import { type Base, dataHeadBytes, frameData, type StreamFrame } from './messages.ts'
import type { Meta } from './meta.ts'

/** Files above this go in streams, by changed blocks; smaller ones in one frame. */
export const smallBytesMax = 1024 * 1024

export interface Known {
  base: Base
  hashes: Buffer
}

export interface BigFilePart {
  fd: number
  stream: number
  path: string
  meta: Meta
  before: FileStat
  key: Buffer
  /** What the backup has, or null: everything is sent. */
  known: Known | null
  send: (frame: StreamFrame) => void
  /** A frame of data made in a buffer of the pool. */
  sendData: (buffer: Buffer, frame: Buffer) => void
  pool: FramePool
}

/**
 * Sends what changed in one large file, a block a step, so that the caller can do other things between. Blocks are
 * hashed and sent from one read, so that what was hashed is what was sent.
 */
export class BigFile {
  readonly stream: number
  readonly #part: BigFilePart
  readonly #hashes: Buffer
  #index = 0
  #dataEnd = 0
  #sentBytes = 0

  constructor(part: BigFilePart) {
    this.#part = part
    this.stream = part.stream
    this.#hashes = Buffer.alloc(blockCount(part.meta.size) * hashBytes)
    const { stream, path, meta, before, known, send } = part
    send({ op: 'begin', stream, path, meta, sparse: before.allocated < before.size, base: known?.base ?? null })
  }

  get sentBytes(): number {
    return this.#sentBytes
  }

  /** Handles one block; false when there is none left. @throws what the file system says */
  step(): boolean {
    const { fd, meta, before, key, known, stream, sendData, pool } = this.#part
    const offset = this.#index * blockBytes
    if (offset >= meta.size) return false
    const length = Math.min(blockBytes, meta.size - offset)
    const buffer = pool.take()
    const block = buffer.subarray(dataHeadBytes, dataHeadBytes + length)
    if (this.#isHole(offset, length)) block.fill(0)
    else readFully(fd, block, offset)
    const hash = hashBlock(key, block)
    hash.copy(this.#hashes, this.#index * hashBytes)
    const isSent =
      known === null
        ? !(before.allocated < before.size && isZeroBlock(block))
        : !isSameHash(known.hashes, this.#index, hash)
    if (isSent) {
      sendData(buffer, frameData(buffer, { stream, offset, length }))
      this.#sentBytes += length
    } else pool.give(buffer)
    this.#index += 1
    return true
  }

  /** What the backup has once the stream's end is acknowledged. */
  result(): Known {
    const { size, mtimeS, mtimeNs } = this.#part.meta
    return { base: { of: 'file', size, mtimeS, mtimeNs }, hashes: this.#hashes }
  }

  /** Whether the file is still as it was when the transfer began. */
  isUnchanged(): boolean {
    return isSameStat(statFd(this.#part.fd), this.#part.before)
  }

  /** Skips what is not allocated without reading it. */
  #isHole(offset: number, length: number): boolean {
    const { fd, before } = this.#part
    if (before.allocated >= before.size || offset < this.#dataEnd) return false
    const data = nextData(fd, offset)
    if (data === -ENXIO || data >= offset + length) return true
    if (data >= 0) this.#dataEnd = Math.max(offset + length, nextHole(fd, data))
    return false
  }
}

/** What is missing because the file became shorter reads as zeros. */
export function readFully(fd: number, block: Buffer, offset: number): void {
  let got = 0
  while (got < block.length) {
    const read = readSync(fd, block, got, block.length - got, offset + got)
    if (read === 0) break
    got += read
  }
  block.fill(0, got)
}

const zeroBlock = Buffer.alloc(blockBytes)
const isZeroBlock = (block: Buffer): boolean =>
  block[0] === 0 && zeroBlock.compare(block, 0, block.length, 0, block.length) === 0

/** Nothing was written and nothing else changed in between, as far as times tell. */
export const isSameStat = (now: FileStat | number, before: FileStat): boolean =>
  typeof now !== 'number' &&
  now.size === before.size &&
  now.mtimeS === before.mtimeS &&
  now.mtimeNs === before.mtimeNs &&
  now.ctimeS === before.ctimeS &&
  now.ctimeNs === before.ctimeNs
