import assert from 'node:assert/strict'
import { test } from 'node:test'
import { labPaths } from '../../infra/lab/addresses.ts'
import { controlGroupMount } from '../../infra/lab/control-groups.ts'
import {
  describeFabricFaults,
  directionsBetween,
  fabricRuleset,
  noFabricFaults,
  slowDirections,
} from '../../infra/lab/fabric-faults.ts'
import { parseFault } from '../../infra/lab/fault-verbs.ts'

test('without faults the ruleset drops nothing', () => {
  assert.doesNotMatch(fabricRuleset(noFabricFaults()), /drop/)
})

test('two hosts are joined by both links, others by the LAN alone', () => {
  assert.equal(directionsBetween('a', 'b').length, 4)
  assert.equal(directionsBetween('a', 'w').length, 2)
  assert.equal(directionsBetween('a', 'w', 'peer').length, 0)
})

test('a slow direction is taken from the bridge and given to the wire, unless it is cut', () => {
  const direction = { from: 'a', to: 'b', link: 'lan' } as const
  const slow = { ...direction, delayMs: 10, jitterMs: 0, duplicatePerMille: 0 }
  const faults = { ...noFabricFaults(), slow: [slow] }
  assert.match(fabricRuleset(faults), /iifname "a-lan" oifname "b-lan" drop/)
  assert.deepEqual(slowDirections(faults), [slow])
  assert.deepEqual(slowDirections({ ...faults, cuts: [direction] }), [])
  assert.deepEqual(slowDirections({ ...faults, deaf: ['b'] }), [])
  assert.deepEqual(describeFabricFaults(faults), ['10 ± 0 ms late: a → b on lan'])
})

test('the words of the command line become a fault', () => {
  assert.deepEqual(parseFault(['power', 'a'], {}), { kind: 'power', host: 'a' })
  assert.deepEqual(parseFault(['freeze', 'b'], {}), { kind: 'freeze', host: 'b', what: 'agent' })
  const cut = { kind: 'cut', from: 'a', to: 'b', oneWay: true, link: 'peer' }
  assert.deepEqual(parseFault(['cut', 'a', 'b'], { oneWay: true, link: 'peer' }), cut)
  const loss = { kind: 'loss', from: 'a', to: 'w', percent: 2.5 }
  assert.deepEqual(parseFault(['loss', 'a', 'w'], { percent: '2.5' }), loss)
})

test('a wrong word is refused with the word and what it may be', () => {
  assert.throws(() => parseFault(['explode', 'a'], {}), /"explode" is no fault/)
  assert.throws(() => parseFault(['power', 'w'], {}), /"w" is no host: use one of a, b/)
  assert.throws(() => parseFault(['cut', 'a'], {}), /A member is missing: add one of a, b, w, c/)
  assert.throws(() => parseFault(['cut', 'a', 'a'], {}), /given twice/)
  assert.throws(() => parseFault(['loss', 'a', 'b'], { percent: '120' }), /--percent is "120"/)
  assert.throws(() => parseFault(['clock', 'a'], {}), /--jump-ms is ""/)
  assert.throws(() => parseFault(['cut', 'a', 'b'], { link: 'x' }), /"x" is no link/)
})

test('a lab name that is no plain word is refused before it becomes a path', () => {
  assert.throws(() => labPaths('../etc'), /not usable/)
  assert.throws(() => labPaths('a'.repeat(17)), /not usable/)
  assert.match(labPaths('two').runDir, /two$/)
})

test('control groups version 2 are found where they are mounted', () => {
  const hybrid = 'cgroup /sys/fs/cgroup/pids cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n'
  assert.equal(controlGroupMount(hybrid), '/sys/fs/cgroup/unified')
  assert.throws(() => controlGroupMount('tmpfs /tmp tmpfs rw 0 0\n'), /no cgroup2/)
})
