import { readSync } from 'node:fs'
import { type FileStat, nextData, nextHole, statFd } from '../kernel/file-calls.ts'
import { ENXIO } from '../kernel/libc.ts'
import { blockBytes, blockCount, hashBlock, hashBytes, isHashed, isSameHash } from './block-hashes.ts'
import type { FramePool } from './framing.ts'
import { type Base, dataHeadBytes, frameData, type StreamFrame } from './messages.ts'
import type { Meta } from './meta.ts'

/** Files above this go in streams, by changed blocks; smaller ones in one frame. */
export const smallBytesMax = 1024 * 1024

/** Blocks that are passed over at once: a millisecond. */
const holesAtOnce = 4096

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
  /** Null: of a file as large as this one they are not kept. */
  readonly #hashes: Buffer | null
  readonly #zeroHash: Buffer
  #index = 0
  /** As last seen: up to here is a hole, up to there is data. */
  #holeEnd = 0
  #dataEnd = 0
  #sentBytes = 0

  constructor(part: BigFilePart) {
    this.#part = part
    this.stream = part.stream
    this.#hashes = isHashed(part.meta.size) ? Buffer.alloc(blockCount(part.meta.size) * hashBytes) : null
    this.#zeroHash = hashBlock(part.key, zeroBlock)
    const { stream, path, meta, before, known, send } = part
    send({ op: 'begin', stream, path, meta, sparse: before.allocated < before.size, base: known?.base ?? null })
  }

  get sentBytes(): number {
    return this.#sentBytes
  }

  /** Handles one block; false when there is none left. @throws what the file system says */
  step(): boolean {
    const { fd, meta, before, key, known, stream, sendData, pool } = this.#part
    // Of a file of terabytes nearly all may be a hole.
    for (let left = holesAtOnce; left > 0 && this.#isKnownHole(); left -= 1) this.#next(this.#zeroHash)
    const offset = this.#index * blockBytes
    if (offset >= meta.size) return false
    const length = Math.min(blockBytes, meta.size - offset)
    const isHole = this.#isHole(offset, length)
    const buffer = pool.take()
    const block = buffer.subarray(dataHeadBytes, dataHeadBytes + length)
    if (isHole) block.fill(0)
    else readFully(fd, block, offset)
    const hash = hashBlock(key, block)
    const isSent =
      known === null
        ? !(before.allocated < before.size && isZeroBlock(block))
        : !isSameHash(known.hashes, this.#index, hash)
    this.#next(hash)
    if (isSent) {
      sendData(buffer, frameData(buffer, { stream, offset, length }))
      this.#sentBytes += length
    } else pool.give(buffer)
    return true
  }

  /** The next block is a hole, and nothing has to be sent for it. */
  #isKnownHole(): boolean {
    const { meta, known } = this.#part
    const offset = this.#index * blockBytes
    if (offset + blockBytes > meta.size || !this.#isHole(offset, blockBytes)) return false
    return known === null || isSameHash(known.hashes, this.#index, this.#zeroHash)
  }

  #next(hash: Buffer): void {
    if (this.#hashes !== null) hash.copy(this.#hashes, this.#index * hashBytes)
    this.#index += 1
  }

  /** What the backup has once the stream's end is acknowledged; null when nobody keeps it. */
  result(): Known | null {
    const { size, mtimeS, mtimeNs } = this.#part.meta
    if (this.#hashes === null) return null
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
    if (offset + length <= this.#holeEnd) return true
    const data = nextData(fd, offset)
    if (data >= 0) this.#holeEnd = data
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

/** Of the wall clock, ms since 1970. */
export const modifiedMs = (stat: FileStat): number => stat.mtimeS * 1000 + stat.mtimeNs / 1e6
/** The last change of status: nobody can set it, other than by setting the clock. */
export const changedMs = (stat: FileStat): number => stat.ctimeS * 1000 + stat.ctimeNs / 1e6
