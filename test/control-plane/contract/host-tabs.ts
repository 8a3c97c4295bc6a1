import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  changeInitiatorName,
  deleteVswitch,
  getNetwork,
  getStorage,
  putVswitch,
  scanStorage,
  takeInventory,
} from '../../../shared/contract/api/host-tabs.ts'
import { getOperation } from '../../../shared/contract/api/operations.ts'
import { changeSettings, getPair } from '../../../shared/contract/api/pairs.ts'
import type { HostNetwork, ObservedVswitch } from '../../../shared/hosts/network.ts'
import { adoptedPair, type TestPair } from '../support/pair.ts'
import type { Runtime } from '../support/runtime.ts'
import { refusal } from './tenancy.ts'

const vswitch = (change: Partial<ObservedVswitch>): ObservedVswitch => ({
  name: 'vs0',
  backend: 'bridge',
  description: '',
  types: ['management'],
  vlan: null,
  nics: ['eth0'],
  bond: null,
  addresses: ['10.9.0.1/24'],
  gateways: [],
  mtu: 1500,
  owned: true,
  ports: [],
  ...change,
})
const network: HostNetwork = {
  nics: ['eth0', 'eth1'].map(name => ({
    name,
    mac: '02:00:00:00:00:01',
    driver: 'virtio_net',
    carrier: true,
    speedMbps: null,
    mtu: 1500,
    master: null,
    addresses: [],
  })),
  vswitches: [vswitch({})],
  routes: [],
  manager: 'none',
  unknown: [],
}

/** As an agent answers. */
async function inventoryTaken({ client, a }: TestPair): Promise<void> {
  const host = a.identity.host
  const begun = await client.call(takeInventory, { params: { host } })
  assert.equal(begun.status, 202)
  const command = await a.nextCommand()
  assert.deepEqual([command.verb, command.pair, command.only], ['inventory', null, {}])
  await a.ack(command, { phase: 'done', result: { network: { ...network }, storage: { adapters: [], devices: [] } } })
  const done = await client.call(getOperation, { params: { operation: begun.body.id }, wait: 10 })
  assert.equal(done.body.state, 'succeeded', done.body.message)
}

export function hostTabTests(runtime: () => Runtime): void {
  test('the tabs of a host show what it told when it was asked, and never make something up', async () => {
    const pair = await adoptedPair(runtime())
    const params = { host: pair.a.identity.host }
    const before = await pair.client.call(getNetwork, { params })
    assert.deepEqual(before.body, { asOf: null, inventory: null })
    await inventoryTaken(pair)
    const { body } = await pair.client.call(getNetwork, { params })
    assert.deepEqual((body.inventory as unknown as HostNetwork).nics.length, 2)
    assert.deepEqual((await pair.client.call(getStorage, { params })).body.inventory, { adapters: [], devices: [] })
  })

  test('a virtual switch that breaks a rule of the host is refused with each field, and one in use is not deleted', async () => {
    const pair = await adoptedPair(runtime())
    const params = { host: pair.a.identity.host }
    const wish = { name: 'vs1', types: ['service' as const], nics: ['eth1'], addresses: ['10.8.0.1/24'] }
    await assert.rejects(pair.client.call(putVswitch, { params, body: wish }), refusal('conflict', 409))
    await inventoryTaken(pair)
    await assert.rejects(
      pair.client.call(putVswitch, { params, body: { ...wish, name: 'all', nics: ['eth9'], mtu: 100 } }),
      (error: unknown) => {
        refusal('invalid', 422)(error)
        const { violations } = (error as { problem: { violations: { field: string }[] } }).problem
        const fields = new Set(violations.map(one => one.field.split(/[.[]/)[1]))
        for (const field of ['name', 'nics', 'mtu']) assert.ok(fields.has(field), JSON.stringify(violations))
        return true
      },
    )
    await assert.rejects(
      pair.client.call(deleteVswitch, { params: { ...params, vswitch: 'vs0' } }),
      refusal('conflict', 409),
    )
    const begun = await pair.client.call(putVswitch, { params, body: wish })
    const command = await pair.a.nextCommand()
    assert.deepEqual([command.verb, (command.args.put as { name: string }).name], ['vswitch', 'vs1'])
    await assert.rejects(
      pair.client.call(scanStorage, { params, body: {} }),
      refusal('operation_in_progress', 409),
      'one at a time for each host',
    )
    await pair.a.ack(command, { phase: 'refused', message: 'not from afar' })
    const ended = await pair.client.call(getOperation, { params: { operation: begun.body.id }, wait: 10 })
    assert.deepEqual([ended.body.state, ended.body.message.includes('not from afar')], ['failed', true])
  })

  test('a scan and an iSCSI name are commands to the host, and a name that is none is refused before', async () => {
    const { client, a } = await adoptedPair(runtime())
    const params = { host: a.identity.host }
    await assert.rejects(
      client.call(changeInitiatorName, { params, body: { name: 'not an iqn' } }),
      refusal('invalid', 422),
    )
    const begun = await client.call(scanStorage, { params, body: { adapters: ['host3'] } })
    const command = await a.nextCommand()
    assert.deepEqual(command.args, { adapters: ['host3'], limitSeconds: 120 })
    await a.ack(command, { phase: 'done', result: { change: { added: ['x'], removed: [] } } })
    const done = await client.call(getOperation, { params: { operation: begun.body.id }, wait: 10 })
    assert.deepEqual(done.body.result, { change: { added: ['x'], removed: [] } })
    assert.equal(
      (await client.call(changeInitiatorName, { params, body: { name: 'iqn.2026-01.example.host:a' } })).status,
      202,
    )
  })

  test('in converged mode the tabs of a host are its cluster’s, and every route of them says so', async () => {
    const { client, id, a } = await adoptedPair(runtime())
    const { etag } = await client.call(getPair, { params: { pair: id } })
    await client.call(changeSettings, { params: { pair: id }, body: { mode: 'converged' }, ifMatch: etag! })
    const params = { host: a.identity.host }
    const plain = (error: unknown): boolean => {
      refusal('conflict', 409)(error)
      assert.match(String(error), /managed by the cluster/)
      return true
    }
    await assert.rejects(client.call(getNetwork, { params }), plain)
    await assert.rejects(client.call(getStorage, { params }), plain)
    await assert.rejects(client.call(takeInventory, { params }), plain)
    await assert.rejects(client.call(scanStorage, { params, body: {} }), plain)
    await assert.rejects(client.call(deleteVswitch, { params: { ...params, vswitch: 'vs0' } }), plain)
  })
}
