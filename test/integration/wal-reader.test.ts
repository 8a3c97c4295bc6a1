import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { sleep } from '../../node-agent/postgres/processes.ts'
import { endOfLog } from '../../node-agent/postgres/wal-end.ts'
import { followLog } from '../../node-agent/postgres/wal-reader.ts'
import { parseLsn, timelineOfFile } from '../../shared/lsn.ts'
import { type TestHost, twoClusters } from './support/clusters.ts'
import { dumpedRecords, expectEnd } from './support/wal-dump.ts'

/** Statements that make all kinds of records: small and huge ones, page images, compressed ones, a switched segment. */
const LOAD = [
  'insert into t select g, repeat(md5(g::text), 40) from generate_series(1, 400) g',
  "insert into t select g, string_agg(md5((g * h)::text), '') from generate_series(1, 30) g, generate_series(1, 900) h group by g",
  "update t set b = b || 'x' where a % 7 = 0",
  'delete from t where a % 3 = 0',
  'checkpoint',
  'select pg_switch_wal()',
  "select pg_logical_emit_message(true, 'test', repeat('y', 70000))",
  "select pg_logical_emit_message(false, 'test', 'z')",
  'vacuum t',
]
const CRASHES = 12

describe('the reader of the log', { timeout: 300_000 }, () => {
  let a: TestHost
  let cleanUp: () => Promise<void> = async () => {}
  before(async () => {
    ;({ a, cleanUp } = await twoClusters({ portA: 25_440 }))
    await a.create()
    await a.must({ op: 'promote', epoch: 1, syncNames: 'empty' })
    a.psql('create table t(a int, b text)')
    a.psql("alter system set wal_compression = 'on'")
  })
  after(() => cleanUp())

  test('reads the very records that pg_waldump reads, whenever the server is killed', async () => {
    for (let crash = 0; crash < CRASHES; crash += 1) {
      const from = parseLsn(a.psql('checkpoint; select redo_lsn from pg_control_checkpoint()'))
      const flushed = writeFor(a, 20 + Math.random() * 250)
      await flushed.ended
      const { position } = await a.must({ op: 'kill' })
      const walDir = join(a.spec.dataDir, 'pg_wal')
      const timeline = newestTimeline(walDir)
      const found = await followLog({ walDir, timeline, from })
      const dumped = dumpedRecords(a, { timeline, from })
      assert.ok(found !== null && dumped.length > 0)
      assert.equal(found.records, dumped.length, `crash ${crash}: as many records as pg_waldump`)
      expectEnd(found.end, dumped, `crash ${crash}`)
      assert.deepEqual(position, { timeline, lsn: found.end }, 'from the last flushed position as well')
      // From the end itself there is nothing more to read.
      assert.deepEqual(await followLog({ walDir, timeline, from: found.end }), { end: found.end, records: 0 })
      await a.must({ op: 'startPrimary', epoch: 1, syncNames: 'empty' })
      // What the server recovers to is at least what was read: it goes on behind it.
      assert.ok(parseLsn(a.psql('select pg_current_wal_insert_lsn()')) >= found.end)
    }
  })

  test('a standby killed as it made the first segment of a new timeline ends where the timeline before does', async () => {
    const { position } = await a.must({ op: 'kill' })
    assert.ok(position !== null)
    const walDir = join(a.spec.dataDir, 'pg_wal')
    const segmentBytes = 2 ** 20
    const next = position.timeline + 1
    const name = (number: number): string =>
      [next, Math.floor(number / (2 ** 32 / segmentBytes)), number % (2 ** 32 / segmentBytes)]
        .map(part => part.toString(16).toUpperCase().padStart(8, '0'))
        .join('')
    const segment = join(walDir, name(Math.floor(position.lsn / segmentBytes)))
    const history = join(walDir, `${next.toString(16).toUpperCase().padStart(8, '0')}.history`)
    const lsn = `${Math.floor(position.lsn / 2 ** 32).toString(16)}/${(position.lsn % 2 ** 32).toString(16)}`
    writeFileSync(history, `${position.timeline}\t${lsn}\tno recovery target specified\n`)
    writeFileSync(segment, Buffer.alloc(segmentBytes))
    try {
      assert.deepEqual(await endOfLog(a.spec, null), position)
      assert.deepEqual(await endOfLog(a.spec, position), position)
    } finally {
      rmSync(segment)
      rmSync(history)
    }
    await a.must({ op: 'startPrimary', epoch: 1, syncNames: 'empty' })
  })

  test('a position within no log is no log', async () => {
    const walDir = join(a.spec.dataDir, 'pg_wal')
    assert.equal(await followLog({ walDir, timeline: 77, from: 2 ** 20 }), null)
  })
})

/** Sessions that write at once, until they are cut off by whoever kills the server. */
function writeFor(host: TestHost, ms: number): { ended: Promise<void> } {
  const sessions = [1, 2].map(() => {
    const statements = Array.from({ length: 400 }, () => `${LOAD[Math.floor(Math.random() * LOAD.length)]};\n`).join('')
    const at = ['-h', host.spec.socketDir, '-p', String(host.spec.port), '-U', 'postgres', '-d', 'postgres']
    const session = spawn('psql', ['-Xq', ...at], { stdio: ['pipe', 'ignore', 'ignore'] })
    session.stdin.on('error', () => {})
    session.stdin.end(statements)
    return once(session, 'exit')
  })
  void Promise.all(sessions)
  return { ended: sleep(ms) }
}

function newestTimeline(walDir: string): number {
  const names = readdirSync(walDir).filter(name => /^[0-9A-F]{24}$/.test(name))
  return Math.max(...names.map(timelineOfFile))
}
