import assert from 'node:assert/strict'
import { test } from 'node:test'
import { getHost } from '../../../shared/contract/api/hosts.ts'
import { acknowledgeAlarm, listAlarms, listEvents } from '../../../shared/contract/api/observation.ts'
import { cancelOperation, getOperation, listOperations } from '../../../shared/contract/api/operations.ts'
import {
  beginMaintenance,
  changeSettings,
  endMaintenance,
  getPair,
  getPrechecks,
  getReadiness,
  startPrechecks,
  switchOver,
  takeOver,
  unpair,
} from '../../../shared/contract/api/pairs.ts'
import { pairReport } from '../support/host.ts'
import { adoptedPair } from '../support/pair.ts'
import type { Runtime } from '../support/runtime.ts'
import { refusal } from './tenancy.ts'
export function pairOperationTests(runtime: () => Runtime): void {
  test('a switchover is commanded to the primary for its epoch, and succeeds when the other serves', async () => {
    const { client, id, a, healthy } = await adoptedPair(runtime())
    const params = { pair: id }
    const begun = await client.call(switchOver, { params, body: { reason: 'kernel update', expectedEpoch: 1 } })
    assert.equal(begun.status, 202)
    assert.ok('id' in begun.body)
    const operation = { operation: begun.body.id }
    await assert.rejects(
      client.call(switchOver, { params, body: { reason: 'again' } }),
      refusal('operation_in_progress', 409),
    )
    const asked = await a.nextCommand()
    assert.deepEqual([asked.verb, asked.only], ['switchover', { gen: 1, epoch: 1, node: 'a' }])
    await assert.rejects(client.call(cancelOperation, { params: operation }), refusal('not_cancellable', 409))
    await a.ack(asked, { phase: 'done', message: 'b serves in epoch 2' })
    await healthy({ primary: 'b', epoch: 2 })
    const done = await client.call(getOperation, { params: operation, wait: 10 })
    assert.equal(done.body.state, 'succeeded', done.body.message)
    const { body: pair } = await client.call(getPair, { params })
    assert.deepEqual(
      [pair.status.primary, pair.lastSwitchover?.kind, pair.lastSwitchover?.reason],
      ['b', 'planned', 'kernel update'],
    )
    assert.equal(pair.status.vips[0]?.holder, 'b')
  })

  test('a switchover is refused with reasons while the backup is abnormal or synchronisation runs, and a dry run says the same', async () => {
    const { client, id, a, b } = await adoptedPair(runtime())
    const params = { pair: id }
    const primary = pairReport({ role: 'primary', primary: 'a' })
    await a.send({
      pair: { ...primary, replication: { ...primary.replication, streaming: false, operation: 'base backup' } },
    })
    await b.send({ pair: { ...pairReport({ role: 'backup', primary: 'a' }), role: 'unsettled' } })
    const dry = await client.call(switchOver, { params, body: { reason: 'try', dryRun: true } })
    assert.equal(dry.status, 200)
    assert.ok('dryRun' in dry.body && !dry.body.allowed && dry.body.obstacles.length === 3, JSON.stringify(dry.body))
    await assert.rejects(client.call(switchOver, { params, body: { reason: 'do' } }), (error: unknown) => {
      refusal('operation_refused', 409)(error)
      assert.match(
        String(error),
        /synchronisation is running \(base backup\).*synchronisation is broken.*beta is unsettled/,
      )
      return true
    })
    await assert.rejects(
      client.call(switchOver, { params, body: { reason: 'old news', expectedEpoch: 9 } }),
      refusal('epoch_changed', 409),
    )
    const { body: operations } = await client.call(listOperations, { query: { pair: id } })
    assert.deepEqual(
      operations.data.map(one => one.kind),
      ['setUp'],
    )
  })

  test('a host that says no fails the operation with its reason', async () => {
    const { client, id, a } = await adoptedPair(runtime())
    const begun = await client.call(switchOver, { params: { pair: id }, body: { reason: 'update' } })
    assert.ok('id' in begun.body)
    await a.ack(await a.nextCommand(), { phase: 'refused', message: 'the local policy allows no remote switchover' })
    const done = await client.call(getOperation, { params: { operation: begun.body.id }, wait: 5 })
    assert.equal(done.body.state, 'failed')
    assert.match(done.body.message, /local policy/)
  })

  test('an acknowledgement that the host did not sign, or of another host, changes nothing', async () => {
    const { client, id, a, b } = await adoptedPair(runtime())
    const begun = await client.call(switchOver, { params: { pair: id }, body: { reason: 'update' } })
    assert.ok('id' in begun.body)
    const asked = await a.nextCommand()
    await b.ack(asked, { phase: 'refused', message: 'I am not even asked' })
    const { body } = await client.call(getOperation, { params: { operation: begun.body.id } })
    assert.equal(body.state, 'running')
  })

  test('that a command began, told late, takes back nothing that was told after it', async () => {
    const { client, id, a } = await adoptedPair(runtime())
    const begun = await client.call(switchOver, { params: { pair: id }, body: { reason: 'update' } })
    assert.ok('id' in begun.body)
    const params = { operation: begun.body.id }
    const asked = await a.nextCommand()
    await a.ack(asked, { phase: 'progress', message: 'half of it' })
    // The host tells over two ways, and one of them may be slow.
    await a.ack(asked, { phase: 'accepted', message: 'begins' })
    const { body } = await client.call(getOperation, { params })
    assert.deepEqual([body.steps[0]?.state, body.steps[0]?.message], ['running', 'half of it'])
  })

  test('a switchover is planned for a window, shown as scheduled, and called off', async () => {
    const { client, id } = await adoptedPair(runtime())
    const params = { pair: id }
    const at = (minutes: number): string => new Date(Date.now() + minutes * 60_000).toISOString()
    await assert.rejects(
      client.call(switchOver, { params, body: { reason: 'night', notBefore: at(60) } }),
      refusal('invalid', 422),
    )
    const begun = await client.call(switchOver, {
      params,
      body: { reason: 'night', notBefore: at(60), notAfter: at(90) },
    })
    assert.ok('id' in begun.body)
    assert.equal(begun.body.state, 'scheduled')
    assert.match(
      begun.body.message,
      /^begins at .*Z or as soon as nothing stands in the way any more; not begun by .*Z it is called off$/,
    )
    await assert.rejects(
      client.call(switchOver, { params, body: { reason: 'again', notBefore: at(70), notAfter: at(80) } }),
      /409 operation_in_progress: switchover .* is scheduled for .*: call it off first/,
    )
    const { body } = await client.call(cancelOperation, { params: { operation: begun.body.id } })
    assert.equal(body.state, 'cancelled')
  })

  test('a planned switchover keeps nothing of its pair waiting before it begins, waits for what is under way, and then nothing else begins', async () => {
    const { client, id, a, healthy } = await adoptedPair(runtime())
    const params = { pair: id }
    const at = (seconds: number): string => new Date(Date.now() + seconds * 1000).toISOString()
    const window = { notBefore: at(1), notAfter: at(120) }
    const planned = await client.call(switchOver, { params, body: { reason: 'night', ...window } })
    assert.ok('id' in planned.body)
    const operation = { operation: planned.body.id }
    const { etag } = await client.call(getPair, { params })
    const wish = { forMinutes: 30, reason: 'cabling' }
    const maintained = await client.call(beginMaintenance, { params, body: wish, ifMatch: etag! })
    const cabling = await a.nextCommand()
    await until(async () => {
      await runtime().sweep()
      const { body } = await client.call(getOperation, { params: operation })
      return (
        body.state === 'scheduled' && body.message.startsWith(`waits: maintenance ${maintained.body.id} is under way`)
      )
    })
    await a.ack(cabling, { phase: 'done' })
    // It asks again each half minute: called off and planned anew, it need not be waited for.
    await client.call(cancelOperation, { params: operation })
    const again = await client.call(switchOver, { params, body: { reason: 'night', ...window, notBefore: at(1) } })
    assert.ok('id' in again.body)
    const begins = { operation: again.body.id }
    await until(async () => {
      await healthy()
      await runtime().sweep()
      return (await client.call(getOperation, { params: begins })).body.state === 'running'
    })
    assert.equal((await a.nextCommand()).verb, 'switchover')
    await assert.rejects(
      client.call(switchOver, { params, body: { reason: 'now' } }),
      new RegExp(`409 operation_in_progress: switchover ${begins.operation} is under way; wait for its end`),
    )
  })

  test('a forced takeover wants an acknowledgement that covers the known lag, and the other host not serving', async () => {
    const { client, id, a, b } = await adoptedPair(runtime())
    const params = { pair: id }
    const acknowledge = { otherHostIsOff: true as const, lossBytes: 0 }
    const body = { host: 'b' as const, expectedGen: 1, expectedEpoch: 1, reason: 'a is dead', acknowledge }
    await assert.rejects(client.call(takeOver, { params, body }), refusal('operation_refused', 409))
    const primary = pairReport({ role: 'primary', primary: 'a' })
    await a.send({
      pair: {
        ...primary,
        serving: false,
        protection: 'not serving',
        replication: { ...primary.replication, lagBytes: 4096 },
      },
    })
    await assert.rejects(client.call(takeOver, { params, body }), (error: unknown) => {
      assert.match(String(error), /last known lag is 4096 bytes/)
      return true
    })
    const begun = await client.call(takeOver, {
      params,
      body: { ...body, acknowledge: { ...acknowledge, lossBytes: 4096 } },
    })
    const asked = await b.nextCommand()
    assert.deepEqual(
      [asked.verb, asked.args, asked.only],
      ['takeover', { withWitness: true }, { gen: 1, epoch: 1, node: 'b' }],
    )
    await b.ack(asked, { phase: 'done' })
    await b.send({ pair: { ...pairReport({ role: 'primary', primary: 'b', epoch: 2 }), gen: 2 } })
    const done = await client.call(getOperation, { params: { operation: begun.body.id }, wait: 10 })
    assert.equal(done.body.state, 'succeeded', done.body.message)
  })

  test('a takeover over a gen that was forced on the other host and never heard of here wants that gen named', async () => {
    const { client, id, a, b } = await adoptedPair(runtime())
    const params = { pair: id }
    const primary = pairReport({ role: 'primary', primary: 'a' })
    await a.send({ pair: { ...primary, serving: false, protection: 'not serving' } })
    const acknowledge = { otherHostIsOff: true as const, lossBytes: 0 }
    const body = { host: 'b' as const, expectedGen: 1, expectedEpoch: 1, reason: 'a is dead', acknowledge }
    const over = (overGen: number) => ({ ...body, acknowledge: { ...acknowledge, overGen } })
    await assert.rejects(client.call(takeOver, { params, body: over(3) }), refusal('conflict', 409))
    await b.send({ pair: { ...pairReport({ role: 'backup', primary: 'a' }), genHeard: 3 } })
    for (const unnamed of [body, over(2)])
      await assert.rejects(client.call(takeOver, { params, body: unnamed }), (error: unknown) => {
        refusal('operation_refused', 409)(error)
        assert.match(String(error), /gen 3 was forced on the other host.*beta, at gen 1, has heard nothing/)
        return true
      })
    await client.call(takeOver, { params, body: over(3) })
    const asked = await b.nextCommand()
    assert.deepEqual(
      [asked.args, asked.only],
      [
        { withWitness: true, overGen: 3 },
        { gen: 1, epoch: 1, node: 'b' },
      ],
    )
  })

  test('maintenance is told to the primary, shown with its end, and ended before its time', async () => {
    const { client, id, a } = await adoptedPair(runtime())
    const params = { pair: id }
    const first = await client.call(getPair, { params })
    const begun = await client.call(beginMaintenance, {
      params,
      body: { forMinutes: 30, reason: 'cabling' },
      ifMatch: first.etag!,
    })
    const asked = await a.nextCommand()
    assert.deepEqual([asked.verb, asked.args], ['maintenance', { forMs: 1_800_000 }])
    await a.ack(asked, { phase: 'done' })
    await client.call(getOperation, { params: { operation: begun.body.id }, wait: 5 })
    const shown = await client.call(getPair, { params })
    assert.equal(shown.body.status.maintenance?.reason, 'cabling')
    const ended = await client.call(endMaintenance, { params, ifMatch: shown.etag! })
    await a.ack(await a.nextCommand(), { phase: 'done' })
    await client.call(getOperation, { params: { operation: ended.body.id }, wait: 5 })
    assert.equal((await client.call(getPair, { params })).body.status.maintenance, null)
    await a.send({ pair: { ...pairReport({ role: 'primary', primary: 'a' }), maintenance: true } })
    const { body: alarms } = await client.call(listAlarms, { query: { pair: id } })
    assert.deepEqual(alarms.data, [], 'the host’s last word of it is no forgotten maintenance')
    const { body: told } = await client.call(listEvents, { query: { pair: id, kind: 'operation_started', limit: 100 } })
    assert.deepEqual(
      told.data.slice(-2).map(one => one.message),
      ['maintenance begins: cabling', 'the end of maintenance begins: before its time'],
    )
  })

  test('readiness puts the verdicts of both hosts together, and silence is unknown', async () => {
    const { client, id, b } = await adoptedPair(runtime())
    const params = { pair: id }
    const good = await client.call(getReadiness, { params })
    assert.deepEqual([good.body.takeover, good.body.switchover, good.body.obstacles], ['yes', 'yes', []])
    assert.equal(good.body.predicted.powerCutOutageMs, 1064)
    const backup = pairReport({ role: 'backup', primary: 'a' })
    await b.send({
      pair: {
        ...backup,
        check: { ...backup.check!, takeover: false, blocking: ['this host does not reach the witness'] },
      },
    })
    const bad = await client.call(getReadiness, { params })
    assert.equal(bad.body.takeover, 'no')
    assert.match(bad.body.obstacles[0]!.why, /beta: this host does not reach the witness/)
  })

  test('prechecks name what is measured, the limit and the remedy, from facts alone and from the hosts', async () => {
    const { client, id, a, b } = await adoptedPair(runtime())
    const params = { pair: id }
    const { body } = await client.call(getPrechecks, { params })
    assert.equal(body.passed, true)
    assert.equal(body.results.find(one => one.code === 'postgres_version')?.severity, 'passed')
    for (const one of body.results)
      for (const text of [one.code, one.measured, one.limit, one.remedy]) assert.notEqual(text, '')
    const witness = { kind: 'own' as const, url: 'https://10.9.0.9:7443', fingerprint: 'ab'.repeat(32) }
    const { etag } = await client.call(getPair, { params })
    await client.call(changeSettings, { params, body: { arbitration: { witness } }, ifMatch: etag! })
    const { body: known } = await client.call(getPrechecks, { params })
    const reached = known.results.find(one => one.code === 'witness')
    assert.deepEqual([reached?.severity, reached?.measured], ['passed', 'reached, 4.0 ms for a vote at p99'])
    assert.match(reached?.limit ?? '', /^a vote within \d+ ms at p99, which the profile default admits$/)
    const begun = await client.call(startPrechecks, { params, body: {} })
    const mtu = { code: 'mtu', severity: 'warning', measured: '1400', limit: '1500', remedy: 'set it' }
    const asked = await a.nextCommand()
    const { limitMs, ...at } = asked.args.witness as { limitMs: number }
    assert.deepEqual(at, { url: witness.url, fingerprint: witness.fingerprint })
    assert.ok(limitMs > 10 && limitMs < 1_000, `${limitMs} ms`)
    await a.ack(asked, { phase: 'done', result: { results: [mtu] } })
    await b.ack(await b.nextCommand(), { phase: 'done', result: { results: [] } })
    const done = await client.call(getOperation, { params: { operation: begun.body.id }, wait: 5 })
    assert.deepEqual(done.body.result, { results: [{ host: 'a', ...mtu }] })
  })

  test('what a host makes up as its results is shown as unknown, and holds up nothing', async () => {
    const { client, id, a, b } = await adoptedPair(runtime())
    const made = [
      { results: 'all well' },
      { results: { length: 1 } },
      { results: [null] },
      { results: [{ code: 1 }] },
      { results: Array.from({ length: 500 }, () => ({})) },
    ]
    for (const result of made) {
      const begun = await client.call(startPrechecks, { params: { pair: id }, body: {} })
      await a.ack(await a.nextCommand(), { phase: 'done', result })
      await b.ack(await b.nextCommand(), { phase: 'done', result: { results: [] } })
      const done = await client.call(getOperation, { params: { operation: begun.body.id }, wait: 5 })
      assert.equal(done.body.state, 'succeeded', done.body.message)
      const { results } = done.body.result as { results: { host: string; code: string; severity: string }[] }
      assert.deepEqual(
        results.map(one => [one.host, one.code, one.severity]),
        [['a', 'answer', 'unknown']],
      )
    }
  })

  test('an alarm is raised by its cause, acknowledged by a person, and cleared by its cause going away', async () => {
    const { client, id, a, healthy } = await adoptedPair(runtime())
    await a.send({
      pair: {
        ...pairReport({ role: 'primary', primary: 'a' }),
        protection: 'serving but unprotected',
        why: 'the backup is silent',
      },
    })
    const { body } = await client.call(listAlarms, { query: { pair: id, state: 'raised' } })
    assert.deepEqual(
      body.data.map(one => one.kind),
      ['protection_lost'],
    )
    assert.match(body.data[0]!.message, /the backup is silent/)
    const { body: seen } = await client.call(acknowledgeAlarm, { params: { alarm: body.data[0]!.id } })
    assert.equal(seen.state, 'acknowledged')
    await healthy()
    const { body: after } = await client.call(listAlarms, { query: { pair: id } })
    assert.deepEqual(
      after.data.map(one => one.state),
      ['cleared'],
    )
  })

  test('a pair is ended without loss: the backup leaves first, and both hosts are free for another pair', async () => {
    const { client, id, a, b } = await adoptedPair(runtime())
    const at = (minutes: number): string => new Date(Date.now() + minutes * 60_000).toISOString()
    const planned = await client.call(switchOver, {
      params: { pair: id },
      body: { reason: 'night', notBefore: at(60), notAfter: at(90) },
    })
    const { etag } = await client.call(getPair, { params: { pair: id } })
    const begun = await client.call(unpair, { params: { pair: id }, body: { reason: 'move' }, ifMatch: etag! })
    const first = await b.nextCommand()
    assert.equal(first.verb, 'pairLeave')
    await b.ack(first, { phase: 'done' })
    const unprotected = { protection: 'serving but unprotected', why: 'the other one has left' } as const
    await a.send({ pair: { ...pairReport({ role: 'primary', primary: 'a' }), ...unprotected } })
    await a.ack(await a.nextCommand(), { phase: 'done' })
    const done = await client.call(getOperation, { params: { operation: begun.body.id }, wait: 5 })
    assert.equal(done.body.state, 'succeeded')
    const { body: alarms } = await client.call(listAlarms, { query: { pair: id } })
    assert.deepEqual(
      alarms.data.map(one => [one.kind, one.state]),
      [['protection_lost', 'cleared']],
    )
    assert.ok('id' in planned.body)
    const { body: never } = await client.call(getOperation, { params: { operation: planned.body.id } })
    assert.deepEqual([never.state, never.message], ['cancelled', 'the pair was ended'])
    const { body } = await client.call(getHost, { params: { host: a.identity.host } })
    assert.equal(body.pair, null)
    await assert.rejects(
      client.call(switchOver, { params: { pair: id }, body: { reason: 'x' } }),
      refusal('conflict', 409),
    )
  })
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 30_000; !(await holds()); ) {
    assert.ok(Date.now() < end, 'it does not come to that within 30 s')
    await new Promise(resolve => setTimeout(resolve, 200))
  }
}
