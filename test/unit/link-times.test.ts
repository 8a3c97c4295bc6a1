import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isInMotion, msToNextLook, secondsToNextPull } from '../../node-agent/control/link-times.ts'
import { pairReport } from '../control-plane/support/host.ts'

test('a host at work on its data, or whose verdict the pair has outlived, is looked at again soon; one at rest is not', () => {
  const backup = pairReport({ role: 'backup', primary: 'a' })
  const primary = pairReport({ role: 'primary', primary: 'a' })
  for (const still of [null, backup, primary]) assert.equal(isInMotion(still), false)
  const { replication, check } = backup
  for (const moving of [
    { ...backup, role: 'unsettled' as const },
    { ...backup, replication: { ...replication, operation: 'rejoin' } },
    { ...backup, replication: { ...replication, streaming: false } },
    { ...primary, check: { ...check!, takeover: false } },
  ])
    assert.equal(isInMotion(moving), true)
  // Unprotected, and a verdict that says so: nothing is outlived.
  assert.equal(
    isInMotion({ ...primary, protection: 'serving but unprotected', check: { ...check!, takeover: false } }),
    false,
  )
  assert.equal(msToNextLook(0), 1_000)
  assert.ok(msToNextLook(100) > 30_000, 'as seldom as without it')
})

test('a control plane that is not reached is asked ever less often, and no two hosts of a fleet ask at one instant', () => {
  const asked = (failures: number, random: number) =>
    secondsToNextPull({ askedSeconds: null, failures, brokerAway: false, random: () => random })
  assert.deepEqual([asked(1, 0.5), asked(2, 0.5), asked(20, 0.5)], [2, 4, 60])
  assert.ok(asked(20, 0) === 30 && asked(20, 0.99) < 90)
  const usual = (brokerAway: boolean) =>
    secondsToNextPull({ askedSeconds: 60, failures: 0, brokerAway, random: () => 0.5 })
  assert.deepEqual([usual(false), usual(true)], [60, 5])
})
