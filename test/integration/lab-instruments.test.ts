import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { nowMs } from '../../infra/lab/database-client.ts'
import { heal, inject } from '../../infra/lab/faults.ts'
import {
  type ObserverTargets,
  prepareObservers,
  readWriter,
  startObservers,
  startWriter,
  stopInstrument,
  stopObservers,
} from '../../infra/lab/instruments.ts'
import { queryLocally } from '../../infra/lab/local-query.ts'
import { createMachines, destroyMachines } from '../../infra/lab/machine.ts'
import { dataDirOf } from '../../infra/lab/pair.ts'
import { errorCounts, judgeWrites, parseRows, WRITE_TABLE, writeOutage } from '../../infra/lab/write-log.ts'
import { moveVip, plainUri, runPlainDatabase, startPlainDatabase } from './lab-database.ts'

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
  await sleep(1_500)
  const { instances, violations, undecided } = await stopObservers(lab)
  assert.equal(instances.length, 1)
  assert.deepEqual([violations, undecided], [[], []])
  const [only] = instances
  assert.equal(only?.host, 'a')
  assert.deepEqual(only?.targets, ['a:inside', 'a:lan', 'vip'])
  assert.ok(only!.reads > 100 && only!.writes > 100, `${only!.reads} reads, ${only!.writes} writes`)
})

test('the writer tells an outage, a row written twice after a lost answer, and a row that is gone', async () => {
  const writer = await startWriter(lab, { uri: plainUri('vip') })
  await sleep(500)
  const fromMs = nowMs()
  await inject(lab, { kind: 'freeze', host: 'a', what: 'postgres' })
  await sleep(400)
  await inject(lab, { kind: 'continue', host: 'a' })
  await sleep(400)
  const outage = writeOutage(readWriter(writer), { fromMs, toMs: nowMs() })
  assert.ok(outage.recovered && outage.gapMs > 380 && outage.gapMs < 700, `the outage was ${outage.gapMs} ms`)

  // Answers get lost, not requests: rows are there and the client cannot know.
  await inject(lab, { kind: 'cut', from: 'a', to: 'c', oneWay: true })
  await sleep(100)
  await inject(lab, { kind: 'power', host: 'a' })
  await heal(lab)
  await runPlainDatabase(lab, 'a')
  await moveVip(lab, 'a', 'add')
  await sleep(4_000)
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
  await sleep(800)
  const { violations } = await stopObservers(lab)
  const [violation] = violations.filter(({ instances }) =>
    instances.every(instance => instance.certainToMs > nowMs() - 5_000),
  )
  assert.deepEqual(violation?.instances.map(instance => instance.host).sort(), ['a', 'b'])
  assert.ok(violation!.certainMs > 300, `seen for ${violation!.certainMs} ms`)
})
