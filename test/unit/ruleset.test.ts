import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type GateSpec, gateLayout, rulesetText } from '../../node-agent/gate/ruleset.ts'

const SPEC: GateSpec = {
  table: 'understudy',
  vips: ['10.9.0.100', 'fd09::100'],
  ports: [5432],
  peers: [{ iface: 'pl0', address: '10.9.1.2' }],
  devices: ['lan0', 'lan1'],
  forwarded: false,
}
const text = (change: Partial<GateSpec> = {}) => rulesetText(gateLayout({ ...SPEC, ...change }))

/** The rules of one chain of the inet table, as text. */
function rules(chain: string): string[] {
  const table = gateLayout(SPEC).find(candidate => candidate.family === 'inet')!
  return table.chains.find(candidate => candidate.name === chain)!.rules.map(rule => rule.map(c => c.text).join(' '))
}

test('as loaded the gate is frozen: no element permits or closes', () => {
  for (const table of gateLayout(SPEC)) {
    for (const set of table.sets) if (set.type === 'flag') assert.deepEqual(set.elements, [])
  }
})

test('every verdict ends in a drop or a reject, after the question whether the gate is open', () => {
  for (const chain of ['verdict_in', 'verdict_out']) {
    assert.equal(rules(chain)[0], 'meta mark & 0x0 @open accept')
    assert.match(rules(chain).at(-1)!, / drop$/)
  }
  assert.match(rules('refuse').at(-1)!, /reject/)
})

test('the virtual addresses are judged before the exemption of the peer', () => {
  for (const chain of ['prerouting', 'output']) {
    const all = rules(chain)
    const lastVip = all.findLastIndex(rule => rule.includes('@vip'))
    const firstPeer = all.findIndex(rule => rule.includes('@peer'))
    assert(lastVip < firstPeer, all.join('\n'))
  }
})

test('a SYN is never answered with a nudge: connect() would fail instead of waiting', () => {
  const nudge = rules('verdict_in').find(rule => rule.includes('host-unreachable'))!
  assert.match(nudge, /^tcp flags & \(syn\|rst\) == 0 /)
})

test('each device has a chain of its own that stops late announcements', () => {
  assert.match(text(), /chain egress0 \{\n {4}type filter hook egress device "lan0"/)
  assert.match(text(), /chain egress1 \{\n {4}type filter hook egress device "lan1"/)
  assert.doesNotMatch(text({ devices: [] }), /netdev/)
})

test('connection tracking is asked for only where an address is forwarded', () => {
  assert.doesNotMatch(text(), /ct original/)
  assert.match(text({ forwarded: true }), /ct original ip daddr @vip4/)
})

test('what can not be enforced as it is written is refused with the reason', () => {
  const refused: [Partial<GateSpec>, RegExp][] = [
    [{ vips: ['10.9.0'] }, /no IPv4 or IPv6 address/],
    [{ vips: ['fe80::1%lan0'] }, /zone/],
    [{ vips: ['fd09::100', 'fd09:0::100'] }, /given twice/],
    [{ ports: [0] }, /0 is no TCP port/],
    [{ ports: [5432, 5432] }, /given twice/],
    [{ ports: Array.from({ length: 65 }, (_, i) => i + 1) }, /65 ports were given, the most is 64/],
    [{ table: 'a b' }, /no plain table name/],
    [{ devices: ['lan0"; drop; #'] }, /no interface name/],
    [{ peers: [{ iface: 'a-name-too-long-x', address: '10.9.1.2' }] }, /no interface name/],
  ]
  for (const [change, why] of refused) assert.throws(() => gateLayout({ ...SPEC, ...change }), why)
})
