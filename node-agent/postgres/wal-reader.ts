import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { showTimeline } from '../../shared/lsn.ts'
import { crc32cStart, finishCrc32c, updateCrc32c } from './crc32c.ts'

/**
 * Follows the records of a log on disk to where the last valid one ends, by the rules of PostgreSQL's own recovery
 * (access/xlogreader.c, xlog_internal.h, xlogrecord.h; the same in 15 to 18): whole pages of this log, records linked
 * backwards, each with a matching checksum.
 *
 * Not pg_waldump: as a process it takes 10 to 20 ms in the middle of a takeover, it tells the end only in the text of an
 * error, and not at all where the log ends with a segment.
 */
export interface LogStart {
  walDir: string
  timeline: number
  /** Where a record begins or ends, or a page of which the first part continues one. */
  from: number
}

const recordHeaderBytes = 24
const checkedHeaderBytes = 20
const shortPageHeaderBytes = 24
const longPageHeaderBytes = 40
/** Of a page: its first bytes continue a record of the page before; or that record was given up after a crash. */
const continuesRecord = 0x0001
const overwritesRecord = 0x0008
/** XLOG_SWITCH of the resource manager XLOG: the rest of the segment is unused. */
const switchInfo = 0x40
/** Read at once; between two reads the loop serves everything else. */
const chunkBytes = 1024 * 1024

/** The end of the last valid record, and how many were read; null where not even the first page is there. */
export async function followLog(start: LogStart): Promise<{ end: number; records: number } | null> {
  const pages = await Pages.open(start)
  if (pages === null) return null
  try {
    let end = pages.endForm(start.from)
    let at = await firstRecord(pages, start.from)
    let before: number | null = null
    let records = 0
    while (at !== null) {
      const read: ReadRecord | null = await readRecord(pages, { at, before })
      if (read === null) break
      before = read.valid ? read.at : before
      at = read.next
      if (!read.valid) continue
      end = read.next
      records += 1
    }
    return { end, records }
  } finally {
    await pages.close()
  }
}

/** Where `from` is a page that continues a record, the one after it. */
async function firstRecord(pages: Pages, from: number): Promise<number | null> {
  let at = pages.endForm(from)
  if (at % pages.pageBytes !== 0) return at
  for (;;) {
    const page = await pages.at(at)
    if (page === null) return from
    if ((page.info & continuesRecord) === 0) return at
    const room = pages.pageBytes - page.headerBytes
    if (page.remaining <= room) return aligned(at + page.headerBytes + page.remaining)
    at += pages.pageBytes
  }
}

interface ReadRecord {
  at: number
  next: number
  /** False: an unfinished record that PostgreSQL gave up after a crash and went on behind. */
  valid: boolean
}

async function readRecord(
  pages: Pages,
  { at, before }: { at: number; before: number | null },
): Promise<ReadRecord | null> {
  let page = await pages.at(at)
  if (page === null) return null
  if (at % pages.pageBytes === 0 && page.info & continuesRecord) return null
  const start = at % pages.pageBytes === 0 ? at + page.headerBytes : at
  let position = start
  const total = page.bytes.readUInt32LE(position % pages.pageBytes)
  if (total < recordHeaderBytes) return null
  const header = Buffer.alloc(recordHeaderBytes)
  let crc = crc32cStart
  let got = 0
  for (;;) {
    const offset = position % pages.pageBytes
    const part = page.bytes.subarray(offset, offset + Math.min(total - got, pages.pageBytes - offset))
    const ofHeader = Math.min(Math.max(recordHeaderBytes - got, 0), part.length)
    part.copy(header, got, 0, ofHeader)
    crc = updateCrc32c(crc, part.subarray(ofHeader))
    got += part.length
    position += part.length
    if (got === total) break
    page = await pages.at(position)
    if (page === null) return null
    if (page.info & overwritesRecord) return { at: start, next: position, valid: false }
    if ((page.info & continuesRecord) === 0 || page.remaining !== total - got) return null
    position += page.headerBytes
  }
  if (finishCrc32c(updateCrc32c(crc, header.subarray(0, checkedHeaderBytes))) !== header.readUInt32LE(20)) return null
  const link = Number(header.readBigUInt64LE(8))
  if (before === null ? link >= start : link !== before) return null
  const isSwitch = header[17] === 0 && (header[16]! & 0xf0) === switchInfo
  const next = aligned(position)
  return { at: start, next: isSwitch ? Math.ceil(next / pages.segmentBytes) * pages.segmentBytes : next, valid: true }
}

/** Records begin at multiples of eight. */
const aligned = (position: number): number => Math.ceil(position / 8) * 8

interface Page {
  bytes: Buffer
  headerBytes: number
  info: number
  /** Of a continued record, what is left of it at the page's beginning. */
  remaining: number
}

/** The pages of one timeline's log, each checked against the place where it lies. */
class Pages {
  readonly segmentBytes: number
  readonly pageBytes: number
  readonly #start: LogStart
  readonly #magic: number
  #file: { number: number; handle: FileHandle }
  #chunk: { from: number; bytes: Buffer } = { from: -1, bytes: Buffer.alloc(0) }

  /** The sizes stand in the header of every segment; its file is found only by knowing them, so a first one is looked into. */
  static async open(start: LogStart): Promise<Pages | null> {
    for (const segmentBytes of possibleSegmentBytes) {
      const number = Math.floor(start.from / segmentBytes)
      // A log that ends with a segment may have no next one yet.
      for (const candidate of start.from % segmentBytes === 0 ? [number, number - 1] : [number]) {
        const handle = await open(join(start.walDir, fileName(start.timeline, candidate, segmentBytes))).catch(
          () => null,
        )
        if (handle === null) continue
        const header = Buffer.alloc(longPageHeaderBytes)
        await handle.read(header, 0, header.length, 0)
        if (header.readUInt32LE(32) === segmentBytes)
          return new Pages(start, { header, number: candidate, handle, segmentBytes })
        await handle.close()
      }
    }
    return null
  }

  private constructor(
    start: LogStart,
    first: { header: Buffer; number: number; handle: FileHandle; segmentBytes: number },
  ) {
    this.#start = start
    this.segmentBytes = first.segmentBytes
    this.pageBytes = first.header.readUInt32LE(36)
    this.#magic = first.header.readUInt16LE(0)
    this.#file = { number: first.number, handle: first.handle }
  }

  close(): Promise<void> {
    return this.#file.handle.close()
  }

  /** A position behind a page's header is where a record begins; the one before it ended at the page's own beginning. */
  endForm(position: number): number {
    const pageStart = position - (position % this.pageBytes)
    return position === pageStart + this.#headerBytesAt(pageStart) ? pageStart : position
  }

  /** The page that holds `position`, or null: missing, or not (or no longer) a page of this log. */
  async at(position: number): Promise<Page | null> {
    const pageStart = position - (position % this.pageBytes)
    const bytes = await this.#read(pageStart)
    if (bytes === null) return null
    const isOfHere =
      bytes.readUInt16LE(0) === this.#magic &&
      Number(bytes.readBigUInt64LE(8)) === pageStart &&
      bytes.readUInt32LE(4) <= this.#start.timeline
    if (!isOfHere) return null
    return {
      bytes,
      headerBytes: this.#headerBytesAt(pageStart),
      info: bytes.readUInt16LE(2),
      remaining: bytes.readUInt32LE(16),
    }
  }

  #headerBytesAt(pageStart: number): number {
    return pageStart % this.segmentBytes === 0 ? longPageHeaderBytes : shortPageHeaderBytes
  }

  async #read(pageStart: number): Promise<Buffer | null> {
    const within = pageStart - this.#chunk.from
    if (this.#chunk.from >= 0 && within >= 0 && within + this.pageBytes <= this.#chunk.bytes.length)
      return this.#chunk.bytes.subarray(within, within + this.pageBytes)
    const number = Math.floor(pageStart / this.segmentBytes)
    if (number !== this.#file.number) {
      const name = fileName(this.#start.timeline, number, this.segmentBytes)
      const handle = await open(join(this.#start.walDir, name)).catch(() => null)
      if (handle === null) return null
      await this.#file.handle.close()
      this.#file = { number, handle }
    }
    const offset = pageStart % this.segmentBytes
    const length = Math.min(chunkBytes, this.segmentBytes - offset)
    const { bytesRead, buffer } = await this.#file.handle.read(Buffer.alloc(length), 0, length, offset)
    this.#chunk = { from: pageStart, bytes: buffer.subarray(0, bytesRead) }
    return bytesRead < this.pageBytes ? null : this.#chunk.bytes.subarray(0, this.pageBytes)
  }
}

/** 1 MB to 1 GB, initdb --wal-segsize; the usual ones first. */
const possibleSegmentBytes = [16, 1, 4, 2, 8, 32, 64, 128, 256, 512, 1024].map(megabytes => megabytes * 2 ** 20)

/** Manual, 30.5: timeline, then the segment's number in two parts of which the lower counts up to 4 GB. */
function fileName(timeline: number, segment: number, segmentBytes: number): string {
  const perPart = 2 ** 32 / segmentBytes
  const hex = (value: number): string => value.toString(16).toUpperCase().padStart(8, '0')
  return `${showTimeline(timeline)}${hex(Math.floor(segment / perPart))}${hex(segment % perPart)}`
}
