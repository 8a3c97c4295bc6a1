import assert from 'node:assert/strict'
import { test } from 'node:test'
import { judgeObservations, Observations, SPAN_PAUSE_MS, type Success } from '../../infra/lab/observations.ts'
import {
  errorCounts,
  idOf,
  judgeWrites,
  parseRows,
  parseWriteLog,
  type WriteEvent,
  writeLogLine,
  writeOutage,
} from '../../infra/lab/write-log.ts'

function successes(instance: string, target: string, times: readonly [startMs: number, endMs: number][]): Success[] {
  return times.map(([startMs, endMs]) => ({ instance, target, operation: 'read', startMs, endMs }))
}

function judge(...seen: Success[][]) {
  const observations = new Observations()
  for (const success of seen.flat()) observations.add(success)
  return judgeObservations(observations.all())
}

test('a takeover from one host to the other is no violation, however close', () => {
  const { violations, undecided } = judge(
    successes('1', 'a:lan', [
      [0, 2],
      [10, 12],
    ]),
    successes('2', 'b:lan', [
      [13, 15],
      [20, 22],
    ]),
  )
  assert.deepEqual([violations, undecided], [[], []])
})

test('answers that may have crossed on the way are undecided, not a violation', () => {
  const { violations, undecided } = judge(
    successes('1', 'a:lan', [
      [0, 2],
      [10, 30],
    ]),
    successes('2', 'b:lan', [
      [15, 40],
      [50, 52],
    ]),
  )
  assert.deepEqual(violations, [])
  assert.equal(undecided[0]?.possibleMs, 15)
})

test('a host that answers a request sent after the other host had answered one serves beside it', () => {
  const { violations } = judge(
    successes('1', 'a:lan', [
      [0, 2],
      [30, 31],
    ]),
    successes('2', 'b:lan', [
      [10, 12],
      [20, 21],
    ]),
  )
  assert.equal(violations[0]?.certainMs, 8)
  assert.deepEqual(
    violations[0]?.instances.map(instance => instance.host),
    ['a', 'b'],
  )
})

test('a single answer of a second host between two of the first is a violation', () => {
  const { violations, undecided } = judge(
    successes('1', 'a:lan', [
      [0, 2],
      [30, 31],
    ]),
    successes('2', 'b:lan', [[10, 12]]),
  )
  assert.deepEqual([violations.length, undecided.length], [1, 0])
})

test('the VIP tells no host, and another instance behind it counts as another host', () => {
  const { violations } = judge(
    successes('1', 'vip', [
      [0, 2],
      [30, 31],
    ]),
    successes('2', 'vip', [
      [10, 12],
      [20, 21],
    ]),
  )
  assert.equal(violations.length, 1)
})

test('a database restarted on one host is not taken for two hosts', () => {
  const { violations, instances } = judge(
    successes('1', 'a:lan', [
      [0, 2],
      [30, 31],
    ]),
    successes('2', 'a:inside', [
      [10, 12],
      [20, 21],
    ]),
  )
  assert.deepEqual(violations, [])
  assert.equal(instances.length, 2)
})

test('successes without a pause are one span, and a pause begins another', () => {
  const observations = new Observations()
  for (const startMs of [0, 10, 20, 25 + SPAN_PAUSE_MS]) {
    observations.add({ instance: '1', target: 'vip', operation: 'write', startMs, endMs: startMs + 4 })
  }
  assert.deepEqual(
    observations.all().map(({ count, firstEndMs, lastStartMs }) => [count, firstEndMs, lastStartMs]),
    [
      [3, 4, 20],
      [1, 29 + SPAN_PAUSE_MS, 25 + SPAN_PAUSE_MS],
    ],
  )
})

const acknowledged = (id: number, ackMs: number): WriteEvent => ({
  kind: 'acknowledged',
  id: idOf(1, id),
  sentMs: ackMs - 1,
  ackMs,
  attempts: 1,
})

test('the outage is the largest gap between acknowledgements, whichever connection they came on', () => {
  const events = [acknowledged(1, 110), acknowledged(3, 560), acknowledged(2, 120), acknowledged(4, 570)]
  assert.deepEqual(writeOutage(events, { fromMs: 100, toMs: 600 }), {
    gapMs: 440,
    fromMs: 120,
    toMs: 560,
    recovered: true,
  })
})

test('writes that never come back make an outage that lasts to the window’s end', () => {
  const outage = writeOutage([acknowledged(1, 110)], { fromMs: 100, toMs: 5_000 })
  assert.deepEqual([outage.gapMs, outage.recovered], [4_890, false])
  assert.equal(writeOutage([], { fromMs: 0, toMs: 50 }).gapMs, 50)
})

test('the write log is read back as it was written, without a torn last line', () => {
  const events: WriteEvent[] = [acknowledged(7, 12.5), { kind: 'error', id: idOf(2, 1), atMs: 3, code: 'ECONNRESET' }]
  const text = events.map(writeLogLine).join('')
  assert.deepEqual(parseWriteLog(text), events)
  assert.deepEqual(parseWriteLog(`${text}A 1 2`), events)
  assert.deepEqual(errorCounts(events), { ECONNRESET: 1 })
  assert.deepEqual(errorCounts(events, { fromMs: 10, toMs: 20 }), {})
})

test('a row that was acknowledged and is not there is lost; one that is there unasked is not', () => {
  const events = [acknowledged(1, 10), acknowledged(2, 20)]
  const rows = parseRows(`${idOf(1, 1)}|2\n${idOf(1, 3)}|1\n`)
  assert.deepEqual(judgeWrites(events, rows), { acknowledged: 2, lost: [idOf(1, 2)], duplicates: 1, unacknowledged: 1 })
})
