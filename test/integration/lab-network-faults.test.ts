import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import type { Fault } from '../../infra/lab/fault-verbs.ts'
import { heal, inject } from '../../infra/lab/faults.ts'
import { createMachines, destroyMachines } from '../../infra/lab/machine.ts'
import { type Flow, passes, sendDatagrams } from './lab-datagrams.ts'

const lab = `t-net-${process.pid}`.slice(0, 16)

before(() => createMachines({ name: lab }))
afterEach(() => heal(lab))
after(() => destroyMachines(lab))

async function expectFlows(flows: { [name: string]: [Flow, boolean] }): Promise<void> {
  const seen = await Promise.all(
    Object.entries(flows).map(async ([name, [flow]]) => [name, await passesAlone(flow)] as const),
  )
  assert.deepEqual(
    Object.fromEntries(seen),
    Object.fromEntries(Object.entries(flows).map(([name, [, expected]]) => [name, expected])),
  )
}

/** One listener at a time for each address and port. */
let queue: Promise<unknown> = Promise.resolve()
function passesAlone(flow: Flow): Promise<boolean> {
  const result = queue.then(() => passes(lab, flow))
  queue = result.catch(() => {})
  return result
}

test('without a fault every member reaches every other, over IPv4 and IPv6 and over the direct link', async () => {
  await expectFlows({
    'a to b': [{ from: 'a', to: 'b' }, true],
    'b to a, IPv6': [{ from: 'b', to: 'a', family: 'v6' }, true],
    'a to b, direct': [{ from: 'a', to: 'b', link: 'peer' }, true],
    'a to w': [{ from: 'a', to: 'w' }, true],
    'c to b': [{ from: 'c', to: 'b' }, true],
  })
})

test('a one-way cut stops one direction on both links and leaves the other', async () => {
  await inject(lab, { kind: 'cut', from: 'a', to: 'b', oneWay: true })
  // An ARP request is answered the other way round, so the neighbours have to know each other already.
  await expectFlows({
    'a to b': [{ from: 'a', to: 'b' }, false],
    'a to b, direct': [{ from: 'a', to: 'b', link: 'peer' }, false],
    'a to w': [{ from: 'a', to: 'w' }, true],
    'b to a': [{ from: 'b', to: 'a' }, true],
    'b to a, direct': [{ from: 'b', to: 'a', link: 'peer' }, true],
  })
})

test('a cut of one link leaves the other link whole', async () => {
  await inject(lab, { kind: 'cut', from: 'a', to: 'b', oneWay: false, link: 'peer' })
  await expectFlows({
    'a to b, direct': [{ from: 'a', to: 'b', link: 'peer' }, false],
    'b to a, direct': [{ from: 'b', to: 'a', link: 'peer' }, false],
    'a to b': [{ from: 'a', to: 'b' }, true],
  })
})

test('an isolated host hears nobody and nobody hears it', async () => {
  await inject(lab, { kind: 'isolate', member: 'a' })
  await expectFlows({
    'a to b, direct': [{ from: 'a', to: 'b', link: 'peer' }, false],
    'w to a': [{ from: 'w', to: 'a' }, false],
    'c to a': [{ from: 'c', to: 'a' }, false],
    'c to b': [{ from: 'c', to: 'b' }, true],
  })
})

test('a deaf host is still heard', async () => {
  await inject(lab, { kind: 'deaf', member: 'a' })
  await expectFlows({
    'a to b, direct': [{ from: 'a', to: 'b', link: 'peer' }, true],
    'b to a, direct': [{ from: 'b', to: 'a', link: 'peer' }, false],
    'b to a': [{ from: 'b', to: 'a' }, false],
  })
})

test('loss takes about its share of the frames', async () => {
  await inject(lab, { kind: 'loss', from: 'a', to: 'b', percent: 30 })
  const arrived = (await sendDatagrams(lab, { from: 'a', to: 'b', link: 'peer', count: 500 })).length
  assert.ok(arrived > 250 && arrived < 450, `${arrived} of 500 arrived at 30 % loss`)
})

test('a slow link delivers every frame late, out of order and some twice', async () => {
  const slow: Fault = { kind: 'slow', from: 'a', to: 'b', delayMs: 100, jitterMs: 40, duplicatePercent: 20 }
  await inject(lab, slow)
  const arrivals = await sendDatagrams(lab, { from: 'a', to: 'b', count: 200, settleMs: 400 })
  const sequences = arrivals.map(arrival => arrival.sequence)
  assert.equal(new Set(sequences).size, 200)
  assert.ok(arrivals.length > 205, `${arrivals.length - 200} of 200 came twice at 20 %`)
  assert.ok(sequences.some((sequence, index) => index > 0 && sequence < sequences[index - 1]!))
  // The first ones may wait for neighbour discovery, which is slow here as well.
  const late = arrivals.slice(50).map(arrival => arrival.lateMs)
  assert.ok(Math.min(...late) > 55, `the earliest was ${Math.min(...late)} ms late`)
})

test('a slow witness is slow for both hosts and the hosts are not slow for each other', async () => {
  await inject(lab, { kind: 'witness-slow', delayMs: 200 })
  for (const host of ['a', 'b'] as const) {
    const [first] = await sendDatagrams(lab, { from: host, to: 'w', count: 1, settleMs: 600 })
    assert.ok(first !== undefined && first.lateMs >= 95, `${host} to w: ${first?.lateMs} ms`)
  }
  const between = await sendDatagrams(lab, { from: 'a', to: 'b' })
  assert.ok(Math.min(...between.map(arrival => arrival.lateMs)) < 50)
})

test('healing makes all of it whole', async () => {
  await inject(lab, { kind: 'isolate', member: 'b' })
  await inject(lab, { kind: 'cut', from: 'a', to: 'w', oneWay: false })
  await inject(lab, { kind: 'slow', from: 'a', to: 'b', delayMs: 300, jitterMs: 0, duplicatePercent: 0 })
  await heal(lab)
  await expectFlows({
    'a to b': [{ from: 'a', to: 'b' }, true],
    'w to a': [{ from: 'w', to: 'a' }, true],
    'c to b': [{ from: 'c', to: 'b' }, true],
  })
})
