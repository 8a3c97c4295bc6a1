/** What pg_waldump finds in the log of a cluster, to compare with what our own reader does. */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseLsn, showLsn, showTimeline } from '../../../shared/lsn.ts'
import type { TestHost } from './clusters.ts'

export interface DumpedRecord {
  start: number
  bytes: number
  isSwitch: boolean
}

/**
 * From a position on: it need not be where a record begins. The files are named: without a name pg_waldump takes the size of
 * a segment from any one, and gives up where that is one that was made a moment before the server was killed, still empty.
 */
export function dumpedRecords(host: TestHost, { timeline, from }: { timeline: number; from: number }): DumpedRecord[] {
  const { dataDir, binDir, walSegmentMb } = host.spec
  const walDir = join(dataDir, 'pg_wal')
  const segment = Math.floor(from / (walSegmentMb * 2 ** 20))
  const aLog = 4096 / walSegmentMb
  const first = [timeline, Math.floor(segment / aLog), segment % aLog].map(showTimeline).join('')
  const isOfTimeline = (name: string): boolean => /^[0-9A-F]{24}$/.test(name) && name.startsWith(showTimeline(timeline))
  const last = readdirSync(walDir).filter(isOfTimeline).sort().at(-1)
  assert.ok(last !== undefined, `no file of timeline ${timeline} is there`)
  const args = ['-p', walDir, '-t', String(timeline), '-s', showLsn(from), first, last]
  const { stdout } = spawnSync(join(binDir, 'pg_waldump'), args, { maxBuffer: 2 ** 28, encoding: 'utf8' })
  return [
    ...stdout.matchAll(/len \(rec\/tot\):\s*\d+\/\s*(\d+), tx:\s*\d+, lsn: ([0-9A-F]+\/[0-9A-F]+),.*desc: (\S+)/g),
  ].map(([, bytes, start, desc]) => ({ bytes: Number(bytes), start: parseLsn(start!), isSwitch: desc === 'SWITCH' }))
}

/** The end of the log is that of the last record: no part of it is missing, and nothing that comes after is taken for it. */
export function expectEnd(end: number, dumped: readonly DumpedRecord[], words: string): void {
  const last = dumped.at(-1)
  assert.ok(last !== undefined, `${words}: pg_waldump finds records`)
  // A record that crosses pages is longer on disk by their headers.
  assert.ok(end >= last.start + last.bytes, `${words}: the last record is whole`)
  const pages = Math.ceil(last.bytes / 8000) + 1
  if (!last.isSwitch) assert.ok(end <= last.start + last.bytes + 8 + 40 * pages, `${words}: and no more`)
}
