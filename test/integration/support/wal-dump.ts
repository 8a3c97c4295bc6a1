/** What pg_waldump finds in the log of a cluster, to compare with what our own reader does. */

import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { parseLsn } from '../../../shared/lsn.ts'
import type { TestHost } from './clusters.ts'

export interface DumpedRecord {
  start: number
  bytes: number
  isSwitch: boolean
}

/** From a position on: it need not be where a record begins. */
export function dumpedRecords(host: TestHost, { timeline, from }: { timeline: number; from: number }): DumpedRecord[] {
  const lsn = execFileSync('printf', ['%X/%X', String(Math.floor(from / 2 ** 32)), String(from % 2 ** 32)]).toString()
  const args = ['-p', join(host.spec.dataDir, 'pg_wal'), '-t', String(timeline), '-s', lsn]
  const { stdout } = spawnSync(join(host.spec.binDir, 'pg_waldump'), args, { maxBuffer: 2 ** 28, encoding: 'utf8' })
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
