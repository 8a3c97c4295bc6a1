import assert from 'node:assert/strict'
import { test } from 'node:test'
import { acceptTrust, keyRing } from '../../../node-agent/control/trust.ts'
import { getHost } from '../../../shared/contract/api/hosts.ts'
import { listAlarms } from '../../../shared/contract/api/observation.ts'
import { cancelOperation, getOperation, resumeOperation } from '../../../shared/contract/api/operations.ts'
import {
  admitWitness,
  changeKeys,
  changeSettings,
  getPair,
  listPairs,
  setUpPair,
} from '../../../shared/contract/api/pairs.ts'
import { desiredDocument } from '../../../shared/contract/api/settings.ts'
import { verifyDocument } from '../../../shared/contract/signing.ts'
import { enrolledHost, pairReport } from '../support/host.ts'
import { adoptedPair, settings, twoHosts } from '../support/pair.ts'
import type { Runtime } from '../support/runtime.ts'
import { refusal } from './tenancy.ts'
export function pairTests(runtime: () => Runtime): void {
  test('a set-up goes step by step: prechecks on both, the first host, the sealed secret to the second, protection', async () => {
    const { client, a, b } = await twoHosts(runtime())
    const hosts = { a: a.identity.host, b: b.identity.host }
    const begun = await client.call(setUpPair, { body: { name: 'orders', hosts, settings } })
    assert.equal(begun.status, 202)
    assert.equal(begun.headers.get('location'), `/v1/operations/${begun.body.operation.id}`)
    const params = { operation: begun.body.operation.id }
    for (const host of [a, b]) {
      const asked = await host.nextCommand()
      assert.equal(asked.verb, 'prechecks')
      await host.ack(asked, {
        phase: 'done',
        result: { results: [{ code: 'rtt', severity: 'passed', measured: '1 ms', limit: '10 ms', remedy: '' }] },
      })
    }
    const begin = await a.nextCommand()
    assert.deepEqual([begin.verb, begin.args.peerSealingKey], ['pairBegin', b.identity.sealingKey.x])
    await a.ack(begin, { phase: 'accepted' })
    await a.ack(begin, { phase: 'progress', percent: 40, message: 'a new cluster' })
    const midway = await client.call(getOperation, { params })
    assert.ok(midway.body.progress > 40 && midway.body.progress < 100, String(midway.body.progress))
    await a.ack(begin, { phase: 'done', result: { sealed: 'for beta alone' } })
    const join = await b.nextCommand()
    assert.deepEqual([join.verb, join.args], ['pairJoin', { sealed: 'for beta alone' }])
    await b.ack(join, { phase: 'done' })
    await a.send({ pair: pairReport({ role: 'primary', primary: 'a' }) })
    const done = await client.call(getOperation, { params, wait: 10 })
    assert.deepEqual([done.body.state, done.body.progress], ['succeeded', 100])
    const { body: pair } = await client.call(getPair, { params: { pair: begun.body.pair } })
    assert.deepEqual([pair.state, pair.status.protection, pair.status.primary], ['paired', 'protected', 'a'])
  })

  test('a set-up stops at a precheck that a host failed, and is resumed when that is mended', async () => {
    const { client, a, b } = await twoHosts(runtime())
    const hosts = { a: a.identity.host, b: b.identity.host }
    const begun = await client.call(setUpPair, { body: { name: 'orders', hosts, settings } })
    const params = { operation: begun.body.operation.id }
    const taken = {
      code: 'vip_free',
      severity: 'blocking',
      measured: 'answered by 02:00',
      limit: 'nobody answers',
      remedy: 'free it',
    }
    const [first, second] = [await a.nextCommand(), await b.nextCommand()]
    await a.ack(first, { phase: 'done', result: { results: [taken] } })
    await b.ack(second, { phase: 'done', result: { results: [] } })
    const failed = await client.call(getOperation, { params, wait: 5 })
    assert.equal(failed.body.state, 'failed')
    assert.match(failed.body.message, /vip_free \(host a\): answered by 02:00/)
    await client.call(resumeOperation, { params })
    await a.ack(await a.nextCommand(), { phase: 'done', result: { results: [] } })
    await b.ack(await b.nextCommand(), { phase: 'done', result: { results: [] } })
    assert.equal((await a.nextCommand()).verb, 'pairBegin')
    const cancelled = await client.call(cancelOperation, { params })
    assert.equal(cancelled.body.state, 'cancelled')
  })

  test('a set-up with hosts that were not heard, or are in another pair, changes nothing', async () => {
    const { client, a, b } = await twoHosts(runtime())
    const silent = await enrolledHost(client, { name: 'gamma', address: '10.9.0.3' })
    const wanted = (hosts: { a: string; b: string }) =>
      client.call(setUpPair, { body: { name: 'orders', hosts, settings, adopt: true } })
    await assert.rejects(wanted({ a: a.identity.host, b: silent.identity.host }), refusal('operation_refused', 409))
    await wanted({ a: a.identity.host, b: b.identity.host })
    await assert.rejects(wanted({ a: a.identity.host, b: b.identity.host }), refusal('operation_refused', 409))
    const { body } = await client.call(listPairs, {})
    assert.equal(body.data.length, 1)
  })

  test('a ping target is refused as arbiter with the reason, and rules between fields name their field', async () => {
    const { client, a, b } = await twoHosts(runtime())
    const hosts = { a: a.identity.host, b: b.identity.host }
    const wrong = {
      ...settings,
      vips: [{ address: '10.9.0.1/24', interface: 'eth0' }],
      arbitration: { witness: { kind: 'ping' as const, addresses: ['10.9.0.254'] } },
      protectedPorts: [7400],
    }
    await assert.rejects(
      client.call(setUpPair, { body: { name: 'orders', hosts, settings: wrong } }),
      (error: unknown) => {
        refusal('invalid', 422)(error)
        assert.match(String(error), /a ping target cannot arbitrate/)
        return true
      },
    )
    const second = { ...wrong, arbitration: {} }
    await assert.rejects(
      client.call(setUpPair, { body: { name: 'orders', hosts, settings: second } }),
      (error: unknown) => {
        const { violations } = (error as { problem: { violations: { field: string }[] } }).problem
        assert.deepEqual(violations.map(one => one.field).sort(), [
          'body.settings.peerPort',
          'body.settings.vips.0.address',
        ])
        return true
      },
    )
  })

  test('a set-up goes no further when a host answers the prechecks with what is no list of results', async () => {
    const { client, a, b } = await twoHosts(runtime())
    const hosts = { a: a.identity.host, b: b.identity.host }
    const { body } = await client.call(setUpPair, { body: { name: 'orders', hosts, settings } })
    await a.ack(await a.nextCommand(), { phase: 'done', result: { results: 'all well' } })
    await b.ack(await b.nextCommand(), { phase: 'done', result: { results: [] } })
    const done = await client.call(getOperation, { params: { operation: body.operation.id }, wait: 5 })
    assert.equal(done.body.state, 'failed')
    assert.match(done.body.message, /host a answered in a form that is not known here/)
  })

  test('changed settings go to both hosts as whole signed documents, one generation up', async () => {
    const { client, id, a, b } = await adoptedPair(runtime())
    const { etag, body: before } = await client.call(getPair, { params: { pair: id } })
    const vips = [{ address: '10.9.0.101/24', interface: 'eth0' }]
    const changed = await client.call(changeSettings, { params: { pair: id }, body: { vips }, ifMatch: etag! })
    assert.equal(changed.body.generation, before.generation + 1)
    for (const [host, node] of [
      [a, 'a'],
      [b, 'b'],
    ] as const) {
      const pulled = await host.cloud.pull()
      assert.ok(pulled.ok && pulled.value !== null)
      const trusted = await acceptTrust(pulled.value.trust, {
        rootFingerprint: host.identity.rootFingerprint,
        heldVersion: 0,
      })
      assert.ok(trusted.ok)
      const verified = await verifyDocument(pulled.value.desired!, 'desired', keyRing(trusted.document, 'desired'))
      assert.ok(verified.ok, JSON.stringify(verified))
      const document = desiredDocument.parse(verified.payload)
      assert.deepEqual(
        [document.generation, document.pair?.node, document.pair?.settings.vips[0]?.address],
        [2, node, '10.9.0.101/24'],
      )
      assert.equal(
        (await verifyDocument(pulled.value.desired!, 'command', keyRing(trusted.document, 'command'))).ok,
        false,
      )
      assert.deepEqual(await host.cloud.pull(), { ok: true, value: null }, '304 when nothing is new')
    }
    await assert.rejects(
      client.call(changeSettings, { params: { pair: id }, body: { profile: 'fast' }, ifMatch: etag! }),
      refusal('stale', 412),
    )
    const { body: shown } = await client.call(getHost, { params: { host: a.identity.host } })
    assert.equal(
      shown.conditions.find(one => one.type === 'Applied')?.status,
      'False',
      'generation 2 is wanted, none is applied',
    )
  })

  test('an operation shows how far each host is with changed settings, and fails with the reason of the one that went back', async () => {
    const { client, id, a, b } = await adoptedPair(runtime())
    const wish = async (body: { vips: { address: string; interface: string }[] }) => {
      const { etag } = await client.call(getPair, { params: { pair: id } })
      const answer = await client.call(changeSettings, { params: { pair: id }, body, ifMatch: etag! })
      const operation = answer.headers.get('location')?.split('/').at(-1)
      assert.ok(operation !== undefined)
      return { operation }
    }
    const vip = (last: number) => ({ vips: [{ address: `10.9.0.${last}/24`, interface: 'eth0' }] })
    const report = (role: 'primary' | 'backup') => pairReport({ role, primary: 'a' })
    const first = await wish(vip(101))
    const params = await wish(vip(102))
    assert.equal((await client.call(getOperation, { params: first })).body.state, 'cancelled', 'nobody waits for it')
    const untilStep = async (name: string, state: string): Promise<string> => {
      for (const until = Date.now() + 20_000; Date.now() < until; ) {
        const { body } = await client.call(getOperation, { params, wait: 1 })
        const step = body.steps.find(one => one.id === name)
        if (step?.state === state) return step.message
      }
      throw new Error(`step ${name} does not become ${state}`)
    }
    await b.send({
      pair: report('backup'),
      observedGeneration: 3,
      applied: { status: 'True', generation: 3, why: '' },
    })
    await untilStep('applied-b', 'done')
    const why = 'vips[0].interface eth0 does not exist on this host'
    await a.send({
      pair: report('primary'),
      observedGeneration: 1,
      applied: { status: 'False', generation: 3, why },
    })
    assert.equal(await untilStep('applied-a', 'failed'), why)
    const { body: failed } = await client.call(getOperation, { params })
    assert.deepEqual([failed.kind, failed.state], ['settings', 'failed'])
    assert.match(failed.message, /host a runs with them: vips\[0\]\.interface eth0 does not exist/)
  })

  test('a witness that lost its vote is admitted anew on request: an alarm says so, and both hosts are told of one admission', async () => {
    const { client, id, a, b, healthy } = await adoptedPair(runtime())
    const ask = () => client.call(admitWitness, { params: { pair: id }, body: { reason: 'restored' } })
    await assert.rejects(ask(), refusal('operation_refused', 409))
    const report = pairReport({ role: 'primary', primary: 'a' })
    const why = 'the witness’ database was restored or promoted'
    await a.send({ pair: { ...report, witness: { reach: 'no', voteP99Ms: null, why, void: true } } })
    const { body: alarms } = await client.call(listAlarms, { query: { state: 'raised' } })
    const alarm = alarms.data.find(one => one.kind === 'witness_void')
    assert.match(alarm?.message ?? '', /no vote any more.*witness-admissions.*restored or promoted/)
    assert.ok(!alarms.data.some(one => one.kind === 'witness_lost'))
    const begun = await ask()
    assert.deepEqual([begun.status, begun.body.kind, begun.body.state], [202, 'witnessAdmission', 'running'])
    const wished = await Promise.all(
      [a, b].map(async host => {
        const pulled = await host.cloud.pull()
        assert.ok(pulled.ok && pulled.value?.desired)
        const { payload } = JSON.parse(pulled.value.desired) as { payload: string }
        return desiredDocument.parse(JSON.parse(Buffer.from(payload, 'base64url').toString())).pair?.settings
      }),
    )
    assert.match(wished[0]?.witnessAdmission ?? '', /^[0-9a-z]{26}$/)
    assert.deepEqual(wished[0], wished[1])
    await assert.rejects(
      client.call(changeSettings, {
        params: { pair: id },
        body: { witnessAdmission: null } as never,
        ifMatch: (await client.call(getPair, { params: { pair: id } })).etag!,
      }),
      refusal('invalid', 422),
    )
    await healthy()
    const after = await client.call(listAlarms, { query: { state: 'raised' } })
    assert.ok(!after.body.data.some(one => one.kind === 'witness_void'))
  })

  test('a change of keys names itself to both hosts and waits until each of them has it; no key passes through here', async () => {
    const { client, id, a, b, healthy } = await adoptedPair(runtime())
    const begun = await client.call(changeKeys, { params: { pair: id }, body: { reason: 'a year is over' } })
    assert.deepEqual([begun.status, begun.body.kind, begun.body.state], [202, 'keyChange', 'running'])
    const { body: after } = await client.call(getPair, { params: { pair: id } })
    assert.match(after.settings.keyChange ?? '', /^[0-9a-z]{26}$/)
    for (const host of [a, b]) {
      const { desired } = (await host.cloud.pull().then(pulled => (pulled.ok ? pulled.value : null))) ?? {}
      const { payload } = JSON.parse(desired ?? '{}') as { payload: string }
      const wish = desiredDocument.parse(JSON.parse(Buffer.from(payload, 'base64url').toString()))
      assert.equal(wish.pair?.settings.keyChange, after.settings.keyChange)
      assert.ok(!JSON.stringify(wish).includes('"d"'), 'no private key travels')
    }
    for (const host of [a, b]) {
      const role = host === a ? ('primary' as const) : ('backup' as const)
      await host.send({
        pair: pairReport({ role, primary: 'a' }),
        observedGeneration: 2,
        applied: { status: 'True', generation: 2, why: '' },
      })
    }
    const params = { operation: begun.body.id }
    for (const until = Date.now() + 60_000; Date.now() < until; ) {
      // Hosts report each ten seconds.
      await healthy()
      const { body } = await client.call(getOperation, { params, wait: 2 })
      if (body.state === 'succeeded') return
      assert.equal(body.state, 'running', body.message)
    }
    throw new Error('the change of keys does not end')
  })
}
