import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  GRANT_OVERHEAD_MS,
  GUARD_MS,
  grantMs,
  latestExpiryMs,
  MAX_GRANT_MS,
  MIN_GRANT_MS,
  SLOP_MS,
} from '../../shared/protocol/grants.ts'

/** A small generator with a seed: the same sequence in each run. */
function* randoms(seed: number): Generator<number> {
  for (let state = seed >>> 0; ; ) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    yield state / 2 ** 32
  }
}

test('a grant, applied as late as its guard allows, ends no later than the lease', () => {
  const random = randoms(1)
  const next = () => random.next().value as number
  for (let i = 0; i < 20_000; i++) {
    const armedMs = next() * 1e9
    const untilMs = armedMs + next() * 12_000 - 100
    const granted = grantMs({ armedMs, untilMs })
    if (granted === 0) continue
    const appliedMs = armedMs + (GUARD_MS + SLOP_MS) * next()
    assert(appliedMs + granted <= untilMs, `armed ${armedMs}, until ${untilMs}, granted ${granted}`)
    assert(latestExpiryMs({ armedMs, grantedMs: granted }) <= untilMs)
  }
})

test('a grant is whole milliseconds and wastes less than one', () => {
  assert.equal(grantMs({ armedMs: 1000, untilMs: 2000 }), 1000 - GRANT_OVERHEAD_MS)
  assert.equal(grantMs({ armedMs: 1000.25, untilMs: 2000 }), 1000 - GRANT_OVERHEAD_MS - 1)
})

test('a lease that leaves less than the shortest grant opens nothing', () => {
  const armedMs = 5000
  const justEnough = armedMs + GRANT_OVERHEAD_MS + MIN_GRANT_MS
  assert.equal(grantMs({ armedMs, untilMs: justEnough }), MIN_GRANT_MS)
  assert.equal(grantMs({ armedMs, untilMs: justEnough - 0.001 }), 0)
  assert.equal(grantMs({ armedMs, untilMs: 0 }), 0)
})

test('a mistaken lease does not open the gate for hours, or by not being a number', () => {
  assert.equal(grantMs({ armedMs: 0, untilMs: 3_600_000 }), MAX_GRANT_MS)
  assert.equal(grantMs({ armedMs: 0, untilMs: Infinity }), MAX_GRANT_MS)
  assert.equal(grantMs({ armedMs: 0, untilMs: Number.NaN }), 0)
  assert.equal(grantMs({ armedMs: Number.NaN, untilMs: 1000 }), 0)
})
