/**
 * What the writer noted, and the judgement over it: which acknowledged rows are missing, which were written twice, and
 * how long no write was acknowledged. Times are CLOCK_MONOTONIC in ms, of this machine.
 */

export const WRITE_TABLE = 'lab_writes'
/** Of the writer's connections, for PostgreSQL. */
export const WRITER_NAME = 'understudy-lab-writer'

/** Rows of one connection; a writer at 1 ms interval stays below it for eleven days. */
const SEQUENCE_LIMIT = 1_000_000_000n

export interface Acknowledged {
  kind: 'acknowledged'
  id: bigint
  /** When the first attempt left. */
  sentMs: number
  ackMs: number
  attempts: number
}

export interface WriteError {
  kind: 'error'
  id: bigint
  atMs: number
  /** SQLSTATE, errno name, DEADLINE, or LOCAL_ONLY: committed without waiting for the backup. */
  code: string
}

export type WriteEvent = Acknowledged | WriteError

export function idOf(connection: number, sequence: number): bigint {
  return BigInt(connection) * SEQUENCE_LIMIT + BigInt(sequence)
}

export function writeLogLine(event: WriteEvent): string {
  switch (event.kind) {
    case 'acknowledged':
      return `A ${event.id} ${event.sentMs.toFixed(3)} ${event.ackMs.toFixed(3)} ${event.attempts}\n`
    case 'error':
      return `E ${event.id} ${event.atMs.toFixed(3)} ${event.code.replaceAll(/\s+/g, '_')}\n`
  }
}

/** A last line without its end, as a reader meets it while the writer writes, is left out. */
export function parseWriteLog(text: string): WriteEvent[] {
  const lines = text.split('\n').slice(0, -1)
  return lines.map(line => {
    const [mark, id, first, second, attempts] = line.split(' ')
    if (mark === 'A') {
      const times = { sentMs: Number(first), ackMs: Number(second) }
      return { kind: 'acknowledged', id: BigInt(id!), ...times, attempts: Number(attempts) }
    }
    if (mark === 'E') return { kind: 'error', id: BigInt(id!), atMs: Number(first), code: second! }
    throw new Error(`This is no line of a write log: ${line}`)
  })
}

export interface Window {
  fromMs: number
  toMs: number
}

export interface WriteOutage {
  /** Longest time without an acknowledged write on any connection. */
  gapMs: number
  /** The last acknowledgement before it and the first one after it; `toMs` is the window's end if none came. */
  fromMs: number
  toMs: number
  recovered: boolean
}

/**
 * The client-visible write outage within a window: the largest gap between two acknowledgements, the window's ends
 * counting as such. Without a fault it is the writer's own rhythm, a few ms.
 */
export function writeOutage(events: readonly WriteEvent[], window: Window): WriteOutage {
  const times = acknowledgements(events)
    .map(event => event.ackMs)
    .filter(time => time >= window.fromMs && time <= window.toMs)
    .sort((one, other) => one - other)
  let worst: WriteOutage = { gapMs: -1, fromMs: window.fromMs, toMs: window.fromMs, recovered: true }
  let previous = window.fromMs
  for (const time of times) {
    if (time - previous > worst.gapMs) worst = { gapMs: time - previous, fromMs: previous, toMs: time, recovered: true }
    previous = time
  }
  const restMs = window.toMs - previous
  return restMs > worst.gapMs ? { gapMs: restMs, fromMs: previous, toMs: window.toMs, recovered: false } : worst
}

export function acknowledgements(events: readonly WriteEvent[]): Acknowledged[] {
  return events.filter(event => event.kind === 'acknowledged')
}

export function errorCounts(events: readonly WriteEvent[], window?: Window): { [code: string]: number } {
  const counts: { [code: string]: number } = {}
  for (const event of events) {
    if (event.kind !== 'error') continue
    if (window !== undefined && (event.atMs < window.fromMs || event.atMs > window.toMs)) continue
    counts[event.code] = (counts[event.code] ?? 0) + 1
  }
  return counts
}

/** One by one, with the writer's connection that saw it. */
export function errorsIn(
  events: readonly WriteEvent[],
  window: Window,
): { code: string; connection: number; atMs: number }[] {
  return events
    .filter(event => event.kind === 'error')
    .filter(event => event.atMs >= window.fromMs && event.atMs <= window.toMs)
    .map(({ id, code, atMs }) => ({ code, connection: Number(id / SEQUENCE_LIMIT), atMs }))
}

export interface StoredRow {
  id: bigint
  attempts: number
}

export interface WriteVerdict {
  acknowledged: number
  /** Acknowledged and not there: must be empty. */
  lost: bigint[]
  /** Ids that took effect more than once (a retry after an answer that never came): harmless by design, and counted. */
  duplicates: number
  /** There and never acknowledged: allowed, the answer was lost. */
  unacknowledged: number
}

/** Compares what was acknowledged with the rows one host has. */
export function judgeWrites(events: readonly WriteEvent[], rows: readonly StoredRow[]): WriteVerdict {
  const stored = new Set(rows.map(row => row.id))
  const acknowledged = new Set(acknowledgements(events).map(event => event.id))
  return {
    acknowledged: acknowledged.size,
    lost: [...acknowledged].filter(id => !stored.has(id)),
    duplicates: rows.filter(row => row.attempts > 1).length,
    unacknowledged: rows.filter(row => !acknowledged.has(row.id)).length,
  }
}

/** Rows as `psql -At` prints `select id, attempts`: `id|attempts`. */
export function parseRows(text: string): StoredRow[] {
  return text
    .split('\n')
    .filter(Boolean)
    .map(line => {
      const [id, attempts] = line.split('|')
      return { id: BigInt(id!), attempts: Number(attempts) }
    })
}
