import assert from 'node:assert/strict'
import { test } from 'node:test'
import { getHost } from '../../../shared/contract/api/hosts.ts'
import { listAlarms, listEvents } from '../../../shared/contract/api/observation.ts'
import { cancelOperation, getOperation } from '../../../shared/contract/api/operations.ts'
import { getPair, setUpPair, unpair } from '../../../shared/contract/api/pairs.ts'
import { enrolledHost, fallenSilent, pairReport } from '../support/host.ts'
import { settings, type TestPair, twoHosts } from '../support/pair.ts'
import type { Runtime } from '../support/runtime.ts'
import { refusal } from './tenancy.ts'
import { admittedPair, ballot, voted } from './witness.ts'

interface Lost {
  host: 'a' | 'b'
  staysOff: true
  survivor: 'goes on' | 'is released'
}

/** A pair that does not end as one wishes: a host is gone for good, or it was never made. */
export function endingTests(runtime: () => Runtime): void {
  const end = async ({ client, id }: Pick<TestPair, 'client' | 'id'>, lost?: Lost) => {
    const { etag } = await client.call(getPair, { params: { pair: id } })
    const body = { reason: 'burnt down', lost }
    return (await client.call(unpair, { params: { pair: id }, body, ifMatch: etag! })).body
  }
  const lost: Lost = { host: 'b', staysOff: true, survivor: 'goes on' }

  test('a pair whose other host is gone for good is ended: the one that is left goes on alone, and what the lost one knows opens nothing', async () => {
    const pair = await admittedPair(runtime())
    const { client, a, b, inc, vote } = pair
    await vote({ kind: 'accept', req: 1, inc, ballot: ballot(1), value: voted(inc) })
    await assert.rejects(end(pair, lost), /409 conflict: host beta was heard within 30 s, so it is not gone/)
    await fallenSilent(runtime(), b.identity.host)
    const silent = /host beta was not heard within 30 s\. Where one is gone for good, name it as `lost`/
    await assert.rejects(end(pair), silent)
    const primary = pairReport({ role: 'primary', primary: 'a' })
    await a.send({ pair: { ...primary, serving: false, protection: 'not serving' } })
    await assert.rejects(
      end(pair, lost),
      /host alpha is primary and does not serve, so it cannot go on: force it first/,
    )
    await a.send({ pair: { ...primary, protection: 'serving but unprotected', why: 'the backup is silent' } })
    const begun = await end(pair, lost)
    const asked = await a.nextCommand()
    assert.deepEqual(
      [asked.verb, asked.args, asked.only],
      ['pairLeave', { otherIsLost: true }, { gen: 1, epoch: 1, node: 'a' }],
    )
    assert.equal((await client.call(getHost, { params: { host: b.identity.host } })).body.state, 'active')
    await a.ack(asked, { phase: 'done', message: 'a goes on alone' })
    const { body: done } = await client.call(getOperation, { params: { operation: begun.id }, wait: 5 })
    assert.equal(done.state, 'succeeded', done.message)
    const { body: gone } = await client.call(getHost, { params: { host: b.identity.host } })
    assert.deepEqual([gone.state, gone.pair], ['retired', null])
    assert.equal((await client.call(getHost, { params: { host: a.identity.host } })).body.pair, null)
    const pulled = await b.cloud.pull()
    assert.ok(!pulled.ok && pulled.status === 401)
    assert.equal((await vote({ kind: 'read', req: 2, inc }, { host: b, slot: 'b' })).status, 401)
    assert.equal((await vote({ kind: 'read', req: 3, inc })).body.kind, 'state', 'the survivor keeps its witness')
    const fresh = await enrolledHost(client, { name: 'gamma', address: '10.9.0.2' })
    await fresh.send()
    const hosts = { a: a.identity.host, b: fresh.identity.host }
    await client.call(setUpPair, { body: { name: 'orders', hosts, settings, adopt: true } })
    const asOther = await vote({ kind: 'read', req: 4, inc }, { host: fresh, slot: 'b' })
    assert.equal(asOther.body.kind, 'state', 'and whoever joins it then asks the same witness')
    const { body: alarms } = await client.call(listAlarms, { query: { state: 'raised' } })
    assert.deepEqual(alarms.data, [])
    const { body: events } = await client.call(listEvents, { query: { limit: 100 } })
    assert.ok(events.data.some(one => one.kind === 'host_retired' && /it is lost/.test(one.message)))
  })

  test('the host that is left is released instead, also where nobody hears it', async () => {
    const pair = await admittedPair(runtime())
    const { client, a, b } = pair
    await fallenSilent(runtime(), a.identity.host)
    await fallenSilent(runtime(), b.identity.host)
    await assert.rejects(
      end(pair, { ...lost, host: 'a' }),
      /host beta was not heard within 30 s, or is in no pair, so it cannot go on/,
    )
    const done = await end(pair, { ...lost, survivor: 'is released' })
    assert.equal(done.state, 'succeeded', done.message)
    const states = await Promise.all(
      [a, b].map(async one => (await client.call(getHost, { params: { host: one.identity.host } })).body),
    )
    assert.deepEqual(
      states.map(one => [one.state, one.pair]),
      [
        ['active', null],
        ['retired', null],
      ],
    )
  })

  test('a pair that was never made is given up, and both hosts are free', async () => {
    const { client, a, b } = await twoHosts(runtime())
    const hosts = { a: a.identity.host, b: b.identity.host }
    const { body } = await client.call(setUpPair, { body: { name: 'orders', hosts, settings } })
    const pair = { client, id: body.pair }
    await assert.rejects(end(pair), refusal('operation_in_progress', 409))
    await client.call(cancelOperation, { params: { operation: body.operation.id } })
    const done = await end(pair)
    assert.equal(done.state, 'succeeded', done.message)
    const again = await client.call(setUpPair, { body: { name: 'orders', hosts, settings } })
    assert.equal(again.status, 202)
  })
}
