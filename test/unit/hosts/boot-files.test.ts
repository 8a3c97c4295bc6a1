import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { bootFiles, ownFiles } from '../../../node-agent/network/boot-files.ts'
import { parseKernelRoutes } from '../../../node-agent/network/kernel-routes.ts'
import { findManager } from '../../../node-agent/network/managers.ts'
import { bondName, planChange, vlanName } from '../../../node-agent/network/plan.ts'
import { writeBootFiles } from '../../../node-agent/network/write-boot-files.ts'
import type { HostNetwork, Vswitch } from '../../../shared/hosts/network.ts'

const vswitch: Vswitch = {
  name: 'svc0',
  backend: 'bridge',
  description: 'clients',
  types: ['service'],
  vlan: 10,
  nics: ['eth1', 'eth2'],
  bond: 'lacp',
  addresses: ['10.1.0.5/24'],
  gateways: ['10.1.0.1'],
  mtu: 9000,
}

test('what the host uses at boot is found from its files', () => {
  const cases: [string, string[]][] = [
    ['netplan', ['etc/netplan/50-cloud-init.yaml']],
    ['systemd-networkd', ['etc/systemd/network/10-eth0.network']],
    ['NetworkManager', ['etc/systemd/system/multi-user.target.wants/NetworkManager.service']],
    ['ifupdown', ['etc/network/interfaces']],
    ['none', []],
  ]
  for (const [manager, files] of cases) {
    const root = mkdtempSync(join(tmpdir(), 'understudy-boot-'))
    for (const file of files) {
      mkdirSync(dirname(join(root, file)), { recursive: true })
      writeFileSync(join(root, file), 'auto lo\niface lo inet loopback\n')
    }
    assert.equal(findManager(root), manager)
    rmSync(root, { recursive: true })
  }
})

for (const manager of ['systemd-networkd', 'ifupdown', 'netplan'] as const) {
  test(`${manager}: every file is ours by name and by mark, and says bridge, bond, VLAN, address and gateway`, () => {
    const files = bootFiles(manager, [vswitch]) ?? []
    assert.ok(files.length > 0)
    for (const file of files) {
      assert.ok(
        ownFiles.some(pattern => pattern.test(file.path)),
        file.path,
      )
      assert.match(file.text, /^# Written by Understudy/)
    }
    const all = files.map(file => file.text).join('\n')
    for (const word of ['bd-svc0', 'bd-svc0.10', '10.1.0.5/24', '10.1.0.1', '802.3ad', '9000'])
      assert.ok(all.includes(word), `${manager} does not say ${word}:\n${all}`)
  })
}

for (const [manager, mode] of [
  ['systemd-networkd', 0o644],
  ['ifupdown', 0o644],
] as const) {
  test(`the files of ${manager} can be read by whoever brings the network up, whatever the agent’s umask`, async () => {
    const root = mkdtempSync(join(tmpdir(), 'understudy-boot-'))
    const umask = process.umask(0o077)
    try {
      await writeBootFiles({ root, manager }, [vswitch])
      const files = bootFiles(manager, [vswitch]) ?? []
      for (const { path } of files) {
        assert.equal(statSync(join(root, path)).mode & 0o777, mode, path)
        assert.equal(statSync(dirname(join(root, path))).mode & 0o777, 0o755)
      }
    } finally {
      process.umask(umask)
      rmSync(root, { recursive: true })
    }
  })
}

test('networkd is told to keep addresses that it did not set: the pair’s virtual ones', () => {
  const own = bootFiles('systemd-networkd', [vswitch])?.find(file => file.path.endsWith('70-understudy-svc0.network'))
  assert.match(own?.text ?? '', /KeepConfiguration=yes/)
})

test('a host without such files is left to the agent', () => {
  assert.equal(bootFiles('none', [vswitch]), null)
})

test('names that are made fit into the kernel’s 15 bytes, and what is cut off still tells them apart', () => {
  assert.equal(bondName('a-name-of-15-by').length, 15)
  assert.notEqual(bondName('a-name-of-15-by'), bondName('a-name-of-15-bx'))
  assert.equal(vlanName('enp129s0f1', 4094), 'enp129s0f1.4094')
  assert.match(vlanName('enp129s0f1np1', 4094), /^enp129[0-9a-f]{4}\.4094$/)
  assert.notEqual(vlanName('enp129s0f1np0', 10), vlanName('enp129s0f1np1', 10))
})

const host: HostNetwork = {
  nics: ['eth1', 'eth2'].map(name => ({
    name,
    mac: '',
    driver: 'virtual',
    carrier: true,
    speedMbps: null,
    mtu: 1500,
    master: null,
    addresses: name === 'eth1' ? ['10.1.0.5/24'] : [],
  })),
  vswitches: [],
  routes: [],
  manager: 'none',
  unknown: [],
}

test('the address and the default route of a NIC move to its vSwitch, and back where the change is taken back', () => {
  const routes = parseKernelRoutes('default via 10.1.0.1 dev eth1 proto dhcp metric 100 linkdown \n', '-4')
  const steps = planChange({ from: null, to: vswitch, host, routes, ovsDatapath: 'system' })
  const done = steps.flatMap(step => (step.argv === null ? [] : [step.argv.join(' ')]))
  const undo = steps
    .filter(step => step.undo !== null)
    .reverse()
    .map(step => step.undo!.join(' '))
  const order = (list: string[], ...texts: string[]) => {
    const at = texts.map(text => list.indexOf(text))
    assert.ok(
      at.every(index => index >= 0),
      `missing one of ${texts.join(' | ')} in\n${list.join('\n')}`,
    )
    assert.deepEqual(
      at,
      [...at].sort((x, y) => x - y),
      list.join('\n'),
    )
  }
  order(
    done,
    'ip -4 route del default via 10.1.0.1 dev eth1 proto dhcp metric 100',
    'ip address del 10.1.0.5/24 dev eth1',
    'ip link add name svc0 type bridge',
    'ip link set bd-svc0.10 master svc0',
    'ip address add 10.1.0.5/24 dev svc0',
    'ip -4 route replace default via 10.1.0.1 dev svc0',
  )
  order(
    undo,
    'ip -4 route del default via 10.1.0.1 dev svc0',
    'ip address del 10.1.0.5/24 dev svc0',
    'ip link del svc0',
    'ip address add 10.1.0.5/24 dev eth1',
    'ip -4 route replace default via 10.1.0.1 dev eth1 proto dhcp metric 100',
  )
})

test('a larger MTU comes from below and a smaller one from above, a VLAN and a bond between them, and so does its way back', () => {
  const order = (from: number, to: number) => {
    const there = { ...vswitch, mtu: from, owned: true, ports: [], learned: [] }
    const now = { ...host, nics: host.nics.map(nic => ({ ...nic, mtu: from })) }
    const steps = planChange({ from: there, to: { ...vswitch, mtu: to }, host: now, routes: [], ovsDatapath: 'system' })
    const devices = (lines: (readonly string[] | null)[]) => lines.map(line => line?.[3])
    return [devices(steps.map(step => step.argv)), devices(steps.map(step => step.undo).reverse())]
  }
  const up = ['eth1', 'eth2', 'bd-svc0', 'bd-svc0.10', 'svc0']
  const down = [...up].reverse()
  assert.deepEqual(order(1500, 9000), [up, down])
  assert.deepEqual(order(9000, 1500), [down, up])
})

test('the way back of a deleted vSwitch brings everything up again: NICs, bond, VLAN, the vSwitch itself', () => {
  const there = { ...vswitch, owned: true, ports: [], learned: [] }
  const steps = planChange({ from: there, to: null, host, routes: [], ovsDatapath: 'system' })
  const back = steps.flatMap(step => (step.undo === null ? [] : [step.undo.join(' ')])).reverse()
  for (const [device, made] of [
    ['bd-svc0', 'ip link add name bd-svc0 type bond'],
    ['bd-svc0.10', 'ip link add link bd-svc0 name bd-svc0.10 type vlan'],
    ['svc0', 'ip link add name svc0 type bridge'],
  ] as const) {
    const at = back.findIndex(line => line.startsWith(made))
    assert.ok(at >= 0, back.join('\n'))
    assert.ok(
      back.findIndex(line => line.startsWith(`ip link set ${device} `) && line.endsWith(' up')) > at,
      back.join('\n'),
    )
  }
})

test('Open vSwitch is changed in one transaction with a time limit', () => {
  const [first] = planChange({
    from: null,
    to: { ...vswitch, backend: 'ovs' },
    host,
    routes: [],
    ovsDatapath: 'netdev',
  }).filter(step => step.argv?.[0] === 'ovs-vsctl')
  const text = first?.argv?.join(' ') ?? ''
  assert.match(text, /^ovs-vsctl --timeout=10 --may-exist add-br svc0 -- set bridge svc0 datapath_type=netdev -- /)
  assert.match(text, /add-bond svc0 bd-svc0 eth1 eth2 bond_mode=balance-tcp lacp=active -- set port svc0 tag=10/)
  assert.equal(first?.undo?.join(' '), 'ovs-vsctl --timeout=10 --if-exists del-br svc0')
})
