import assert from 'node:assert/strict'
import { test } from 'node:test'
import { peersOf } from '../../node-agent/drivers/gate-port.ts'

test('the interface of a path is looked for until it is found, and stays when its address goes again', () => {
  const held = new Map([['10.0.0.1', 'lan0']])
  let looks = 0
  const find = (address: string): string | null => {
    looks += 1
    return held.get(address) ?? null
  }
  const paths = [
    { local: '10.9.1.1', peer: '10.9.1.2', port: 7 },
    { local: '10.0.0.1', peer: '10.0.0.2', port: 7 },
  ]
  const peers = peersOf(paths, find)
  const lan = { iface: 'lan0', address: '10.0.0.2' }
  const direct = { iface: 'pl0', address: '10.9.1.2' }
  assert.deepEqual(peers(), [lan])
  held.set('10.9.1.1', 'pl0')
  assert.deepEqual(peers(), [direct, lan])
  held.clear()
  const before = looks
  assert.deepEqual(peers(), [direct, lan])
  assert.equal(looks, before)
})
