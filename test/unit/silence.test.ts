import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Hardship, Silence } from '../../node-agent/postgres/silence.ts'

const hangMs = 500

/** A silence from 0 on, looked at each 100 ms: from when on the server hangs, and is stuck. */
function silence(hardships: (nowMs: number) => [pid: number, Hardship][]): { hangsMs: number; stuckMs: number } {
  let now = 0
  const judged = new Silence({ hangMs, look: () => new Map(hardships(now)) })
  let hangsMs = 0
  for (now = 100; now < 200_000; now += 100) {
    const { hanging, stuck } = judged.judge(now, now)
    if (hanging && hangsMs === 0) hangsMs = now
    if (stuck) return { hangsMs, stuckMs: now }
  }
  throw new Error('it is never stuck')
}

test('a silent server that its host lets run is stuck after ten times the limit', () => {
  assert.deepEqual(
    silence(() => [[7, { waitedMs: 12_345, inDisk: false }]]),
    { hangsMs: 600, stuckMs: 5100 },
  )
})

test('what a server waits for a processor is no silence of its own, and patience ends all the same', () => {
  assert.deepEqual(
    silence(now => [[7, { waitedMs: now * 0.98, inDisk: false }]]),
    { hangsMs: 600, stuckMs: 120_100 },
  )
})

test('a server that its host lets run half of the time is given twice as long', () => {
  const { stuckMs } = silence(now => [
    [7, { waitedMs: now * 0.5, inDisk: false }],
    // Another one each second, with what it has waited in its own life.
    [1000 + Math.floor(now / 1000), { waitedMs: (now % 1000) * 0.5, inDisk: false }],
  ])
  assert.ok(stuckMs > 8500 && stuckMs < 11_000, `stuck after ${stuckMs} ms`)
})

test('a server that waits for a disk is given time while it does', () => {
  const { stuckMs } = silence(now => [[7, { waitedMs: 0, inDisk: now < 20_000 }]])
  assert.ok(stuckMs > 23_500 && stuckMs < 26_000, `stuck after ${stuckMs} ms`)
})

test('an answer ends a silence, and the next one is counted anew', () => {
  const judged = new Silence({ hangMs, look: () => new Map() })
  assert.deepEqual(judged.judge(5000, 5000), { hanging: true, stuck: false })
  assert.deepEqual(judged.judge(5001, 5001), { hanging: true, stuck: true })
  assert.deepEqual(judged.judge(0, 5100), { hanging: false, stuck: false })
  assert.deepEqual(judged.judge(600, 5700), { hanging: true, stuck: false })
  assert.deepEqual(judged.judge(5001, 10_101), { hanging: true, stuck: true })
})
