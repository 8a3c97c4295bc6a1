import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Spool } from '../../node-agent/control/spool.ts'
import { hostEvent } from '../../shared/contract/report.ts'

test('a host that was cut off for long tells the newest events, and before them how many are missing', async context => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-spool-'))
  context.after(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'events.json')
  const spool = await Spool.open(path)
  const nowMs = Date.now()
  for (let at = 0; at < 600; at++) spool.add({ kind: 'role_changed', severity: 'info', message: `${at}` }, nowMs + at)
  await spool.close()
  const again = await Spool.open(path)
  const events = again.next(1000)
  assert.equal(events.length, 500)
  const [mark, oldest] = events
  assert.deepEqual([mark?.kind, mark?.severity, oldest?.message], ['events_missing', 'warning', '101'])
  assert.match(mark?.message ?? '', /^101 events before these /)
  for (const one of events) hostEvent.parse(one)
  assert.equal(new Set(events.map(one => one.id)).size, 500)
  // Told, it is no news any more; those that are lost from then on are counted anew.
  again.told(events.slice(0, 1))
  for (let at = 0; at < 2; at++) again.add({ kind: 'role_changed', severity: 'info', message: 'new' }, nowMs + at)
  assert.match(again.next(1)[0]?.message ?? '', /^2 events before these /)
  await again.close()
})
