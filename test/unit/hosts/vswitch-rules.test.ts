import assert from 'node:assert/strict'
import { test } from 'node:test'
import { showFault } from '../../../shared/hosts/fault.ts'
import { type Nic, networkDifferences, type ObservedVswitch, type Vswitch } from '../../../shared/hosts/network.ts'
import {
  deleteRefusal,
  type HostContext,
  serviceVipFaults,
  vswitchFaults,
} from '../../../shared/hosts/vswitch-rules.ts'

const nic = (name: string): Nic => ({
  name,
  mac: '02:00:00:00:00:01',
  driver: 'virtio_net',
  carrier: true,
  speedMbps: 10_000,
  mtu: 1500,
  master: null,
  addresses: [],
})
const wish = (change: Partial<Vswitch> = {}): Vswitch => ({
  name: 'svc0',
  backend: 'bridge',
  description: '',
  types: ['service'],
  vlan: null,
  nics: ['eth1'],
  bond: null,
  addresses: ['10.1.0.5/24'],
  gateways: [],
  mtu: 1500,
  ...change,
})
const observed = (change: Partial<ObservedVswitch> = {}): ObservedVswitch => ({
  ...wish({ name: 'mgmt0', types: ['management'], nics: ['eth0'], addresses: ['10.0.0.5/24'], gateways: ['10.0.0.1'] }),
  owned: true,
  ports: [],
  learned: [],
  ...change,
})
const context: HostContext = {
  nics: [
    ...['eth0', 'eth1', 'eth2'].map(nic),
    { ...nic('eth3'), addresses: ['10.7.0.5/24'] },
    ...['a;b', '-x'].map(nic),
    { ...nic('eth4'), master: 'bond0' },
  ],
  vswitches: [
    observed(),
    observed({ name: 'bak0', types: ['backup'], nics: [], addresses: ['10.2.0.5/24'], gateways: [] }),
  ],
  routes: [],
  peerAddresses: ['10.1.0.6'],
  vips: [
    { address: '10.1.0.100/24', vswitch: 'svc0' },
    { address: '10.3.0.100/24', vswitch: 'eth2' },
  ],
  peerPathDevices: ['mgmt0'],
}
const faults = (change: Partial<Vswitch>): string => vswitchFaults(wish(change), context).map(showFault).join('\n')

test('a sound wish has no fault', () => {
  assert.equal(faults({}), '')
  assert.equal(faults({ nics: ['eth1', 'eth3'], bond: 'lacp', vlan: 4094, mtu: 9000 }), '')
})

const wrong: [string, Partial<Vswitch>, RegExp][] = [
  [
    'a name too long for the kernel',
    { name: 'service-network-1' },
    /^name is "service-network-1" and must have at most 15 bytes/,
  ],
  ['a name with a slash', { name: 'svc/0' }, /^name is "svc\/0" and must begin with a letter/],
  ['a name the kernel uses', { name: 'all' }, /^name is "all"/],
  ['a description with a line break', { description: 'a\nb' }, /^description .* control characters/],
  ['no types', { types: [] }, /^types .* at least one/],
  [
    'a second backup network',
    { types: ['backup'] },
    /^types is "backup" and a host has one backup network at most; bak0 is it/,
  ],
  ['VLAN 4095', { vlan: 4095 }, /^vlan is "4095" and must be a whole number from 1 to 4094/],
  ['VLAN 0', { vlan: 0 }, /^vlan is "0"/],
  ['MTU 100', { mtu: 100 }, /^mtu is "100" and must be a whole number from 576 to 9216/],
  [
    'MTU 1000 with IPv6',
    { mtu: 1000, addresses: ['fd00::5/64'] },
    /^mtu is "1000" and must be a whole number from 1280/,
  ],
  [
    'a NIC that is not there',
    { nics: ['eth9'] },
    /^nics is "eth9" and must be a NIC of this host; it has eth0, eth1, eth2, eth3, a;b, -x, eth4/,
  ],
  ['a NIC that no file could name', { nics: ['a;b'] }, /^nics is "a;b" and must have a name of letters, digits/],
  ['a NIC that reads as an option', { nics: ['-x'] }, /^nics is "-x" and must have a name .* not begin with "-"/],
  ['the name of a NIC', { name: 'eth3' }, /^name is "eth3" and must not be the name of a NIC of this host/],
  ['a NIC that another one has', { nics: ['eth0'] }, /^nics is "eth0" and is used by the vSwitch mgmt0/],
  ['a NIC in a bond of somebody else', { nics: ['eth4'] }, /^nics is "eth4" and is a part of bond0: take it out/],
  ['a NIC twice', { nics: ['eth1', 'eth1'], bond: 'balance' }, /^nics .* once/],
  ['two NICs without a bond', { nics: ['eth1', 'eth3'] }, /^bond is "null" and must say how/],
  ['a bond of one', { bond: 'lacp' }, /^bond is "lacp" and must be null/],
  [
    'an address without a prefix',
    { addresses: ['10.1.0.5'] },
    /^addresses is "10.1.0.5" and must be an address with its prefix/,
  ],
  ['the address of the network', { addresses: ['10.1.0.0/24'] }, /this is the address of the network/],
  ['the broadcast address', { addresses: ['10.1.0.255/24'] }, /this is the broadcast address/],
  ['an address alone', { addresses: ['10.8.0.5/32'] }, /must have a prefix length from 1 to 31, that of its network/],
  ['an address alone, of IPv6', { addresses: ['fd08::5/128'] }, /must have a prefix length from 1 to 127/],
  ['an address of everything', { addresses: ['10.8.0.5/0'] }, /must have a prefix length from 1 to 31/],
  [
    'an address of a NIC beside it',
    { addresses: ['10.7.0.5/24'] },
    /^addresses is "10\.7\.0\.5\/24" and is an address of the NIC eth3, which is no part of this vSwitch/,
  ],
  ['a loopback address', { addresses: ['127.0.0.5/8'] }, /must be a unicast address/],
  ["the other host's address", { addresses: ['10.1.0.6/24'] }, /is an address of the other host/],
  ['a virtual address of the pair', { addresses: ['10.1.0.100/24'] }, /is a virtual address of the pair/],
  [
    'the network of another vSwitch',
    { addresses: ['10.0.0.77/24'] },
    /lies in the network of mgmt0 \(10\.0\.0\.5\/24\)/,
  ],
  [
    'a NIC with a virtual address',
    { nics: ['eth2'] },
    /^nics is "eth2" and carries the virtual address 10\.3\.0\.100\/24.*remove it first/,
  ],
  [
    'addresses beside the virtual one',
    { addresses: ['10.9.0.5/24'] },
    /^addresses is "10\.9\.0\.5\/24" and must have one in the segment of the virtual address 10\.1\.0\.100\/24/,
  ],
  ['a gateway elsewhere', { gateways: ['10.9.0.1'] }, /gateways is "10.9.0.1"/],
  ['a second default gateway', { gateways: ['10.1.0.1'] }, /second default gateway for IPv4; mgmt0 has one/],
  ['a gateway with a prefix', { gateways: ['10.1.0.1/24'] }, /without a prefix/],
]
for (const [what, change, rule] of wrong) {
  test(`${what} is refused with field, value and rule`, () => assert.match(faults(change), rule))
}

test('a gateway that every IPv6 link has is one where the vSwitch has IPv6', () => {
  const gateways = ['fe80::1']
  assert.match(faults({ gateways }), /gateways is "fe80::1" and must lie in the network/)
  assert.equal(faults({ gateways, addresses: ['10.1.0.5/24', 'fd01::5/64'] }), '')
})

test('a gateway does not take the place of the default route of another device', () => {
  const route = (device: string, metric: number | null) => ({
    destination: 'default',
    gateway: 'fd09::1',
    device,
    metric,
    protocol: null,
    weight: null,
  })
  const told = (routes: HostContext['routes']): string =>
    vswitchFaults(wish({ addresses: ['10.1.0.5/24', 'fd01::5/64'], gateways: ['fd01::1'] }), { ...context, routes })
      .map(showFault)
      .join('\n')
  assert.match(told([route('eth2', 1024)]), /^gateways is "fd01::1" and would take the place .* via fd09::1 on eth2/)
  assert.equal(told([route('eth1', 1024), route('eth2', 100)]), '')
})

test('what may not be deleted may not be changed into something else either', () => {
  const management = { name: 'mgmt0', nics: ['eth0'], addresses: ['10.0.0.5/24'] }
  assert.match(
    faults({ ...management, types: ['service'] }),
    /^types is "service" and must keep management: this is the only/,
  )
  const inUse = { ...context, vswitches: [observed({ ports: ['vnet0'] })] }
  const other = vswitchFaults(wish({ ...management, types: ['management'], backend: 'ovs' }), inUse).map(showFault)
  assert.match(other.join('\n'), /^backend is "ovs" and must stay bridge while vnet0 are connected/)
})

test('a vSwitch that is needed is not deleted, and the reason says for what', () => {
  const only = { ...context, vswitches: [observed()] }
  assert.match(deleteRefusal('mgmt0', only) ?? '', /the only management vSwitch/)
  const second = observed({ name: 'mgmt1', nics: ['eth2'] })
  const two = { ...context, vswitches: [observed(), second] }
  assert.match(deleteRefusal('mgmt0', two) ?? '', /heartbeats between the hosts run over mgmt0/)
  assert.equal(deleteRefusal('mgmt1', two), null)
  const busy = { ...context, vswitches: [observed(), observed({ name: 'mgmt1', ports: ['vnet0', 'vnet1'] })] }
  assert.match(deleteRefusal('mgmt1', busy) ?? '', /in use by vnet0, vnet1/)
  const withVip = { ...context, vswitches: [...context.vswitches, observed({ name: 'svc0', types: ['service'] })] }
  assert.match(deleteRefusal('svc0', withVip) ?? '', /the virtual address 10\.1\.0\.100\/24 is on svc0/)
  assert.match(deleteRefusal('nope', context) ?? '', /there is no vSwitch nope; this host has mgmt0, bak0/)
})

test("a service VIP lies in the segment of both hosts' addresses, or the refusal names both", () => {
  const on = (...addresses: string[]) => ({ addresses })
  const vip = { address: '10.1.0.100/24', vswitch: 'svc0' }
  assert.deepEqual(serviceVipFaults(vip, { a: on('10.1.0.5/24'), b: on('10.1.0.6/24') }), [])
  const [fault] = serviceVipFaults(vip, { a: on('10.1.0.5/24'), b: on('10.3.0.6/24') })
  assert.match(fault?.rule ?? '', /host b has 10\.3\.0\.6\/24 on svc0/)
  const both = serviceVipFaults(vip, { a: on(), b: null })
  assert.match(both[0]?.rule ?? '', /host a has no address on svc0; host b has no vSwitch svc0/)
  assert.match(
    serviceVipFaults({ ...vip, address: '10.1.0.5/24' }, { a: on('10.1.0.5/24'), b: on('10.1.0.6/24') })[0]?.rule ?? '',
    /host a/,
  )
  assert.match(
    serviceVipFaults({ ...vip, address: '10.1.0.100/25' }, { a: on('10.1.0.5/24'), b: on('10.1.0.6/24') })[0]?.rule ??
      '',
    /segment/,
  )
})

test('what differs between the hosts so that a takeover would suffer is said', () => {
  const a = [observed(), observed({ name: 'svc0', vlan: 10 })]
  const b = [observed({ mtu: 9000, addresses: ['10.0.0.6/24'] })]
  assert.deepEqual(networkDifferences({ a, b }), [
    { why: 'the vSwitch mgmt0 has MTU 1500 on a and 9000 on b', blocks: false },
    { why: 'the vSwitch svc0 is on a and not on b', blocks: true },
  ])
  const untagged = [observed(), observed({ name: 'svc0', vlan: null })]
  assert.deepEqual(networkDifferences({ a, b: untagged }), [
    { why: 'the vSwitch svc0 has VLAN 10 on a and null on b', blocks: true },
  ])
  assert.deepEqual(networkDifferences({ a, b: a }), [])
})
