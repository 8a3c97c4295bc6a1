import { assert } from '../../shared/assert.ts'
import { readCalmMessage } from '../../shared/contract/calm-messages.ts'
import { messageSchema, sentenceMax } from '../../shared/contract/protocol.ts'
import type { Message } from '../../shared/protocol/types.ts'
import { datagramBytesMax, dataHeaderBytes, sealBytes } from './wire.ts'

/**
 * What a data packet carries, once it is open:
 *
 *   0 kind · 1 number on this path (4) · 5 newest number heard on it (4) · 9 held for, in µs (4) · 13 content
 *   message   13 number of the message (6) · 19 JSON
 *   chunk     13 transfer (4) · 17 is it an answer · 18 index · 19 count · 20 bytes
 *   received  13 transfer (4) · 17 is it an answer · 18 one bit for each chunk that arrived (8)
 */
export interface PathNumbers {
  number: number
  echo: number
  heldUs: number
}

export interface Chunk {
  kind: 'chunk'
  transfer: number
  answer: boolean
  index: number
  count: number
  bytes: Buffer
}
export interface Received {
  kind: 'received'
  transfer: number
  answer: boolean
  /** Bit i: chunk i is there. */
  chunks: bigint
}
/** What is in it is read only where its number is new: most messages come once on each path. */
export type Content = { kind: 'ping' } | { kind: 'message'; number: number; json: Buffer } | Chunk | Received

export interface Body {
  path: PathNumbers
  content: Content
}

const kinds = { ping: 0, message: 1, chunk: 2, received: 3 } as const
const pathBytes = 13
const messageHeaderBytes = 6
const chunkHeaderBytes = 7
const contentBytesMax = datagramBytesMax - dataHeaderBytes - sealBytes - pathBytes
const messageBytesMax = contentBytesMax - messageHeaderBytes
export const chunksMax = 64
/** 64 of these are 64 KiB. */
export const chunkBytesMax = 1024

/** The content is the same on every path, so it is encoded once. */
export function encodeContent(content: Content): Buffer {
  switch (content.kind) {
    case 'ping':
      return Buffer.alloc(0)
    case 'message': {
      const bytes = Buffer.allocUnsafe(messageHeaderBytes + content.json.length)
      bytes.writeUIntBE(content.number, 0, messageHeaderBytes)
      bytes.set(content.json, messageHeaderBytes)
      return bytes
    }
    case 'chunk': {
      const header = Buffer.alloc(chunkHeaderBytes)
      header.writeUInt32BE(content.transfer, 0)
      header[4] = content.answer ? 1 : 0
      header[5] = content.index
      header[6] = content.count
      return Buffer.concat([header, content.bytes])
    }
    case 'received': {
      const bytes = Buffer.alloc(13)
      bytes.writeUInt32BE(content.transfer, 0)
      bytes[4] = content.answer ? 1 : 0
      bytes.writeBigUInt64BE(content.chunks, 5)
      return bytes
    }
  }
}

export function encodeBody(part: { kind: Content['kind']; path: PathNumbers; content: Buffer }): Buffer {
  const body = Buffer.allocUnsafe(pathBytes + part.content.length)
  body[0] = kinds[part.kind]
  body.writeUInt32BE(part.path.number, 1)
  body.writeUInt32BE(part.path.echo, 5)
  body.writeUInt32BE(part.path.heldUs, 9)
  body.set(part.content, pathBytes)
  return body
}

/** null = nothing this version can read: a bug, or a field out of its bounds. For what is in a message see decodeMessage. */
export function decodeBody(body: Buffer): Body | null {
  if (body.length < pathBytes) return null
  const content = decodeContent(body[0]!, body.subarray(pathBytes))
  if (content === null) return null
  const path = { number: body.readUInt32BE(1), echo: body.readUInt32BE(5), heldUs: body.readUInt32BE(9) }
  return { path, content }
}

function decodeContent(kind: number, bytes: Buffer): Content | null {
  switch (kind) {
    case kinds.ping:
      return { kind: 'ping' }
    case kinds.message:
      return decodeMessageContent(bytes)
    case kinds.chunk:
      return decodeChunk(bytes)
    case kinds.received:
      if (bytes.length !== 13) return null
      return {
        kind: 'received',
        transfer: bytes.readUInt32BE(0),
        answer: bytes[4] === 1,
        chunks: bytes.readBigUInt64BE(5),
      }
    default:
      return null
  }
}

function decodeMessageContent(bytes: Buffer): Content | null {
  if (bytes.length < messageHeaderBytes) return null
  const number = bytes.readUIntBE(0, messageHeaderBytes)
  return { kind: 'message', number, json: bytes.subarray(messageHeaderBytes) }
}

function decodeChunk(bytes: Buffer): Content | null {
  if (bytes.length < chunkHeaderBytes || bytes.length > chunkHeaderBytes + chunkBytesMax) return null
  const [index, count] = [bytes[5]!, bytes[6]!]
  if (count === 0 || count > chunksMax || index >= count) return null
  const transfer = bytes.readUInt32BE(0)
  return { kind: 'chunk', transfer, answer: bytes[4] === 1, index, count, bytes: bytes.subarray(chunkHeaderBytes) }
}

/**
 * JSON: a heartbeat is 180 bytes and 2 µs, which is nothing next to the packet's way, and it can be read in a trace.
 * A sentence for people is cut and reduced to printable ASCII, so that every message fits one datagram.
 */
export function encodeMessage(message: Message): Buffer {
  const fitting =
    message.kind === 'ack' ? { ...message, why: message.why.replace(/[^ -~]/g, '?').slice(0, sentenceMax) } : message
  const json = Buffer.from(JSON.stringify(fitting))
  // The sentence only where it is needed: this is done for each heartbeat.
  if (json.length > messageBytesMax)
    assert(false, `a message of ${json.length} bytes does not fit a datagram: ${json.subarray(0, 80)}`)
  return json
}

/** null = nothing this version can read: a bug, or a field out of its bounds. */
export function decodeMessage(json: Buffer): Message | null {
  let value: unknown
  try {
    value = JSON.parse(json.toString())
  } catch {
    return null
  }
  const calm = readCalmMessage(value)
  if (calm !== null) return calm
  const parsed = messageSchema.safeParse(value)
  return parsed.success ? parsed.data : null
}
