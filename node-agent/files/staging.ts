import { closeSync, writeSync } from 'node:fs'
import {
  beginWriteback,
  flushData,
  flushFileSystem,
  O_CREAT,
  O_EXCL,
  O_RDWR,
  openAt,
  type Place,
  punchHole,
  truncateFd,
  unlinkAt,
} from '../kernel/file-calls.ts'
import { ENOENT } from '../kernel/libc.ts'
import type { Base, StreamFrame } from './messages.ts'
import { applyMeta, type Meta } from './meta.ts'
import type { WorkFolder } from './work-folder.ts'

/** A file that is whole, but has no name in the tree yet. */
export interface Staged {
  at: Place
  fd: number
  /** 0, or minus the errno that kept it from becoming whole. */
  errno: number
  /** The kernel is being asked to write back what has arrived. */
  writing: Promise<void> | null
  isReleased: boolean
}

/** A large file that is still arriving. */
export interface Arriving {
  path: string
  meta: Meta
  sparse: boolean
  base: Base | null
  staged: Staged
  /** Of a patch: which blocks of the base change, in their order in the staged file. */
  blocks: { offset: number; length: number; at: number }[]
  bytes: number
}

/** Files of one group up to this number are flushed each for itself; more of them by flushing their file system. */
const flushedAloneMax = 12
/** What arrives is written back in steps of this size, so that the flush at the end is short. */
const writebackBytes = 16 * 2 ** 20
const sparseUnit = 4096
/** Interrupted transfers that are kept, to be gone on with. */
const partsMax = 4

/** Puts files together in the work folder. */
export class Staging {
  readonly #folder: WorkFolder
  readonly #arriving = new Map<number, Arriving>()
  /** Path → what is left of an interrupted transfer. */
  readonly #parts = new Map<string, Arriving>()
  #unflushed: Staged[] = []

  constructor(folder: WorkFolder) {
    this.#folder = folder
  }

  /** A whole small file. */
  small(file: { meta: Meta; sparse: boolean; content: Buffer }): Staged {
    const staged = this.#create('new')
    if (staged.errno === 0) staged.errno = fill(staged.fd, file)
    this.#unflushed.push(staged)
    return staged
  }

  stream(frame: Extract<StreamFrame, { op: 'begin' | 'data' | 'abort' }>): void {
    if (frame.op === 'begin') return this.#begin(frame)
    const arriving = this.#arriving.get(frame.stream)
    if (arriving === undefined) throw new Error(`stream ${frame.stream} was never begun`)
    if (frame.op === 'abort') {
      this.#arriving.delete(frame.stream)
      this.#keepPart(arriving)
    } else this.#data(arriving, frame)
  }

  #begin(frame: Extract<StreamFrame, { op: 'begin' }>): void {
    const { path, meta, sparse, base, stream } = frame
    if (this.#arriving.has(stream)) throw new Error(`stream ${stream} was begun twice`)
    const part = this.#parts.get(path)
    if (part !== undefined) {
      this.#parts.delete(path)
      if (base?.of === 'part') {
        this.#arriving.set(stream, { ...part, meta, sparse, base: null, bytes: 0 })
        return
      }
      this.#drop(part.staged)
    }
    const staged = this.#create(base === null ? 'new' : 'patch')
    if (base?.of === 'part') staged.errno = -ENOENT
    if (base === null && staged.errno === 0) staged.errno = Math.min(0, truncateFd(staged.fd, meta.size))
    this.#arriving.set(stream, { path, meta, sparse, base, staged, blocks: [], bytes: 0 })
  }

  #data(arriving: Arriving, { offset, bytes }: { offset: number; bytes: Buffer }): void {
    const { staged, meta, base, sparse, blocks } = arriving
    if (!(offset >= 0) || offset + bytes.length > meta.size) {
      throw new Error(`data of ${bytes.length} bytes at ${offset} lies beyond the file's ${meta.size}`)
    }
    if (staged.errno !== 0) return
    // A patch collects its blocks one behind the other; a whole file is written where it belongs.
    const at = base === null ? offset : arriving.bytes
    if (base !== null) blocks.push({ offset, length: bytes.length, at })
    if (base === null && sparse && isZero(bytes)) staged.errno = writeHole(staged.fd, bytes, at)
    else staged.errno = writeAll(staged.fd, bytes, at)
    const step = Math.floor(arriving.bytes / writebackBytes)
    arriving.bytes += bytes.length
    if (Math.floor(arriving.bytes / writebackBytes) > step) this.#writeBack(arriving)
  }

  /** One at a time; the descriptor is not closed while the kernel is asked. */
  #writeBack({ staged }: Arriving): void {
    if (staged.writing !== null) return
    staged.writing = beginWriteback(staged.fd, 0, 0).then(() => {
      staged.writing = null
      if (staged.isReleased) this.#close(staged)
    })
  }

  #close(staged: Staged): void {
    if (staged.fd >= 0) closeSync(staged.fd)
    staged.fd = -1
  }

  /** The stream is complete. */
  end(stream: number): Arriving {
    const arriving = this.#arriving.get(stream)
    if (arriving === undefined) throw new Error(`stream ${stream} ends and was never begun`)
    this.#arriving.delete(stream)
    const { staged, meta, base } = arriving
    // The blocks of a patch become durable in a redo file, or in the copy they are applied to.
    if (base !== null) return arriving
    if (staged.errno === 0) {
      staged.errno = Math.min(0, truncateFd(staged.fd, meta.size)) || Math.min(0, applyMeta(staged.fd, meta))
    }
    this.#unflushed.push(staged)
    return arriving
  }

  /** The connection was cut: what arrived of large files is kept for when it goes on. */
  cut(): void {
    for (const arriving of this.#arriving.values()) this.#keepPart(arriving)
    this.#arriving.clear()
  }

  /** What is left of an interrupted transfer of this file. */
  part(path: string): Arriving | null {
    return this.#parts.get(path) ?? null
  }

  #keepPart(arriving: Arriving): void {
    const { staged, base, path } = arriving
    if (base !== null || staged.errno !== 0) return this.#drop(staged)
    const before = this.#parts.get(path)
    if (before !== undefined) this.#drop(before.staged)
    this.#parts.delete(path)
    this.#parts.set(path, arriving)
    for (const [oldest, part] of this.#parts) {
      if (this.#parts.size <= partsMax) break
      this.#parts.delete(oldest)
      this.#drop(part.staged)
    }
  }

  /** Makes all that was staged up to now durable. What failed has its errno. */
  async flush(): Promise<void> {
    const group = this.#unflushed.filter(staged => staged.errno === 0)
    this.#unflushed = []
    if (group.length === 0) return
    if (group.length > flushedAloneMax) {
      const flushed = await flushFileSystem(this.#folder.fd)
      if (flushed < 0) for (const staged of group) staged.errno = flushed
      return
    }
    await Promise.all(
      group.map(async staged => {
        staged.errno = Math.min(0, await flushData(staged.fd))
      }),
    )
  }

  /** Done with a staged file: it has its name by now, or never gets one. */
  release(staged: Staged, { keepName }: { keepName: boolean }): void {
    staged.isReleased = true
    if (staged.writing === null) this.#close(staged)
    if (!keepName) unlinkAt(staged.at.dirFd, staged.at.name)
  }

  #drop(staged: Staged): void {
    this.release(staged, { keepName: false })
  }

  close(): void {
    this.cut()
    for (const part of this.#parts.values()) this.#drop(part.staged)
    this.#parts.clear()
    for (const staged of this.#unflushed) this.#drop(staged)
    this.#unflushed = []
  }

  #create(prefix: string): Staged {
    const at = this.#folder.fresh(prefix)
    const fd = openAt(at.dirFd, at.name, { flags: O_CREAT | O_EXCL | O_RDWR, mode: 0o600 })
    return { at, fd, errno: Math.min(0, fd), writing: null, isReleased: false }
  }
}

function fill(fd: number, { meta, sparse, content }: { meta: Meta; sparse: boolean; content: Buffer }): number {
  const written = sparse ? writeSparse(fd, content) : writeAll(fd, content, 0)
  return written < 0 ? written : Math.min(0, applyMeta(fd, meta))
}

function writeSparse(fd: number, content: Buffer): number {
  const sized = truncateFd(fd, content.length)
  if (sized < 0) return sized
  for (let at = 0; at < content.length; at += sparseUnit) {
    const unit = content.subarray(at, at + sparseUnit)
    const written = isZero(unit) ? 0 : writeAll(fd, unit, at)
    if (written < 0) return written
  }
  return 0
}

/** 0 or minus the errno: a full disk is an expected outcome. */
export function writeAll(fd: number, bytes: Buffer, at: number): number {
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, at + done)
    return 0
  } catch (error) {
    if (error instanceof Error && 'errno' in error) return Number(error.errno)
    throw error
  }
}

/** Of zeros: without taking space for them where the file system can. */
export const writeHole = (fd: number, bytes: Buffer, at: number): number =>
  punchHole(fd, at, bytes.length) < 0 ? writeAll(fd, bytes, at) : 0

const zeros = Buffer.alloc(256 * 1024)
export const isZero = (bytes: Buffer): boolean =>
  bytes.length > 0 && bytes.length <= zeros.length && zeros.compare(bytes, 0, bytes.length, 0, bytes.length) === 0
