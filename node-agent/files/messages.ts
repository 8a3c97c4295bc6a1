import { ByteReader, ByteWriter } from './bytes.ts'
import { type Meta, readMetaFrom, writeMeta } from './meta.ts'
import { isName, pathFault, showName, workFolderName } from './names.ts'
import { type Part, partsMax } from './parts.ts'

/**
 * The wire form of the file log, version 3. A connection carries one tree in one direction: frames of a length (u32,
 * without itself), a type (u8) and fields (bytes.ts). The first frame of each side is JSON: Hello and its Answer.
 *
 * Every operation states what is to be there, not how to get there, so that it can be given twice. `seq` numbers the
 * operations of one log; contents of a large file go ahead in a stream and become an operation with its `end`.
 */
export const wireVersion = 3
/** The hashes of a file of nearly a tebibyte; nothing else comes near it. */
export const frameBytesMax = 64 * 2 ** 20

export interface Hello {
  version: number
  pair: string
  /** Who sends: the primary. */
  node: string
  tree: string
  epoch: number
  /** A life of the sender's log; another one starts with a comparison of everything. */
  log: string
  /** Of the block hashes, hex. */
  hashKey: string
  include: readonly string[]
  exclude: readonly string[]
  /** The name of the sender's copy; '' from a sender of before. */
  copy: string
}

export type Answer =
  | {
      ok: true
      /** The last operation of this log that is durable here; null when this log is not known here. */
      applied: number | null
      /** The name of this copy; absent from a backup of before. */
      copy?: string
    }
  | { ok: false; why: string; remedy: 'later' | 'never' }

/** What a patch was computed against. */
export interface Base {
  /** A part of an interrupted transfer, or the file that is there. */
  of: 'part' | 'file'
  size: number
  mtimeS: number
  mtimeNs: number
}

export type Operation =
  | { op: 'put'; seq: number; path: string; meta: Meta; sparse: boolean; content: Buffer }
  | { op: 'end'; seq: number; stream: number }
  | { op: 'directory'; seq: number; path: string; meta: Meta }
  | { op: 'symlink'; seq: number; path: string; meta: Meta }
  | { op: 'attributes'; seq: number; path: string; meta: Meta }
  | { op: 'link'; seq: number; path: string; to: string }
  | { op: 'rename'; seq: number; path: string; to: string }
  | { op: 'remove'; seq: number; path: string }
  | { op: 'compare'; seq: number; path: string; part: Part; digest: Buffer }
  /** `own`: of the directory itself, with the first part. */
  | { op: 'listing'; seq: number; path: string; part: Part; own: Meta | null; entries: readonly ListedEntry[] }
  /** Names in a directory, each with another name of the same file anywhere in the tree. */
  | { op: 'ties'; seq: number; path: string; ties: readonly Tie[] }
  | { op: 'hashes'; seq: number; path: string }
  /** Is this part of the file, if it is this version, what hashes to this? */
  | { op: 'verify'; seq: number; path: string; base: Base; offset: number; length: number; hash: Buffer }

export interface ListedEntry {
  name: string
  meta: Meta
}

export interface Tie {
  name: string
  /** A path. */
  to: string
}

/** Contents of a large file on their way, and signs of life. */
export type StreamFrame =
  | { op: 'begin'; stream: number; path: string; meta: Meta; sparse: boolean; base: Base | null }
  | { op: 'data'; stream: number; offset: number; bytes: Buffer }
  | { op: 'abort'; stream: number }
  | { op: 'ping' }
  /** A comparison of the whole tree has ended. */
  | { op: 'compared'; manifest: string; files: number; differences: number }

export type FromSender = Operation | StreamFrame

/** Why the receiver left an operation undone. Nothing is lost by it: the sender looks at the file again. */
export type NackCode =
  | 'no parent'
  | 'gone'
  | 'different'
  | 'base'
  | 'content'
  /** errno names: ENOSPC, EIO, … */
  | `E${string}`

export type FromReceiver =
  | { op: 'ack'; seq: number; nacks: readonly { seq: number; code: NackCode; path: string }[] }
  /** `names`: in the whole directory, so that the sender divides it into enough parts. */
  | { op: 'differs'; seq: number; path: string; absent: boolean; names: number }
  /** `doubtful`: alike as far as listings tell, and yet possibly not what the primary has. */
  | {
      op: 'want'
      seq: number
      path: string
      names: readonly string[]
      surplus: readonly string[]
      doubtful: readonly string[]
    }
  | { op: 'hashesOf'; seq: number; base: Base | null; hashes: Buffer }
  | { op: 'pong'; freeBytes: number }

const types = {
  put: 1, begin: 2, data: 3, end: 4, abort: 5, directory: 6, symlink: 7, link: 8, rename: 9, remove: 10,
  attributes: 11, compare: 12, listing: 13, hashes: 14, ping: 15, verify: 16, compared: 17, ties: 18,
  ack: 65, differs: 66, want: 67, hashesOf: 68, pong: 69,
} as const // biome-ignore format: a table

export const isDataFrame = (type: number): boolean => type === types.data

/** Length, type, stream, offset, length of the bytes. */
export const dataHeadBytes = 21
/** Makes a frame of data in place: its bytes are at {@link dataHeadBytes} already. Answers the frame. */
export function frameData(buffer: Buffer, data: { stream: number; offset: number; length: number }): Buffer {
  const { stream, offset, length } = data
  buffer.writeUInt32LE(dataHeadBytes - 4 + length, 0)
  buffer.writeUInt8(types.data, 4)
  buffer.writeUInt32LE(stream, 5)
  buffer.writeDoubleLE(offset, 9)
  buffer.writeUInt32LE(length, 17)
  return buffer.subarray(0, dataHeadBytes + length)
}

/** A whole frame, ready to be sent. */
export function encode(message: FromSender | FromReceiver): Buffer {
  const content = message.op === 'put' ? message.content.length : message.op === 'data' ? message.bytes.length : 0
  const to = new ByteWriter(content + 512)
  to.u32(0)
  to.u8(types[message.op])
  write(to, message)
  const frame = to.done()
  frame.writeUInt32LE(frame.length - 4, 0)
  return frame
}

function write(to: ByteWriter, message: FromSender | FromReceiver): void {
  if ('seq' in message) to.f64(message.seq)
  if ('stream' in message) to.u32(message.stream)
  if ('path' in message) to.text(message.path)
  switch (message.op) {
    case 'put':
      writeMeta(to, message.meta)
      to.u8(message.sparse ? 1 : 0)
      return to.bytes(message.content)
    case 'begin':
      writeMeta(to, message.meta)
      to.u8(message.sparse ? 1 : 0)
      return writeBase(to, message.base)
    case 'data':
      to.f64(message.offset)
      return to.bytes(message.bytes)
    case 'directory':
    case 'symlink':
    case 'attributes':
      return writeMeta(to, message.meta)
    case 'link':
    case 'rename':
      return to.text(message.to)
    case 'compare':
      writePart(to, message.part)
      return to.bytes(message.digest)
    case 'verify':
      writeBase(to, message.base)
      to.f64(message.offset)
      to.u32(message.length)
      return to.bytes(message.hash)
    case 'listing':
      writePart(to, message.part)
      if (message.own !== null) writeMeta(to, message.own)
      to.u32(message.entries.length)
      for (const { name, meta } of message.entries) {
        to.text(name)
        writeMeta(to, meta)
      }
      return
    case 'ties':
      to.u32(message.ties.length)
      for (const tie of message.ties) {
        to.text(tie.name)
        to.text(tie.to)
      }
      return
    case 'ack':
      to.u32(message.nacks.length)
      for (const { seq, code, path } of message.nacks) {
        to.f64(seq)
        to.text(code)
        to.text(path)
      }
      return
    case 'differs':
      to.u8(message.absent ? 1 : 0)
      return to.u32(message.names)
    case 'want':
      writeTexts(to, message.names)
      writeTexts(to, message.surplus)
      return writeTexts(to, message.doubtful)
    case 'hashesOf':
      writeBase(to, message.base)
      return to.bytes(message.hashes)
    case 'pong':
      return to.f64(message.freeBytes)
    case 'compared':
      to.text(message.manifest)
      to.u32(message.files)
      return to.u32(message.differences)
    case 'end':
    case 'abort':
    case 'remove':
    case 'hashes':
    case 'ping':
      return
  }
}

/** @throws when the frame is not of this version, or names a path outside the tree */
export function decodeFromSender(frame: Buffer): FromSender {
  const from = new ByteReader(frame)
  const type = from.u8()
  switch (type) {
    case types.put:
      return {
        op: 'put',
        seq: from.f64(),
        path: path(from),
        meta: meta(from),
        sparse: from.u8() === 1,
        content: from.bytes(),
      }
    case types.begin:
      return {
        op: 'begin',
        stream: from.u32(),
        path: path(from),
        meta: meta(from),
        sparse: from.u8() === 1,
        base: readBase(from),
      }
    case types.data:
      return { op: 'data', stream: from.u32(), offset: from.f64(), bytes: from.bytes() }
    case types.end:
      return { op: 'end', seq: from.f64(), stream: from.u32() }
    case types.abort:
      return { op: 'abort', stream: from.u32() }
    case types.directory:
      return { op: 'directory', seq: from.f64(), path: path(from), meta: meta(from) }
    case types.symlink:
      return { op: 'symlink', seq: from.f64(), path: path(from), meta: meta(from) }
    case types.attributes:
      return { op: 'attributes', seq: from.f64(), path: path(from), meta: meta(from) }
    case types.link:
      return { op: 'link', seq: from.f64(), path: path(from), to: path(from) }
    case types.rename:
      return { op: 'rename', seq: from.f64(), path: path(from), to: path(from) }
    case types.remove:
      return { op: 'remove', seq: from.f64(), path: path(from) }
    case types.compare:
      return { op: 'compare', seq: from.f64(), path: path(from), part: readPart(from), digest: from.bytes() }
    case types.verify:
      return {
        op: 'verify',
        seq: from.f64(),
        path: path(from),
        base: someBase(from),
        offset: from.f64(),
        length: from.u32(),
        hash: from.bytes(),
      }
    case types.listing: {
      const head = { op: 'listing', seq: from.f64(), path: path(from), part: readPart(from) } as const
      const own = head.part.index === 0 ? meta(from) : null
      const entries = Array.from({ length: from.u32() }, () => ({ name: nameIn(head.path, from), meta: meta(from) }))
      return { ...head, own, entries }
    }
    case types.ties: {
      const head = { op: 'ties', seq: from.f64(), path: path(from) } as const
      const ties = Array.from({ length: from.u32() }, () => ({ name: nameIn(head.path, from), to: path(from) }))
      return { ...head, ties }
    }
    case types.hashes:
      return { op: 'hashes', seq: from.f64(), path: path(from) }
    case types.ping:
      return { op: 'ping' }
    case types.compared:
      return { op: 'compared', manifest: from.text(), files: from.u32(), differences: from.u32() }
    default:
      throw new Error(`a frame of type ${type} is not known to version ${wireVersion} of the file log`)
  }
}

/** @throws when the frame is not of this version */
export function decodeFromReceiver(frame: Buffer): FromReceiver {
  const from = new ByteReader(frame)
  const type = from.u8()
  switch (type) {
    case types.ack: {
      const seq = from.f64()
      const nacks = Array.from({ length: from.u32() }, () => ({
        seq: from.f64(),
        code: from.text() as NackCode,
        path: path(from),
      }))
      return { op: 'ack', seq, nacks }
    }
    case types.differs:
      return { op: 'differs', seq: from.f64(), path: path(from), absent: from.u8() === 1, names: from.u32() }
    case types.want: {
      const head = { op: 'want', seq: from.f64(), path: path(from) } as const
      const names = (): string[] => Array.from({ length: from.u32() }, () => nameIn(head.path, from))
      return { ...head, names: names(), surplus: names(), doubtful: names() }
    }
    case types.hashesOf:
      return { op: 'hashesOf', seq: from.f64(), base: readBase(from), hashes: Buffer.from(from.bytes()) }
    case types.pong:
      return { op: 'pong', freeBytes: from.f64() }
    default:
      throw new Error(`a frame of type ${type} is not known to version ${wireVersion} of the file log`)
  }
}

/** No path from the other side is used before it was seen to stay in the tree. */
function path(from: ByteReader): string {
  const text = from.text()
  const fault = pathFault(text)
  if (fault !== null) throw new Error(`the path "${showName(text.slice(0, 300))}" ${fault}`)
  return text
}

/**
 * Of an entry of this directory. A path would lead on from there, over whatever link somebody has put in its way: nothing
 * but names is looked up in an open directory.
 */
function nameIn(folder: string, from: ByteReader): string {
  const text = from.text()
  const isOurs = folder === '' && text === workFolderName
  if (isName(text) && !isOurs) return text
  throw new Error(`the name "${showName(text.slice(0, 300))}" is not one that is replicated in a directory`)
}

const meta = readMetaFrom

function writePart(to: ByteWriter, { index, count }: Part): void {
  to.u32(index)
  to.u32(count)
}

function readPart(from: ByteReader): Part {
  const [index, count] = [from.u32(), from.u32()]
  if (count > partsMax || index >= count) throw new Error(`part ${index} of ${count} of a directory is none`)
  return { index, count }
}

function writeBase(to: ByteWriter, base: Base | null): void {
  to.u8(base === null ? 0 : base.of === 'part' ? 1 : 2)
  if (base === null) return
  to.f64(base.size)
  to.f64(base.mtimeS)
  to.u32(base.mtimeNs)
}

function readBase(from: ByteReader): Base | null {
  const of = from.u8()
  if (of === 0) return null
  return { of: of === 1 ? 'part' : 'file', size: from.f64(), mtimeS: from.f64(), mtimeNs: from.u32() }
}

function someBase(from: ByteReader): Base {
  const base = readBase(from)
  if (base === null) throw new Error('a question for contents names no version')
  return base
}

function writeTexts(to: ByteWriter, texts: readonly string[]): void {
  to.u32(texts.length)
  for (const text of texts) to.text(text)
}
