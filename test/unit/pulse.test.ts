import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Pulse } from '../../node-agent/pulse.ts'
import { until } from '../fixtures/until.ts'

test('work that is nearly due is done with the next wake-up, and not before', async () => {
  const pulse = new Pulse()
  let done = 0
  const end = pulse.every(60_000, () => done++)
  pulse.wake()
  assert.equal(done, 0)
  end()
  const soon = pulse.every(1, () => done++)
  // Without giving the loop a turn: on a slow machine the work would be done by its own timer just before.
  for (const end = performance.now() + 2; performance.now() < end; );
  pulse.wake()
  assert.equal(done, 1)
  soon()
})

test('where nothing wakes the process the work is done all the same', async () => {
  const pulse = new Pulse()
  let done = 0
  const end = pulse.every(10, () => done++)
  await until(() => done >= 2)
  end()
  done = 0
  await sleep(100)
  assert.equal(done, 0)
})

test('work that ends itself, or wakes the pulse, disturbs none of the others', async () => {
  const pulse = new Pulse()
  const order: string[] = []
  const endFirst = pulse.every(5, () => {
    order.push('first')
    pulse.wake()
    endFirst()
  })
  const endSecond = pulse.every(5, () => order.push('second'))
  await sleep(8)
  pulse.wake()
  assert.deepEqual(order.slice(0, 2), ['first', 'second'])
  await sleep(100)
  assert.equal(order.filter(one => one === 'first').length, 1)
  endSecond()
})
