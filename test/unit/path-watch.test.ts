import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PathWatch } from '../../node-agent/peer/path-watch.ts'
import type { LinkPath } from '../../node-agent/ports.ts'

const path = (number: number, more: Partial<LinkPath> = {}): LinkPath => ({
  local: `10.0.${number}.1`,
  peer: `10.0.${number}.2`,
  heardMs: 20,
  lossPercent: 0,
  roundTripMs: 0.3,
  ...more,
})
const trouble = (paths: readonly LinkPath[], afterMs = 60_000): string =>
  new PathWatch(1000).trouble(paths, 1000 + afterMs)

test('one of two paths that falls silent, or loses much, is named while the other one carries the pair', () => {
  assert.equal(trouble([path(1), path(2)]), '')
  assert.equal(
    trouble([path(1, { heardMs: 7000 }), path(2)]),
    'the path 10.0.1.1 to 10.0.1.2 is silent; 1 of 2 is in order: look at cable, port and switch',
  )
  assert.match(
    trouble([path(1), path(2, { lossPercent: 30 })]),
    /10\.0\.2\.1 to 10\.0\.2\.2 loses more than 10 %; 1 of 2/,
  )
  assert.match(
    trouble([path(1, { heardMs: null }), path(2, { lossPercent: 30 })]),
    /is silent, .*; no path .* is in order/,
  )
})

test('a path is given its time after a start; and a host that is not heard at all is no matter of paths', () => {
  assert.equal(trouble([path(1, { heardMs: null }), path(2)], 3000), '')
  assert.match(trouble([path(1, { heardMs: null }), path(2)], 6000), /is silent/)
  assert.equal(trouble([path(1, { heardMs: 9000 }), path(2, { heardMs: null })]), '')
  assert.equal(trouble([path(1, { heardMs: 9000 })]), '')
})
