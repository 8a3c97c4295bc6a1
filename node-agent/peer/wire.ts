/**
 * Datagrams of the peer link. All numbers are big-endian.
 *
 *   both   0 magic 'US' · 2 wire version · 3 type · 4 pair tag (8)
 *   hello  12 random of the sender (16) · 28 nonce (12) · 40 sealed body, tag last (16)
 *   data   12 session tag (8) · 20 counter (6) · 26 sealed body, tag last (16)
 *
 * The header is authenticated together with the body. The pair tag tells packets of another pair from forged ones.
 */
export const wireVersion = 1
/** Fits an IPv6 packet of minimal MTU (1280) with headers of a tunnel to spare, so that nothing is ever fragmented. */
export const datagramBytesMax = 1200
export const sealBytes = 16
export const randomBytesCount = 16
export const tagBytes = 8
export const nonceBytes = 12
const helloHeaderBytes = 28
export const dataHeaderBytes = 26
/** 2^48 - 1; a session is replaced long before. */
export const counterMax = 2 ** 48 - 1

const magic = Buffer.from('US')
const typeHello = 1
const typeData = 2

export interface HelloPacket {
  type: 'hello'
  /** Which of the pair's keys its tag is of. */
  key: number
  header: Buffer
  random: Buffer
  nonce: Buffer
  sealed: Buffer
}
export interface DataPacket {
  type: 'data'
  key: number
  header: Buffer
  /** As hex, to look it up. */
  session: string
  counter: number
  sealed: Buffer
}
export type Parsed =
  | HelloPacket
  | DataPacket
  | { type: 'refused'; why: 'oversized' | 'malformed' | 'foreign' }
  | { type: 'refused'; why: 'version'; version: number }

/** Cheap checks only; nothing here is authenticated yet. */
export function parsePacket(bytes: Buffer, pairTags: readonly Buffer[]): Parsed {
  if (bytes.length > datagramBytesMax) return { type: 'refused', why: 'oversized' }
  if (bytes.length < dataHeaderBytes + sealBytes || !bytes.subarray(0, 2).equals(magic)) {
    return { type: 'refused', why: 'malformed' }
  }
  const version = bytes[2]!
  if (version !== wireVersion) return { type: 'refused', why: 'version', version }
  const key = pairTags.findIndex(tag => tag.equals(bytes.subarray(4, 12)))
  if (key < 0) return { type: 'refused', why: 'foreign' }
  if (bytes[3] === typeData) return parseData(bytes, key)
  if (bytes[3] === typeHello) return parseHello(bytes, key)
  return { type: 'refused', why: 'malformed' }
}

function parseData(bytes: Buffer, key: number): Parsed {
  return {
    type: 'data',
    key,
    header: bytes.subarray(0, dataHeaderBytes),
    session: bytes.toString('hex', 12, 20),
    counter: bytes.readUIntBE(20, 6),
    sealed: bytes.subarray(dataHeaderBytes),
  }
}

function parseHello(bytes: Buffer, key: number): Parsed {
  if (bytes.length < helloHeaderBytes + nonceBytes + sealBytes) return { type: 'refused', why: 'malformed' }
  return {
    type: 'hello',
    key,
    header: bytes.subarray(0, helloHeaderBytes),
    random: bytes.subarray(12, helloHeaderBytes),
    nonce: bytes.subarray(helloHeaderBytes, helloHeaderBytes + nonceBytes),
    sealed: bytes.subarray(helloHeaderBytes + nonceBytes),
  }
}

export const helloHeader = (pairTag: Buffer, random: Buffer): Buffer =>
  Buffer.concat([magic, Buffer.from([wireVersion, typeHello]), pairTag, random])

/** Of all packets of a session; `numberHeader` makes it that of one. */
export function dataHeader(part: { pairTag: Buffer; session: Buffer }): Buffer {
  const header = Buffer.alloc(dataHeaderBytes)
  magic.copy(header, 0)
  header[2] = wireVersion
  header[3] = typeData
  part.pairTag.copy(header, 4)
  part.session.copy(header, 12)
  return header
}

/** In place. */
export function numberHeader(header: Buffer, counter: number): Buffer {
  header.writeUIntBE(counter, 20, 6)
  return header
}
