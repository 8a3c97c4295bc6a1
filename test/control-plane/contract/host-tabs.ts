import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  changeInitiatorName,
  deleteVswitch,
  discoverTargets,
  getNetwork,
  getStorage,
  putVswitch,
  scanStorage,
  takeInventory,
} from '../../../shared/contract/api/host-tabs.ts'
import { getOperation } from '../../../shared/contract/api/operations.ts'
import { changeSettings, getPair, getPrechecks } from '../../../shared/contract/api/pairs.ts'
import type { HostSummary } from '../../../shared/contract/host-summary.ts'
import type { HostNetwork, ObservedVswitch } from '../../../shared/hosts/network.ts'
import type { TestHost } from '../support/host.ts'
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
  learned: [],
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

const summary = (more: Partial<HostSummary> = {}): HostSummary => ({
  v: 1,
  vswitches: [{ name: 'vs0', backend: 'bridge', vlan: null, mtu: 1500, types: ['management'] }],
  networks: [{ name: 'eth0', addresses: ['10.9.0.1/24', 'fd09::1/64'] }],
  vips: [],
  initiatorName: null,
  luns: [],
  lunsLeftOut: 0,
  ...more,
})
const lun = { wwid: 'naa.6001405abc', name: 'sdb', sizeBytes: 2 ** 30, up: true, used: true }
let seq = 0
/** As an agent tells of its own accord, after a change. */
async function told(host: TestHost, part: Partial<HostSummary> = {}, storage: Record<string, unknown> = {}) {
  seq += 1
  const sent = await host.cloud.inventory({
    v: 1,
    boot: 1,
    seq,
    summary: summary(part),
    network: { ...network },
    storage,
  })
  assert.ok(sent.ok, sent.ok ? '' : sent.why)
  return sent.value as { stored: boolean }
}

export function hostTabTests(runtime: () => Runtime): void {
  test('the tabs of a host show what it told when it was asked, and never make something up', async () => {
    const pair = await adoptedPair(runtime())
    const params = { host: pair.a.identity.host }
    const before = await pair.client.call(getNetwork, { params })
    assert.deepEqual(before.body, { asOf: null, inventory: null, readOnly: null })
    await inventoryTaken(pair)
    const { body } = await pair.client.call(getNetwork, { params })
    assert.deepEqual((body.inventory as unknown as HostNetwork).nics.length, 2)
    assert.deepEqual((await pair.client.call(getStorage, { params })).body.inventory, { adapters: [], devices: [] })
  })

  test('a host tells of its networks and storage by itself, a large one too, and an older telling changes nothing', async () => {
    const { client, a } = await adoptedPair(runtime())
    const params = { host: a.identity.host }
    const devices = Array.from({ length: 2000 }, (_, i) => ({
      name: `sd${i}`,
      wwid: `naa.600${i}`,
      usedBy: ['x'.repeat(200)],
    }))
    assert.deepEqual(await told(a, {}, { adapters: [], devices }), { stored: true })
    const { body } = await client.call(getStorage, { params })
    assert.equal((body.inventory as { devices: unknown[] }).devices.length, 2000)
    const late = { v: 1 as const, boot: 1, seq: 0, summary: summary(), network: {}, storage: {} }
    assert.deepEqual(await a.cloud.inventory(late), { ok: true, value: { stored: false } })
    assert.deepEqual((await client.call(getNetwork, { params })).body.inventory, { ...network })
  })

  test('a LUN that only one host sees and a vSwitch that differs are findings of the prechecks', async () => {
    const { client, id, a, b } = await adoptedPair(runtime())
    const finding = async (code: string) => {
      const { body } = await client.call(getPrechecks, { params: { pair: id } })
      return body.results.find(one => one.code === code)
    }
    assert.equal((await finding('shared_luns'))?.severity, 'unknown')
    await told(a, { luns: [lun] })
    await told(b, { luns: [lun] })
    assert.equal((await finding('shared_luns'))?.severity, 'passed')
    assert.equal((await finding('vswitches'))?.severity, 'passed')
    await told(b, { vswitches: [] })
    const missing = await finding('shared_luns')
    assert.deepEqual([missing?.severity, missing?.host], ['blocking', null])
    assert.match(missing?.measured ?? '', /LUN naa\.6001405abc \(sdb\) is seen by a and not by b/)
    assert.match((await finding('vswitches'))?.measured ?? '', /the vSwitch vs0 is on a and not on b/)
  })

  test('a new virtual address outside of the segment of one host is refused, with what both have there', async () => {
    const { client, id, a, b } = await adoptedPair(runtime())
    await told(a)
    await told(b, { networks: [{ name: 'eth0', addresses: ['10.9.0.2/24'] }] })
    const { etag, body } = await client.call(getPair, { params: { pair: id } })
    const add = (address: string) =>
      client.call(changeSettings, {
        params: { pair: id },
        body: { vips: [...body.settings.vips, { address, interface: 'eth0', network: 'service' as const }] },
        ifMatch: etag!,
      })
    await assert.rejects(add('fd09::100/64'), (error: unknown) => {
      refusal('invalid', 422)(error)
      assert.match(String(error), /body\.vips\.1\.address.*segment of both hosts.*host b has 10\.9\.0\.2\/24 on eth0/)
      return true
    })
    await assert.rejects(
      add('10.8.0.100/24'),
      /host a has 10\.9\.0\.1\/24, fd09::1\/64 on eth0; host b has 10\.9\.0\.2\/24 on eth0/,
    )
    assert.equal((await add('10.9.0.101/24')).status, 200)
  })

  test('an iSCSI name that another host of the organisation has is refused, with that host', async () => {
    const { client, a, b } = await adoptedPair(runtime())
    await told(a)
    await told(b, { initiatorName: 'iqn.2026-01.example.host:b' })
    const change = (name: string) =>
      client.call(changeInitiatorName, { params: { host: a.identity.host }, body: { name } })
    await assert.rejects(change('iqn.2026-01.example.host:b'), (error: unknown) => {
      refusal('invalid', 422)(error)
      assert.match(String(error), /host beta has it/)
      return true
    })
    assert.equal((await change('iqn.2026-01.example.host:a')).status, 202)
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
    assert.deepEqual(command.args, { adapters: ['host3'], lip: false, limitSeconds: 120 })
    await a.ack(command, { phase: 'done', result: { change: { added: ['x'], removed: [] } } })
    const done = await client.call(getOperation, { params: { operation: begun.body.id }, wait: 10 })
    assert.deepEqual(done.body.result, { change: { added: ['x'], removed: [] } })
    assert.equal(
      (await client.call(changeInitiatorName, { params, body: { name: 'iqn.2026-01.example.host:a' } })).status,
      202,
    )
  })

  test('a portal is asked and a LIP is made by a command to the host, and what breaks a rule is refused before', async () => {
    const { client, a } = await adoptedPair(runtime())
    const params = { host: a.identity.host }
    const adapter = (name: string, kind: string) => ({ name, kind })
    await told(a, {}, { adapters: [adapter('host0', 'scsi'), adapter('host3', 'fc')], devices: [] })
    const refusals: [() => Promise<unknown>, RegExp][] = [
      [
        () => client.call(discoverTargets, { params, body: { portal: 'storage.example' } }),
        /portal.*IPv4 or IPv6 address/,
      ],
      [() => client.call(scanStorage, { params, body: { lip: true } }), /lip.*with the names of the adapters/],
      [
        () => client.call(scanStorage, { params, body: { lip: true, adapters: ['host0'] } }),
        /lip.*host0 is of kind scsi/,
      ],
    ]
    for (const [asked, why] of refusals)
      await assert.rejects(asked(), (error: unknown) => {
        refusal('invalid', 422)(error)
        assert.match(String(error), why)
        return true
      })
    const lip = await client.call(scanStorage, { params, body: { lip: true, adapters: ['host3'], limitSeconds: 20 } })
    const scan = await a.nextCommand()
    assert.deepEqual(scan.args, { adapters: ['host3'], lip: true, limitSeconds: 20 })
    await a.ack(scan, { phase: 'done', result: {} })
    assert.equal(
      (await client.call(getOperation, { params: { operation: lip.body.id }, wait: 10 })).body.state,
      'succeeded',
    )
    const begun = await client.call(discoverTargets, { params, body: { portal: '10.0.0.9' } })
    const command = await a.nextCommand()
    assert.deepEqual([command.verb, command.args], ['storageDiscovery', { portal: '10.0.0.9' }])
    const targets = [{ portal: '10.0.0.9:3260', name: 'iqn.2026-01.example.store:data' }]
    await a.ack(command, { phase: 'done', result: { targets } })
    const done = await client.call(getOperation, { params: { operation: begun.body.id }, wait: 10 })
    assert.deepEqual(
      [done.body.kind, done.body.state, done.body.result],
      ['storageDiscovery', 'succeeded', { targets }],
    )
  })

  test('in converged mode the tabs of a host are shown with the reason why nothing is changed there, and every change is refused', async () => {
    const { client, id, a } = await adoptedPair(runtime())
    const { etag } = await client.call(getPair, { params: { pair: id } })
    await client.call(changeSettings, { params: { pair: id }, body: { mode: 'converged' }, ifMatch: etag! })
    const params = { host: a.identity.host }
    const plain = (error: unknown): boolean => {
      refusal('conflict', 409)(error)
      assert.match(String(error), /managed by the cluster/)
      return true
    }
    await told(a)
    for (const shown of [getNetwork, getStorage]) {
      const { body } = await client.call(shown, { params })
      assert.ok(body.inventory !== null)
      assert.match(body.readOnly ?? '', /managed by the cluster/)
    }
    await assert.rejects(client.call(scanStorage, { params, body: {} }), plain)
    await assert.rejects(client.call(discoverTargets, { params, body: { portal: '10.0.0.9' } }), plain)
    await assert.rejects(client.call(deleteVswitch, { params: { ...params, vswitch: 'vs0' } }), plain)
  })
}
