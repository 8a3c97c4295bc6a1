import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { HostComparison, summaryVerb } from '../../../node-agent/inventory/comparison.ts'
import { parseAddresses } from '../../../node-agent/network/ip-json.ts'
import { foreignBootFile } from '../../../node-agent/network/managers.ts'
import type { PeerAnswer } from '../../../node-agent/ports.ts'
import { leftBehind } from '../../../node-agent/vip/left-behind.ts'
import type { HostSummary } from '../../../shared/contract/host-summary.ts'
import { newVipFaults, summaryDifferences } from '../../../shared/hosts/summary.ts'

const summary = (more: Partial<HostSummary> = {}): HostSummary => ({
  v: 1,
  vswitches: [{ name: 'svc0', backend: 'bridge', vlan: null, mtu: 1500, types: ['service'] }],
  networks: [{ name: 'svc0', addresses: ['10.1.0.5/24', 'fd01::5/64'] }],
  vips: [],
  initiatorName: null,
  luns: [],
  lunsLeftOut: 0,
  ...more,
})
const other = (more: Partial<HostSummary> = {}): HostSummary =>
  summary({ networks: [{ name: 'svc0', addresses: ['10.1.0.6/24', 'fd01::6/64'] }], ...more })

test('a virtual address that only one host knows, or that lies in the segment of one, stands in the way of a takeover', () => {
  const vips = [{ address: '10.1.0.100/24', interface: 'svc0' }]
  assert.deepEqual(summaryDifferences({ a: summary({ vips }), b: other({ vips }) }), [])
  const [alone] = summaryDifferences({ a: summary({ vips }), b: other() })
  assert.match(alone?.why ?? '', /10\.1\.0\.100\/24 is in the configuration of a and not of b/)
  assert.equal(alone?.blocks, true)
  const elsewhere = other({ vips, networks: [{ name: 'svc0', addresses: ['10.3.0.6/24'] }] })
  const [outside] = summaryDifferences({ a: summary({ vips }), b: elsewhere })
  assert.match(
    outside?.why ?? '',
    /segment of both hosts' addresses on that vSwitch: host b has 10\.3\.0\.6\/24 on svc0/,
  )
})

test('a new virtual address is held against both hosts, each named with what it has', () => {
  const both = { a: summary(), b: other({ networks: [] }) }
  assert.deepEqual(newVipFaults({ address: 'fd01::100/64', interface: 'svc0' }, { a: summary(), b: other() }), [])
  assert.match(
    newVipFaults({ address: '10.9.0.1/24', interface: 'svc0' }, both)[0] ?? '',
    /host a has 10\.1\.0\.5\/24.*host b has no address on svc0/,
  )
})

test('two hosts with one iSCSI name are told so', () => {
  const initiatorName = 'iqn.2026-01.example:host'
  const found = summaryDifferences({ a: summary({ initiatorName }), b: other({ initiatorName }) })
  assert.match(found[0]?.why ?? '', /both hosts have the iSCSI name iqn\.2026-01\.example:host/)
})

/** Two comparisons that ask each other, over a link that can be cut. */
function twoHosts() {
  let cut = false
  let answers = 0
  const made: Partial<Record<'a' | 'b', HostComparison>> = {}
  const linkTo = (there: 'a' | 'b') => ({
    ask: async ({ verb, body }: { verb: string; body: unknown }): Promise<PeerAnswer> => {
      assert.equal(verb, summaryVerb)
      if (cut) return { ok: false, why: 'cut' }
      const answer = made[there]!.answer(body)
      if (answer.summary !== null) answers += 1
      return { ok: true, body: answer }
    },
  })
  made.a = new HostComparison('a', linkTo('b'))
  made.b = new HostComparison('b', linkTo('a'))
  const tick = async (now: number): Promise<void> => {
    for (const host of ['a', 'b'] as const) made[host]!.tick(now)
    await new Promise(resolve => setImmediate(resolve))
  }
  return {
    a: made.a,
    b: made.b,
    tick,
    answers: () => answers,
    cut: () => {
      cut = true
    },
  }
}

test('both hosts see what differs, ask again without an answer in calm, and know nothing of one that is silent', async () => {
  const { a, b, tick, answers, cut } = twoHosts()
  await tick(1)
  assert.equal(a.theirs, null, 'the other one has not looked yet')
  a.take({ sha256: 'a1', summary: summary() })
  b.take({ sha256: 'b1', summary: other({ vswitches: [] }) })
  await tick(10_001)
  for (const one of [a, b]) assert.match(one.trouble(), /the vSwitch svc0 is on a and not on b/)
  await tick(20_001)
  await tick(30_001)
  assert.equal(answers(), 2, 'each summary travelled once')
  b.take({ sha256: 'b2', summary: other() })
  await tick(40_001)
  assert.equal(a.trouble(), '')
  b.take({ sha256: 'b3', summary: other({ vswitches: [] }) })
  await tick(50_001)
  assert.notEqual(a.trouble(), '')
  cut()
  await tick(200_000)
  assert.deepEqual([a.trouble(), a.theirs], ['', null])
})

test('what is new of one host is asked for by the other one at once, and once', async () => {
  const { a, b, tick, answers } = twoHosts()
  a.take({ sha256: 'a1', summary: summary() })
  b.take({ sha256: 'b1', summary: other({ vswitches: [] }) })
  await tick(1)
  await tick(101)
  assert.match(a.trouble(), /the vSwitch svc0 is on a and not on b/)
  const before = answers()
  b.take({ sha256: 'b2', summary: other() })
  for (let now = 201; now < 5000; now += 100) await tick(now)
  assert.equal(a.trouble(), '')
  assert.equal(answers(), before + 1)
})

test('an address of the pair is no address of the host that happens to hold it, however it is written', () => {
  const text = JSON.stringify([
    {
      ifname: 'svc0',
      addr_info: [
        { local: '10.1.0.5', prefixlen: 24, scope: 'global' },
        { local: '10.1.0.100', prefixlen: 24, scope: 'global' },
        { local: 'fd01::100', prefixlen: 64, scope: 'global' },
      ],
    },
  ])
  assert.deepEqual(parseAddresses(text, ['10.1.0.100/24', 'fd01:0:0::100/64']).get('svc0'), {
    all: ['10.1.0.5/24'],
    learned: [],
  })
})

test('of the addresses before, those are taken off that are gone or stand elsewhere now', () => {
  const vip = (address: string, on: string) => ({ address, interface: on })
  const before = [vip('10.1.0.100/24', 'svc0'), vip('10.1.0.101/24', 'svc0'), vip('10.1.0.102/24', 'lan0')]
  const now = [vip('10.1.0.100/24', 'svc0'), vip('10.1.0.102/24', 'svc0')]
  assert.deepEqual(leftBehind(before, now), [before[1], before[2]])
  assert.deepEqual(leftBehind([], now), [])
})

const bootFiles: [string, string][] = [
  ['/etc/network/interfaces', 'auto lo br0\niface br0 inet static\n  bridge_ports eth1\n'],
  ['/etc/network/interfaces.d/bridge', 'allow-hotplug br0\n'],
  ['/etc/systemd/network/10-bridge.netdev', '[NetDev]\nName=br0\nKind=bridge\n'],
  ['/etc/systemd/network/20-bridge.netdev', '[NetDev]\r\nName = br0\r\nKind = bridge'],
  ['/etc/netplan/02.yaml', 'network: {bridges: {"br0": {mtu: 1500}}}'],
  ['/etc/netplan/01.yaml', 'network:\n  bridges:\n    br0:\n      mtu: 1500\n'],
]
for (const [path, text] of bootFiles) {
  test(`${path} of somebody else is seen to bring a bridge up, and no other one`, () => {
    const root = mkdtempSync(join(tmpdir(), 'understudy-boot-'))
    try {
      mkdirSync(dirname(join(root, path)), { recursive: true })
      writeFileSync(join(root, path), text)
      assert.equal(foreignBootFile(root, 'br0'), path)
      assert.equal(foreignBootFile(root, 'br00'), null)
      assert.equal(foreignBootFile(root, 'r0'), null)
    } finally {
      rmSync(root, { recursive: true, force: true })
    }
  })
}

test('our own boot files are nobody else’s', () => {
  const root = mkdtempSync(join(tmpdir(), 'understudy-boot-'))
  try {
    mkdirSync(join(root, 'etc/network/interfaces.d'), { recursive: true })
    writeFileSync(join(root, 'etc/network/interfaces.d/understudy-br0'), 'auto br0\n')
    assert.equal(foreignBootFile(root, 'br0'), null)
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
})
