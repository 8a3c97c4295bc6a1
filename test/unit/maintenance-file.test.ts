import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { rememberedMaintenance, rememberMaintenance } from '../../node-agent/maintenance-file.ts'

const folder = mkdtempSync(join(tmpdir(), 'understudy-maintenance-'))
after(() => rmSync(folder, { recursive: true }))
const hourMs = 3_600_000
const maxMs = 24 * hourMs
const asked = { boot: 'one', bootMs: 1000, wallMs: 1_700_000_000_000 }
const remembered = (now: typeof asked) => rememberedMaintenance(folder, { now, maxMs })

test('nothing was asked for: nothing is remembered', () => assert.equal(remembered(asked), 0))

test('a new agent of the same boot goes on with the very same end', async () => {
  await rememberMaintenance(folder, { until: 1000 + hourMs, now: asked })
  assert.equal(remembered({ ...asked, bootMs: 5000, wallMs: 0 }), 1000 + hourMs)
  assert.equal(remembered({ ...asked, bootMs: 1001 + hourMs }), 0)
})

test('over a boot the wall clock tells what is left, and never more than may be asked for', () => {
  const later = { boot: 'two', bootMs: 30_000, wallMs: asked.wallMs + hourMs / 2 }
  assert.equal(remembered(later), 30_000 + hourMs / 2)
  assert.equal(remembered({ ...later, wallMs: asked.wallMs + 2 * hourMs }), 0)
  assert.equal(remembered({ ...later, wallMs: 0 }), 30_000 + maxMs)
})

test('ended by the operator, it is over', async () => {
  await rememberMaintenance(folder, { until: 0, now: asked })
  assert.equal(remembered(asked), 0)
})

test('torn at any byte, the one before it holds; a file without anything whole means that takeovers are automatic', async () => {
  const path = join(folder, 'maintenance')
  await rememberMaintenance(folder, { until: 1000 + hourMs, now: asked })
  const before = readFileSync(path)
  await rememberMaintenance(folder, { until: 1000 + 2 * hourMs, now: asked })
  const whole = readFileSync(path)
  const changed = [...whole.keys()].filter(at => whole[at] !== before[at])
  for (const at of [changed[0], changed[Math.floor(changed.length / 2)], changed.at(-1)]) {
    writeFileSync(path, Buffer.concat([whole.subarray(0, at), before.subarray(at)]))
    assert.equal(remembered(asked), 1000 + hourMs, `torn at ${at}`)
  }
  await rememberMaintenance(folder, { until: 1000 + 3 * hourMs, now: asked })
  assert.equal(remembered(asked), 1000 + 3 * hourMs)
  for (const nothing of [Buffer.alloc(0), Buffer.alloc(whole.length, 7)]) {
    writeFileSync(path, nothing)
    assert.equal(remembered(asked), 0)
  }
})
