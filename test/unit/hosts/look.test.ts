import assert from 'node:assert/strict'
import { test } from 'node:test'
import { newsOf } from '../../../node-agent/inventory/look-process.ts'
import type { HostInventory } from '../../../node-agent/inventory/read-host.ts'

const inventory: HostInventory = {
  network: { nics: [], vswitches: [], routes: [], manager: 'none', unknown: [] },
  storage: { adapters: [], devices: [] },
}

test('another virtual address in the configuration is news, though nothing of the host has changed', () => {
  const settings = { networkFolder: '/nowhere', vips: [{ address: '10.1.0.100/24', interface: 'svc0' }] }
  const before = newsOf(inventory, settings)
  assert.deepEqual(newsOf(inventory, settings), before)
  assert.notEqual(newsOf(inventory, { ...settings, vips: [] }).sha256, before.sha256)
})
