import { createHash } from 'node:crypto'
import { closeSync, readSync } from 'node:fs'
import {
  ESTALE,
  type FileStat,
  flushData,
  O_CREAT,
  O_EXCL,
  O_RDWR,
  openAt,
  type Place,
  statFd,
  truncateFd,
} from '../kernel/file-calls.ts'
import { ByteReader, ByteWriter } from './bytes.ts'
import { applyMeta, type Meta, readMetaFrom, writeMeta } from './meta.ts'
import { Turns } from './parts.ts'
import type { Arriving } from './staging.ts'
import { isZero, writeAll, writeHole } from './staging.ts'

/**
 * Changed blocks of a large file are written into it in place, because a copy of the file for each change would take
 * seconds. So that a crash can't leave a mixture, blocks and description are durable in a redo file first; what a start
 * (and a takeover, before the tree opens) finds of these is written once more.
 *
 * Layout, version 1: magic, path, base inode, meta, count, then for each block offset and bytes; SHA-256 of all that.
 */
const magic = 'understudy redo 1'
/** Larger patches are applied to a copy that then takes the name. */
export const redoBytesMax = 16 * 2 ** 20
export const redoPrefix = 'redo'

export interface Redo {
  path: string
  ino: number
  meta: Meta
  sparse: boolean
  blocks: { offset: number; bytes: Buffer }[]
}

/** Reads the staged blocks of a patch back into memory. */
export function redoOf(arriving: Arriving, base: FileStat): Redo {
  const blocks = arriving.blocks.map(({ offset, length, at }) => ({
    offset,
    bytes: readBack(arriving.staged.fd, at, length),
  }))
  return { path: arriving.path, ino: base.ino, meta: arriving.meta, sparse: arriving.sparse, blocks }
}

export function readBack(fd: number, at: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  for (let got = 0; got < length; ) {
    const read = readSync(fd, bytes, got, length - got, at + got)
    if (read === 0)
      throw new Error(`a staged file is shorter than the ${length} bytes at ${at} that were written to it`)
    got += read
  }
  return bytes
}

export function encodeRedo(redo: Redo): Buffer {
  const to = new ByteWriter(redo.blocks.reduce((sum, one) => sum + one.bytes.length + 16, 1024))
  to.text(magic)
  to.text(redo.path)
  to.f64(redo.ino)
  writeMeta(to, redo.meta)
  to.u8(redo.sparse ? 1 : 0)
  to.u32(redo.blocks.length)
  for (const { offset, bytes } of redo.blocks) {
    to.f64(offset)
    to.bytes(bytes)
  }
  return Buffer.concat([to.done(), createHash('sha256').update(to.done()).digest()])
}

/** Null when it was not written to its end: then it was never begun to be applied. */
export function decodeRedo(file: Buffer): Redo | null {
  const [body, sum] = [file.subarray(0, -32), file.subarray(-32)]
  if (file.length < 32 || !createHash('sha256').update(body).digest().equals(sum)) return null
  const from = new ByteReader(body)
  if (from.text() !== magic) return null
  const head = { path: from.text(), ino: from.f64(), meta: readMetaFrom(from), sparse: from.u8() === 1 }
  return { ...head, blocks: Array.from({ length: from.u32() }, () => ({ offset: from.f64(), bytes: from.bytes() })) }
}

/** Writes a redo file and makes it durable. 0 or minus the errno. */
export async function writeRedo(at: Place, redo: Redo): Promise<number> {
  const fd = openAt(at.dirFd, at.name, { flags: O_CREAT | O_EXCL | O_RDWR, mode: 0o600 })
  if (fd < 0) return fd
  try {
    return writeAll(fd, encodeRedo(redo), 0) || Math.min(0, await flushData(fd))
  } finally {
    closeSync(fd)
  }
}

/** Writes the blocks into the open file; may be repeated. 0 or minus the errno. */
export async function applyRedo(fd: number, redo: Redo): Promise<number> {
  const sized = truncateFd(fd, redo.meta.size)
  if (sized < 0) return sized
  const turns = new Turns()
  for (const { offset, bytes } of redo.blocks) {
    await turns.next()
    const isHole = redo.sparse && isZero(bytes)
    const written = isHole ? writeHole(fd, bytes, offset) : writeAll(fd, bytes, offset)
    if (written < 0) return written
  }
  const described = applyMeta(fd, redo.meta)
  return described < 0 ? described : Math.min(0, await flushData(fd))
}

/** The file a patch is for, if it is there and still the one. Minus the errno when not: ESTALE for another one. */
export function openForRedo(at: Place, { ino, flags }: { ino: number; flags: number }): number {
  const fd = openAt(at.dirFd, at.name, { flags })
  if (fd < 0) return fd
  const stat = statFd(fd)
  if (typeof stat !== 'number' && stat.ino === ino) return fd
  closeSync(fd)
  return -ESTALE
}
