import { createHash } from 'node:crypto'
import type { z } from 'zod'

/**
 * One durable record: a header line that says what it is, how long and with which SHA-256, then JSON.
 * A person can read it; no byte of it can change unnoticed, because the header has exactly one spelling for a body.
 */
export interface RecordFormat<T> {
  /** In the header: the state of a host and the row of a witness can't be taken for each other. */
  kind: string
  /** Raised when a field changes its meaning. Another version is refused, never guessed at. */
  version: number
  schema: z.ZodType<T>
}

export type Decoded<T> = { ok: true; value: T } | { ok: false; why: string }

/** A record is a few hundred bytes; whatever is longer than this is not one. */
export const recordBytesMax = 1024 * 1024

const magic = 'understudy'

export function encodeRecord<T>(format: RecordFormat<T>, value: T): Buffer {
  const body = Buffer.from(`${JSON.stringify(value)}\n`)
  return Buffer.concat([Buffer.from(headerOf(format, body)), body])
}

export function decodeRecord<T>(format: RecordFormat<T>, bytes: Buffer): Decoded<T> {
  const end = bytes.indexOf(0x0a)
  if (end < 0) return damaged(`it has no header line (${bytes.length} bytes)`)
  const header = bytes.subarray(0, end + 1).toString('latin1')
  const other = versionOf(header, format.kind)
  if (other !== null && other !== format.version) {
    return damaged(`it has format version ${other}, this program knows version ${format.version}`)
  }
  const body = bytes.subarray(end + 1)
  if (header !== headerOf(format, body)) return damaged('its header does not match its contents')
  return parseBody(format, body)
}

/** How long the record is that begins there, by its header; null: none does. */
export function recordBytesAt(bytes: Buffer, at: number): number | null {
  const end = bytes.indexOf(0x0a, at)
  if (end < 0 || end - at > headerLettersMax) return null
  const header = /^understudy \S+ \d{1,9} (\d{1,7}) [0-9a-f]{64}$/.exec(bytes.toString('latin1', at, end))
  const bodyBytes = Number(header?.[1] ?? -1)
  return bodyBytes < 0 ? null : end + 1 - at + bodyBytes
}
const headerLettersMax = 200

function parseBody<T>(format: RecordFormat<T>, body: Buffer): Decoded<T> {
  let json: unknown
  try {
    json = JSON.parse(body.toString())
  } catch {
    return damaged('its contents are not JSON')
  }
  const parsed = format.schema.safeParse(json)
  if (parsed.success) return { ok: true, value: parsed.data }
  const issue = parsed.error.issues[0]
  return damaged(`its field ${issue?.path.join('.') || '(root)'} is wrong: ${issue?.message}`)
}

function headerOf(format: { kind: string; version: number }, body: Buffer): string {
  const sum = createHash('sha256').update(body).digest('hex')
  return `${magic} ${format.kind} ${format.version} ${body.length} ${sum}\n`
}

function versionOf(header: string, kind: string): number | null {
  const match = /^understudy (\S+) (\d{1,9}) /.exec(header)
  return match?.[1] === kind ? Number(match[2]) : null
}

const damaged = (why: string): { ok: false; why: string } => ({ ok: false, why })
