import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { newsOf } from '../../../node-agent/inventory/look-process.ts'
import { Looker } from '../../../node-agent/inventory/looker.ts'
import type { HostInventory } from '../../../node-agent/inventory/read-host.ts'
import { runChange } from '../../../node-agent/network/change-process.ts'
import { runApart } from '../../../node-agent/workers/apart.ts'
import { withoutDescriptors } from '../../fixtures/without-descriptors.ts'

const inventory: HostInventory = {
  network: { nics: [], vswitches: [], routes: [], manager: 'none', unknown: [] },
  storage: { adapters: [], devices: [] },
}

const settings = { networkFolder: '/nowhere', storageFolder: '/nowhere', configPath: '/nowhere', vips: [] }

test('another virtual address in the configuration is news, though nothing of the host has changed', () => {
  const before = newsOf(inventory, settings)
  assert.deepEqual(newsOf(inventory, settings), before)
  const vips = [{ address: '10.1.0.100/24', interface: 'svc0' }]
  assert.notEqual(newsOf(inventory, { ...settings, vips }).sha256, before.sha256)
})

test('a look that hangs is given up in time, even where somebody keeps its end of the pipe', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-look-'))
  const note = join(folder, 'pid')
  try {
    // As a process in its driver, which no SIGKILL ends: here it is its child that lives on.
    const args = ['-c', 'sleep 60 & echo $! > "$0"; wait', note]
    const looker = new Looker({ settings, limitMs: 1000, program: { command: 'sh', args } })
    const began = performance.now()
    await assert.rejects(
      looker.storage(),
      /could not be looked at: the process did not end within 1000 ms: a driver hangs/,
    )
    assert.ok(performance.now() - began < 30_000)
    process.kill(Number(readFileSync(note, 'utf8')), 'SIGKILL')
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('a look that says nothing, or ends without an answer, is a sentence', async () => {
  const silent = new Looker({ settings, program: { command: 'true', args: [] } })
  await assert.rejects(silent.host(), /could not be looked at: the process said nothing/)
  const missing = new Looker({ settings, program: { command: '/nowhere/look', args: [] } })
  await assert.rejects(missing.news(), /could not be looked at: .*ENOENT/)
})

test('a change of the networks whose process can’t be started is a sentence, and ends nobody else', async () => {
  const program = process.execPath
  process.execPath = '/nowhere/node'
  try {
    const outcome = await runChange('/nowhere/agent.json', { remove: 'svc0' })
    assert.match(outcome.ok ? '' : outcome.why, /^the process of the change ended without a word/)
  } finally {
    process.execPath = program
  }
})

test('without a descriptor left a look fails with its reason, and nothing else does', async () => {
  const looker = new Looker({ settings, program: { command: 'true', args: [] } })
  const said = await withoutDescriptors(() => looker.news().then(() => 'news', String))
  assert.match(said, /could not be looked at: spawn true EMFILE/)
})

test('without a descriptor left a change that would run apart says nothing, as one that can’t be started', async () => {
  assert.equal(await withoutDescriptors(() => runApart('no-such-verb', { request: {}, limitMs: 10_000 })), null)
})
