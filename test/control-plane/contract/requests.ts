import assert from 'node:assert/strict'
import { test } from 'node:test'
import postgres from 'postgres'
import { retireHost } from '../../../shared/contract/api/hosts.ts'
import { cancelOperation, getOperation, listOperations } from '../../../shared/contract/api/operations.ts'
import { createToken } from '../../../shared/contract/api/organisations.ts'
import { beginMaintenance, changeSettings, getPair, setUpPair, switchOver } from '../../../shared/contract/api/pairs.ts'
import { permissions } from '../../../shared/contract/api/permissions.ts'
import { toolCertificate } from '../../../shared/contract/api/tool-keys.ts'
import { enrolledHost } from '../support/host.ts'
import { adoptedPair, settings, twoHosts } from '../support/pair.ts'
import { ApiClient, type ApiProblem } from '../support/route-client.ts'
import { newTenant, type Runtime } from '../support/runtime.ts'
import { refusal } from './tenancy.ts'

/** What a request is held to, and what its answer is worth. */
export function requestTests(runtime: () => Runtime): void {
  const clientOf = (token: string): ApiClient => new ApiClient({ url: runtime().url, token })
  const violationsOf = async (asked: Promise<unknown>): Promise<string[]> => {
    const error = await asked.then(
      () => null,
      (problem: unknown) => problem,
    )
    refusal('invalid', 422)(error)
    return ((error as ApiProblem).problem.violations ?? []).map(one => `${one.field} ${one.rule}`).sort()
  }

  test('an Idempotency-Key is its caller’s: another one with the same key is neither answered for him nor kept from his own', async () => {
    const { client, id } = await adoptedPair(runtime())
    const other = await enrolledHost(client, { name: 'gamma', address: '10.9.0.7' })
    const made = await client.call(createToken, {
      body: { name: 'limited', role: 'admin', scopes: [...permissions], pairs: [id] },
    })
    const limited = clientOf(made.body.token)
    const asked = {
      params: { host: other.identity.host },
      body: { reason: 'sold' },
      ifMatch: '"v1"',
      idempotencyKey: 'nightly-1',
    }
    const { body: retired } = await client.call(retireHost, asked)
    assert.equal(retired.state, 'retired')
    await assert.rejects(limited.call(retireHost, asked), refusal('not_found', 404))
    const again = await client.call(retireHost, asked)
    assert.equal(again.headers.get('idempotency-replayed'), 'true')
    // The same wish of two tools is two wishes.
    const wish = { body: { name: 'one', role: 'viewer' as const, pairs: [id] }, idempotencyKey: 'token-for-today' }
    const own = await limited.call(createToken, wish)
    const theirs = await client.call(createToken, wish)
    assert.notEqual(own.body.record.id, theirs.body.record.id)
  })

  test('what operations alone set is no field of a set-up', async () => {
    const { client, a, b } = await twoHosts(runtime())
    const hosts = { a: a.identity.host, b: b.identity.host }
    const made = { witnessAdmission: '01j00000000000000000000000', keyChange: '01j00000000000000000000000' }
    const asked = client.call(setUpPair, {
      body: { name: 'orders', hosts, settings: { ...settings, ...made } as never },
    })
    assert.deepEqual(await violationsOf(asked), [
      'body.settings.keyChange unknown_field',
      'body.settings.witnessAdmission unknown_field',
    ])
  })

  test('what stands twice in a request is refused: one of the two would not count', async () => {
    const { client, token } = await newTenant(runtime())
    const twice = await fetch(`${runtime().url}/v1/events?kind=a&kind=b`, {
      headers: { authorization: `Bearer ${token}` },
    })
    const { violations } = (await twice.json()) as { violations: { field: string; rule: string }[] }
    assert.deepEqual([twice.status, violations.map(one => `${one.field} ${one.rule}`)], [422, ['query.kind twice']])
    const post = (body: string) =>
      fetch(`${runtime().url}/v1/tokens`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${token}`,
          'content-type': 'application/json',
          'idempotency-key': crypto.randomUUID(),
        },
        body,
      })
    const refused = await post('{"name":"x","role":"viewer","role":"admin"}')
    assert.equal(refused.status, 400)
    assert.match(await refused.text(), /\\"role\\" stands twice/)
    // Neither in a list of objects, nor within a text, nor written in two ways.
    const fine = await post('{"name":"\\"role\\":1,\\"role\\":2","role":"viewer","pairs":null}')
    assert.equal(fine.status, 201, await fine.text())
    assert.equal((await post('{"name":"x","role":"viewer","r\\u006fle":"admin"}')).status, 400)
    assert.ok(client)
  })

  test('each violation names its field as the body has it, also where more than the body is asked', async () => {
    const { client, id, a, b } = await adoptedPair(runtime())
    assert.deepEqual(await violationsOf(client.call(toolCertificate, { body: { publicKey: 'none' } })), [
      'body.publicKey format',
    ])
    const networks = (address: string) => [{ name: 'eth0', addresses: [address] }]
    for (const [host, address] of [
      [a, '10.9.0.1/24'],
      [b, '10.9.0.2/24'],
    ] as const) {
      const none = { vswitches: [], vips: [], initiatorName: null, luns: [], lunsLeftOut: 0 }
      const summary = { v: 1 as const, networks: networks(address), ...none }
      const told = await host.cloud.inventory({ v: 1, boot: 1, seq: 1, summary, network: {}, storage: {} })
      assert.ok(told.ok, JSON.stringify(told))
    }
    const vip = (address: string) => ({ address, interface: 'eth0', network: 'service' as const })
    const { etag } = await client.call(getPair, { params: { pair: id } })
    const vips = [...(settings.vips ?? []), vip('10.8.0.5/24'), vip('10.7.0.5/24')]
    const fields = await violationsOf(
      client.call(changeSettings, { params: { pair: id }, body: { vips }, ifMatch: etag! }),
    )
    assert.deepEqual([...new Set(fields)], ['body.vips.1.address between_fields', 'body.vips.2.address between_fields'])
  })

  test('a dry run says what a switchover that is asked for now is told, whatever stands in its way', async () => {
    const { client, id, a } = await adoptedPair(runtime())
    const params = { pair: id }
    const dry = async (part: { expectedEpoch?: number; target?: 'a' | 'b' }) => {
      const { body } = await client.call(switchOver, { params, body: { reason: 'try', dryRun: true, ...part } })
      assert.ok('dryRun' in body)
      return body
    }
    assert.deepEqual(await dry({ expectedEpoch: 1, target: 'b' }), { dryRun: true, allowed: true, obstacles: [] })
    for (const [part, says] of [
      [{ expectedEpoch: 9 }, /at epoch 1, and the caller saw 9/],
      [{ target: 'a' }, /host a is primary already/],
    ] as const) {
      const { allowed, obstacles } = await dry(part)
      assert.equal(allowed, false)
      assert.match(obstacles.join(), says)
      await assert.rejects(client.call(switchOver, { params, body: { reason: 'do', ...part } }), says)
    }
    const { etag } = await client.call(getPair, { params })
    const wish = { forMinutes: 30, reason: 'cabling' }
    const { body: other } = await client.call(beginMaintenance, { params, body: wish, ifMatch: etag! })
    const { allowed, obstacles } = await dry({})
    assert.equal(allowed, false)
    assert.match(obstacles.join(), new RegExp(`maintenance ${other.id} is under way`))
    await a.ack(await a.nextCommand(), { phase: 'done' })
    assert.equal((await dry({})).allowed, true)
    const { body: operations } = await client.call(listOperations, { query: { pair: id } })
    assert.deepEqual(operations.data.map(one => one.kind).sort(), ['maintenance', 'setUp'])
  })

  test('an answer that comes late, while something else is under way, is asked for again and taken then', async () => {
    const { client, id, a, healthy } = await adoptedPair(runtime())
    const params = { pair: id }
    const begun = await client.call(switchOver, { params, body: { reason: 'update' } })
    assert.ok('id' in begun.body)
    const operation = { operation: begun.body.id }
    const asked = await a.nextCommand()
    const sql = postgres(runtime().adminUrl.replace(/[^/]+$/, new URL(runtime().databaseUrl).pathname.slice(1)), {
      max: 1,
    })
    await sql`update operation set look_at = now() - interval '1 minute',
      work = jsonb_set(work, '{steps,0,deadlineAt}', '"2026-01-01T00:00:00.000Z"') where id = ${begun.body.id}`
    await sql.end({ timeout: 1 })
    for (const until = Date.now() + 20_000; ; ) {
      await runtime().sweep()
      if ((await client.call(getOperation, { params: operation })).body.state === 'unknown') break
      assert.ok(Date.now() < until)
    }
    const { etag } = await client.call(getPair, { params })
    const wish = { forMinutes: 30, reason: 'cabling' }
    const { body: other } = await client.call(beginMaintenance, { params, body: wish, ifMatch: etag! })
    const cabling = await a.nextCommand()
    await assert.rejects(a.ack(asked, { phase: 'done' }), /another operation of the pair is under way/)
    assert.equal((await client.call(getOperation, { params: operation })).body.state, 'unknown')
    await a.ack(cabling, { phase: 'done' })
    assert.equal(
      (await client.call(getOperation, { params: { operation: other.id }, wait: 5 })).body.state,
      'succeeded',
    )
    await a.ack(asked, { phase: 'done' })
    await healthy({ primary: 'b', epoch: 2 })
    const { body: done } = await client.call(getOperation, { params: operation, wait: 10 })
    assert.equal(done.state, 'succeeded', done.message)
    await assert.rejects(client.call(cancelOperation, { params: operation }), refusal('not_cancellable', 409))
  })
}
