import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { nowMs } from '../../infra/lab/database-client.ts'
import { heal, inject } from '../../infra/lab/faults.ts'
import {
  type ObserverTargets,
  prepareObservers,
  readWriter,
  servedSpansNow,
  startObservers,
  startWriter,
  stopInstrument,
  stopObservers,
} from '../../infra/lab/instruments.ts'
import { queryLocally } from '../../infra/lab/local-query.ts'
import { createMachines, destroyMachines } from '../../infra/lab/machine.ts'
import { type Judgement, judgeObservations } from '../../infra/lab/observations.ts'
import { dataDirOf } from '../../infra/lab/pair.ts'
import {
  acknowledgements,
  errorCounts,
  judgeWrites,
  parseRows,
  WRITE_TABLE,
  writeOutage,
} from '../../infra/lab/write-log.ts'
import { until } from '../fixtures/until.ts'
import { moveVip, plainUri, runPlainDatabase, startPlainDatabase } from './lab-database.ts'

/** Each of these takes a second or two where nothing else runs. */
const LIMIT_MS = 60_000
const lab = `t-ins-${process.pid}`.slice(0, 16)
const targets: ObserverTargets = {
  client: { vip: plainUri('vip'), 'a:lan': plainUri('a'), 'b:lan': plainUri('b') },
  inside: {
    a: { 'a:inside': 'postgres://postgres@127.0.0.1:5432/postgres' },
    b: { 'b:inside': 'postgres://postgres@127.0.0.1:5432/postgres' },
  },
}

before(async () => {
  await createMachines({ name: lab })
  await startPlainDatabase(lab, 'a')
  await moveVip(lab, 'a', 'add')
})
after(() => destroyMachines(lab))

function rowsOnA(): Promise<string> {
  const sql = `select id, attempts from ${WRITE_TABLE}`
  return queryLocally({ socketDir: dataDirOf(lab, 'a'), database: 'postgres', user: 'postgres', sql })
}

test('the observer finds one serving host where one database serves', async () => {
  await prepareObservers(lab, plainUri('a'))
  await startObservers(lab, targets)
  await until(async () => {
    const seen = judgeObservations(await servedSpansNow(lab)).instances[0]
    return seen !== undefined && seen.reads > 100 && seen.writes > 100 && seen.targets.length === 3
  }, LIMIT_MS)
  const { instances, violations, undecided } = await stopObservers(lab)
  assert.equal(instances.length, 1)
  assert.deepEqual([violations, undecided], [[], []])
  const [only] = instances
  assert.equal(only?.host, 'a')
  assert.deepEqual(only?.targets, ['a:inside', 'a:lan', 'vip'])
})

test('the writer tells an outage, a row written twice after a lost answer, and a row that is gone', async () => {
  const writer = await startWriter(lab, { uri: plainUri('vip') })
  await sleep(500)
  const fromMs = nowMs()
  await inject(lab, { kind: 'freeze', host: 'a', what: 'postgres' })
  const frozenMs = nowMs()
  await sleep(400)
  const stillFrozenMs = nowMs()
  await inject(lab, { kind: 'continue', host: 'a' })
  const thawedMs = nowMs()
  const goesOn = (): boolean =>
    readWriter(writer).some(event => event.kind === 'acknowledged' && event.sentMs > thawedMs)
  await until(goesOn, LIMIT_MS)
  const toMs = nowMs()
  const outage = writeOutage(readWriter(writer), { fromMs, toMs })
  // What had been answered by then may be heard a little later on a busy machine; what that adds lies within the stretch.
  const heard = acknowledgements(readWriter(writer)).map(event => event.ackMs)
  const lastMs = Math.max(...heard.filter(atMs => atMs <= stillFrozenMs))
  const bounds = [stillFrozenMs - lastMs, toMs - fromMs] as const
  assert.ok(lastMs < (frozenMs + stillFrozenMs) / 2, 'a database that stands still answers nothing')
  assert.ok(
    outage.recovered && outage.gapMs >= bounds[0] && outage.gapMs <= bounds[1],
    `${outage.gapMs} ms of ${bounds}`,
  )

  // Answers get lost, not requests: rows are there and the client cannot know.
  const cutMs = nowMs()
  await inject(lab, { kind: 'cut', from: 'a', to: 'c', oneWay: true })
  await until(async () => {
    const there = new Set(parseRows(await rowsOnA()).map(row => row.id))
    return readWriter(writer).some(event => event.kind === 'error' && event.atMs > cutMs && there.has(event.id))
  }, LIMIT_MS)
  await inject(lab, { kind: 'power', host: 'a' })
  await heal(lab)
  await runPlainDatabase(lab, 'a')
  await moveVip(lab, 'a', 'add')
  const healedMs = nowMs()
  await until(async () => {
    const events = readWriter(writer)
    const goesOn = events.some(event => event.kind === 'acknowledged' && event.sentMs > healedMs)
    return goesOn && judgeWrites(events, parseRows(await rowsOnA())).duplicates > 0
  }, LIMIT_MS)
  await stopInstrument(writer)
  const events = readWriter(writer)
  const rows = parseRows(await rowsOnA())
  const verdict = judgeWrites(events, rows)
  assert.ok(verdict.acknowledged > 100)
  assert.deepEqual(verdict.lost, [])
  assert.ok(verdict.duplicates > 0, 'a row whose answer was cut off was written twice')
  assert.ok(Object.keys(errorCounts(events)).length > 0)

  const without = rows.slice(1)
  assert.deepEqual(judgeWrites(events, without).lost, [rows[0]!.id])
})

test('the observer sees two hosts that serve at once, which is what a disabled gate looks like', async () => {
  await startPlainDatabase(lab, 'b')
  await prepareObservers(lab, plainUri('b'))
  await startObservers(lab, targets)
  const startedMs = nowMs()
  let violation: Judgement['violations'][number] | undefined
  await until(async () => {
    const { violations } = judgeObservations(await servedSpansNow(lab))
    violation = violations.find(({ instances }) => instances.every(instance => instance.certainToMs > startedMs))
    return (violation?.certainMs ?? 0) > 300
  }, LIMIT_MS)
  await stopObservers(lab)
  assert.deepEqual(violation?.instances.map(instance => instance.host).sort(), ['a', 'b'])
})
