import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { KernelGate } from '../../node-agent/gate/kernel-gate.ts'
import { type GateSpec, gateLayout, rulesetText } from '../../node-agent/gate/ruleset.ts'
import { type GateAlarm, GateWatch } from '../../node-agent/gate/watch.ts'
import { bootMs, monotonicMs } from '../../node-agent/kernel/clock.ts'
import { until } from '../fixtures/until.ts'
import { Netns, whyNoNamespaces } from './support/netns.ts'
import { SPEC } from './support/pair.ts'

/** A grant that no test outlives, on a machine of whatever speed; the longest there is has 15 s. */
const LONG_MS = 14_000
/** One that is soon over, and not before it is applied where this process waits for a processor. */
const SHORT_MS = 300

describe('the watch over the gate', { skip: whyNoNamespaces(), timeout: 240_000 }, () => {
  let ns: Netns
  before(() => {
    ns = new Netns('usgx')
    ns.exec('ip', 'link', 'add', 'lan0', 'type', 'veth', 'peer', 'name', 'far0')
  })
  after(() => ns?.remove())

  /** A gate that others may change, as on a kernel without owners, with its watch. */
  function unowned(spec: GateSpec = SPEC): { gate: KernelGate; watch: GateWatch; end: () => Promise<void> } {
    const gate = ns.run(() => new KernelGate(spec, { own: false }))
    ns.run(() => gate.install())
    const watch = ns.run(() => new GateWatch(gate))
    assert.equal(poll(watch), undefined)
    const end = async () => {
      ns.run(() => gate.uninstall())
      gate.dispose()
      await watch.stop()
    }
    return { gate, watch, end }
  }
  const poll = (watch: GateWatch) => ns.run(() => watch.poll(monotonicMs()))
  const kindAndState = (alarm: GateAlarm | undefined) =>
    alarm === undefined || alarm.kind === 'not-restored' ? alarm : [alarm.kind, alarm.now]
  const open = (gate: KernelGate, forMs: number) => {
    const result = ns.run(() => gate.open(bootMs() + forMs))
    assert(result.ok, JSON.stringify(result))
    return result.expiresByBootMs
  }
  const read = (gate: KernelGate) => ns.run(() => gate.read())

  test('the ruleset as text, loaded by nft, is what the agent creates by netlink', () => {
    const gate = ns.run(() => new KernelGate({ ...SPEC, forwarded: true }, { own: false }))
    ns.run(() => gate.install())
    const list = () => ns.exec('nft', 'list', 'ruleset').replace(/^.*elements = \{ 0x[0-9a-f]+ \}\n/m, '')
    const made = list()
    ns.run(() => gate.uninstall())
    ns.exec('sh', '-c', `cat <<'END' | nft -f -\n${rulesetText(gateLayout({ ...SPEC, forwarded: true }))}\nEND`)
    assert.equal(list(), made)
    assert.equal(
      ns.run(() => gate.difference()),
      undefined,
    )
    ns.exec('nft', 'flush', 'ruleset')
    gate.dispose()
  })

  test('tables that the agent owns survive a firewall reload by another process', async t => {
    const gate = ns.run(() => new KernelGate(SPEC))
    ns.run(() => gate.install())
    if (!gate.owned) {
      gate.dispose()
      t.skip('this kernel knows no owner that persists (6.9)')
      return
    }
    open(gate, LONG_MS)
    ns.exec('nft', 'flush', 'ruleset')
    assert.equal(ns.succeeds('nft', 'delete', 'table', 'inet', SPEC.table), false)
    assert.equal(ns.succeeds('nft', 'add', 'element', 'inet', SPEC.table, 'open', '{ 0 timeout 1h }'), false)
    assert.equal(read(gate).state, 'open')
    assert.equal(
      ns.run(() => gate.difference()),
      undefined,
    )
    ns.run(() => gate.uninstall())
    gate.dispose()
  })

  test('flushed while open: the tables are there again, for no longer than the grant had left', async () => {
    const { gate, watch, end } = unowned()
    const expiresByBootMs = open(gate, LONG_MS)
    assert.equal(poll(watch), undefined)
    ns.exec('nft', 'flush', 'ruleset')
    assert.equal(read(gate).state, 'absent')
    const alarm = poll(watch)
    assert.equal(alarm?.kind, 'restored')
    // The clock first: who is held up between the two looks must not see the gate open for longer than it is.
    const askedMs = bootMs()
    const { state, expiresInMs } = read(gate)
    assert.equal(state, 'open')
    assert(askedMs + expiresInMs <= expiresByBootMs)
    await end()
  })

  test('flushed while shut, or when the grant is over: the tables come back frozen', async () => {
    const { gate, watch, end } = unowned()
    ns.exec('nft', 'flush', 'ruleset')
    assert.equal(poll(watch)?.kind, 'restored')
    assert.equal(read(gate).state, 'frozen')
    open(gate, SHORT_MS)
    await sleep(SHORT_MS + 20)
    ns.exec('nft', 'flush', 'ruleset')
    const alarm = poll(watch)
    assert(alarm?.kind === 'restored' && alarm.now === 'frozen')
    assert.equal(read(gate).state, 'frozen')
    await end()
  })

  test('a freeze finds the tables gone and makes them anew, shut', async () => {
    const { gate, watch, end } = unowned()
    open(gate, LONG_MS)
    ns.exec('nft', 'flush', 'ruleset')
    ns.run(() => gate.freeze())
    assert.equal(read(gate).state, 'frozen')
    ns.exec('nft', 'flush', 'ruleset')
    ns.run(() => gate.close())
    assert.equal(read(gate).state, 'closed')
    ns.exec('nft', 'flush', 'ruleset')
    assert.equal(poll(watch)?.kind, 'restored')
    assert.equal(read(gate).state, 'closed')
    await end()
  })

  for (const [what, command] of [
    ['a rule is added', `add rule inet ${SPEC.table} verdict_in accept`],
    ['a rule is put first', `insert rule inet ${SPEC.table} prerouting accept`],
    ['the rules are flushed', `flush table inet ${SPEC.table}`],
    ['the ARP table is deleted', `delete table arp ${SPEC.table}`],
    ['a table is switched off', `add table inet ${SPEC.table} { flags dormant; }`],
    ['an address is removed', `flush set inet ${SPEC.table} vip4`],
  ] as const) {
    test(`${what} by another process: noticed and put right`, async () => {
      const { gate, watch, end } = unowned()
      ns.exec('nft', ...command.split(' '))
      const alarm = poll(watch)
      assert.equal(alarm?.kind, 'restored')
      assert.equal(
        ns.run(() => gate.difference()),
        undefined,
      )
      assert.equal(poll(watch), undefined)
      await end()
    })
  }

  test('the gate opened by another process is shut again', async () => {
    const { gate, watch, end } = unowned()
    ns.exec('nft', 'add', 'element', 'inet', SPEC.table, 'open', '{ 0 timeout 1h }')
    assert.equal(read(gate).state, 'open')
    assert.deepEqual(kindAndState(poll(watch)), ['grant-changed', 'frozen'])
    assert.equal(read(gate).state, 'frozen')
    await end()
  })

  test('the gate extended, shut, or made to drop where it refused, by another process: as it was again', async () => {
    const { gate, watch, end } = unowned()
    const expiresByBootMs = open(gate, LONG_MS)
    ns.exec('nft', 'flush', 'set', 'inet', SPEC.table, 'open')
    ns.exec('nft', 'add', 'element', 'inet', SPEC.table, 'open', '{ 0 timeout 1h }')
    assert.deepEqual(kindAndState(poll(watch)), ['grant-changed', 'open'])
    assert(bootMs() + read(gate).expiresInMs <= expiresByBootMs)
    for (const families of [['inet', 'arp', 'netdev'], ['arp']]) {
      for (const family of families) ns.exec('nft', 'flush', 'set', family, SPEC.table, 'open')
      assert.deepEqual(kindAndState(poll(watch)), ['grant-changed', 'open'])
    }
    ns.run(() => gate.close())
    assert.equal(poll(watch), undefined)
    ns.exec('nft', 'flush', 'set', 'inet', SPEC.table, 'closed')
    assert.deepEqual(kindAndState(poll(watch)), ['grant-changed', 'closed'])
    assert.equal(read(gate).state, 'closed')
    await end()
  })

  test('what the gate itself does wakes nobody, what others do is heard', async () => {
    const { gate, watch, end } = unowned()
    const heard = (): number => {
      let count = 0
      watch.events.socket.drain(() => count++)
      return count
    }
    heard()
    open(gate, LONG_MS)
    open(gate, LONG_MS)
    assert.equal(heard(), 0)
    ns.exec('nft', 'flush', 'set', 'inet', SPEC.table, 'open')
    assert.notEqual(heard(), 0)
    await end()
  })

  test('a grant that ran out by itself is no cause for alarm', async () => {
    const { gate, watch, end } = unowned()
    const expiresByBootMs = open(gate, SHORT_MS)
    // Before its end, at it, and for a while after it, however quick the machine is.
    for (let looks = 0; looks < 30 || bootMs() < expiresByBootMs + 50; looks++) {
      ns.exec('nft', 'flush', 'set', 'inet', SPEC.table, 'guard')
      assert.equal(poll(watch), undefined)
    }
    assert.equal(read(gate).state, 'frozen')
    await end()
  })

  test('a process that waits for a processor while it compares finds no difference where there is none', () => {
    const wait = new Int32Array(new SharedArrayBuffer(4))
    const { gate, end } = unowned()
    open(gate, LONG_MS)
    // Adopted, a grant has no more left than the kernel says.
    const next = ns.run(
      () => new KernelGate(SPEC, { own: false, betweenSteps: step => step === 'read' && Atomics.wait(wait, 0, 0, 50) }),
    )
    assert.equal(ns.run(() => next.install()).found, 'open')
    assert.equal(
      ns.run(() => next.stateDifference()),
      undefined,
    )
    next.dispose()
    return end()
  })

  test('a gate can be read by somebody who does not own it, and its absence is told', () => {
    const reader = ns.run(() => new KernelGate(SPEC))
    assert.equal(read(reader).state, 'absent')
    const gate = ns.run(() => new KernelGate(SPEC))
    ns.run(() => gate.install())
    open(gate, LONG_MS)
    assert.equal(read(reader).state, 'open')
    ns.run(() => gate.uninstall())
    gate.dispose()
    reader.dispose()
  })

  test('changes to the tables of others are none of our business', async () => {
    const { watch, end } = unowned()
    ns.exec('nft', 'add', 'table', 'inet', 'somebodys_firewall')
    ns.exec('nft', 'delete', 'table', 'inet', 'somebodys_firewall')
    assert.equal(poll(watch), undefined)
    await end()
  })

  test('an interface that comes later is brought under the egress hook, and one that goes is let go', async () => {
    ns.exec('ip', 'link', 'del', 'lan0')
    const { gate, end } = unowned()
    assert.equal(read(gate).state, 'frozen')
    ns.exec('ip', 'link', 'add', 'lan0', 'type', 'veth', 'peer', 'name', 'far0')
    assert.match(ns.run(() => gate.difference()) ?? '', /come or gone/)
    ns.run(() => gate.restore())
    assert.equal(
      ns.run(() => gate.difference()),
      undefined,
    )
    assert.match(ns.exec('nft', 'list', 'ruleset'), /hook egress device "lan0"/)
    await end()
  })

  test('the other host is let through on a link that gets its address later, and the grant in force goes on', async () => {
    let peers: GateSpec['peers'] = []
    const gate = ns.run(() => new KernelGate({ ...SPEC, peers }, { own: false, peers: () => peers }))
    ns.run(() => gate.install())
    const watch = ns.run(() => new GateWatch(gate))
    const expiresByBootMs = open(gate, LONG_MS)
    let laterMs = 0
    const rested = () => {
      laterMs += 60_000
      return ns.run(() => watch.poll(monotonicMs() + laterMs))
    }
    assert.equal(rested(), undefined)
    peers = [{ iface: 'lan0', address: '10.9.1.2' }]
    assert.deepEqual(kindAndState(rested()), ['followed', 'open'])
    assert(gate.expiresByBootMs <= expiresByBootMs)
    assert.match(ns.exec('nft', 'list', 'set', 'inet', SPEC.table, 'peer4'), /"lan0" \. 10\.9\.1\.2/)
    assert.equal(rested(), undefined)
    ns.run(() => gate.uninstall())
    gate.dispose()
    await watch.stop()
  })

  test('a table of an agent before us that is of no more use is removed with the others', async () => {
    const before = ns.run(() => new KernelGate(SPEC, { own: false }))
    ns.run(() => before.install())
    before.dispose()
    const gate = ns.run(() => new KernelGate({ ...SPEC, devices: [] }, { own: false }))
    assert.equal(ns.run(() => gate.install()).found, 'frozen')
    assert.doesNotMatch(ns.exec('nft', 'list', 'ruleset'), /netdev/)
    ns.run(() => gate.uninstall())
    gate.dispose()
  })

  test('started, the watch restores by itself', async () => {
    // The watch runs outside of `ns.run`, where only interfaces that every namespace has are found.
    const { gate, end, watch } = unowned({ ...SPEC, devices: ['lo'] })
    const alarms: GateAlarm[] = []
    watch.start({ now: monotonicMs, alarm: alarm => alarms.push(alarm) })
    open(gate, LONG_MS)
    ns.exec('nft', 'delete', 'table', 'inet', SPEC.table)
    await until(() => alarms.length > 0)
    assert.equal(alarms[0]?.kind, 'restored')
    await watch.stop()
    await end()
  })

  test('addresses and ports can be changed while open, without extending the grant', async () => {
    const { gate, end } = unowned()
    const expiresByBootMs = open(gate, LONG_MS)
    const result = ns.run(() => gate.reconfigure({ ...SPEC, vips: ['10.9.0.101'], ports: [5432, 5433] }))
    assert.equal(result, 'open')
    assert(gate.expiresByBootMs <= expiresByBootMs)
    assert.equal(
      ns.run(() => gate.difference()),
      undefined,
    )
    assert.match(ns.exec('nft', 'list', 'set', 'inet', SPEC.table, 'vip4'), /10\.9\.0\.101/)
    await end()
  })
})
