import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Loop } from '../../node-agent/loop.ts'
import { timingOf } from '../../shared/protocol/timing.ts'
import type { Effect, Event } from '../../shared/protocol/types.ts'
import { until } from '../fixtures/until.ts'
import { fakePorts } from './fake-ports.ts'

function setUp(options: { effects?: (event: Event) => Effect[] } = {}) {
  const { clock, ports } = fakePorts()
  const seen: string[] = []
  const said: string[] = []
  const failures: unknown[] = []
  const loop: Loop<number> = new Loop<number>({
    clock: ports.clock,
    timing: timingOf('default'),
    state: 0,
    rest: () => 0,
    step: (state, event) => {
      seen.push(event.event)
      if (event.event === 'uplink') throw new Error('a bug')
      return { state: state + 1, effects: options.effects?.(event) ?? [], why: [] }
    },
    run: effects => {
      if (effects.length > 0) loop.post({ event: 'persisted', seq: 1 })
      seen.push('ran')
    },
    decided: why => said.push(why),
    failed: error => failures.push(error),
  })
  const pass = (ms: number, more: { suspended?: number; wallLeap?: number } = {}): void => {
    clock.boot += ms + (more.suspended ?? 0)
    clock.monotonic += ms
    clock.wall += ms + (more.suspended ?? 0) + (more.wallLeap ?? 0)
  }
  return { loop, pass, seen, said, failures }
}

test('an event that an effect causes waits until the step and its effects are over', () => {
  const { loop, seen } = setUp({ effects: event => (event.event === 'tick' ? [{ do: 'look' }] : []) })
  loop.post({ event: 'tick' })
  assert.deepEqual(seen, ['tick', 'ran', 'persisted', 'ran'])
  assert.equal(loop.state, 2)
})

test('a suspend is told to the core before the message that waited through it', () => {
  const { loop, pass, seen, said } = setUp()
  pass(5, { suspended: 3000 })
  loop.post({ event: 'witness', inc: null })
  assert.deepEqual(
    seen.filter(line => line !== 'ran'),
    ['clockJump', 'witness'],
  )
  assert.match(said.join(), /suspended for 3000 ms/)
})

test('a wall-clock leap counts only together with a gap of the process', () => {
  const calm = setUp()
  calm.pass(10, { wallLeap: 3_600_000 })
  calm.loop.post({ event: 'tick' })
  assert.deepEqual(calm.seen, ['tick', 'ran'])
  const paused = setUp()
  paused.pass(300, { wallLeap: 60_000 })
  paused.loop.post({ event: 'tick' })
  assert.deepEqual(paused.seen, ['clockJump', 'ran', 'tick', 'ran'])
  assert.match(paused.said.join(), /wall time leapt by 60000 ms/)
})

test('a stopped process says for how long it did not run', () => {
  const { loop, pass, said } = setUp()
  pass(5000)
  loop.post({ event: 'tick' })
  assert.deepEqual(said, ['this process did not run for 5000 ms: it was stopped or starved'])
})

test('a bug in a step ends the loop: nothing is decided afterwards', () => {
  const { loop, seen, failures } = setUp()
  loop.post({ event: 'uplink', up: true })
  assert.equal(failures.length, 1)
  loop.post({ event: 'tick' })
  assert.deepEqual(seen, ['uplink'])
})

test('at rest no tick is taken until the rest is over, and an event ends it', async () => {
  const taken: string[] = []
  let restMs = 0
  const clock = {
    bootMs: () => performance.now(),
    monotonicMs: () => performance.now(),
    wallMs: Date.now,
    random: () => 0,
  }
  const loop = new Loop<null>({
    clock,
    timing: timingOf('conservative'),
    state: null,
    rest: (_state, now) => now + restMs,
    step: (state, event) => {
      taken.push(event.event)
      return { state, effects: [], why: [] }
    },
    run: () => {},
    decided: () => {},
    failed: () => {},
  })
  loop.start()
  // While something is under way, and however long a busy machine takes for it.
  await until(() => taken.length >= 2)
  restMs = 10_000
  loop.post({ event: 'uplink', up: true })
  taken.length = 0
  await sleep(200)
  assert.deepEqual(taken, [])
  restMs = 0
  loop.post({ event: 'uplink', up: true })
  await until(() => taken.length >= 3)
  loop.stop()
  assert.equal(taken[0], 'uplink')
})
