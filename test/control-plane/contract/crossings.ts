import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import postgres from 'postgres'
import { enrol } from '../../../node-agent/control/identity.ts'
import { createEnrolmentToken, getHost, listHosts, retireHost } from '../../../shared/contract/api/hosts.ts'
import { listEvents } from '../../../shared/contract/api/observation.ts'
import { cancelOperation, getOperation, listOperations } from '../../../shared/contract/api/operations.ts'
import { changeSettings, getPair, setUpPair, switchOver } from '../../../shared/contract/api/pairs.ts'
import { createToolKey } from '../../../shared/contract/api/tool-keys.ts'
import { downTopic } from '../../../shared/contract/topics.ts'
import { temporaryFolder } from '../support/folder.ts'
import { facts, pairReport } from '../support/host.ts'
import { adoptedPair, settings, twoHosts } from '../support/pair.ts'
import { newTenant, type Runtime } from '../support/runtime.ts'

/** Where two things meet that are well each by itself. */
export function crossingTests(runtime: () => Runtime): void {
  const opened = () =>
    postgres(runtime().adminUrl.replace(/[^/]+$/, new URL(runtime().databaseUrl).pathname.slice(1)), { max: 2 })

  test('what hosts say at the greatest length makes no list of the organisation fail', async () => {
    const { client, a, b } = await twoHosts(runtime())
    const hosts = { a: a.identity.host, b: b.identity.host }
    await client.call(setUpPair, { body: { name: 'orders', hosts, settings } })
    const results = Array.from({ length: 8 }, (_, at) => ({
      ...{ code: `c${at}`, severity: 'blocking', measured: `m${'\u{1F525}'.repeat(999)}`, limit: '', remedy: '' },
    }))
    for (const host of [a, b]) await host.ack(await host.nextCommand(), { phase: 'done', result: { results } })
    const { body: operations } = await client.call(listOperations, {})
    assert.equal(operations.data[0]?.state, 'failed')
    const { body: events } = await client.call(listEvents, {})
    assert.match(
      events.data.at(-1)?.message ?? '',
      /^setUp failed: prechecks stand in the way: c0 \(host a\): m\u{1F525}+/u,
    )
  })

  test('a planned switchover that waits for many reasons is shown with them', async () => {
    const { client, id, a } = await adoptedPair(runtime())
    const params = { pair: id }
    const at = (minutes: number): string => new Date(Date.now() + minutes * 60_000).toISOString()
    const window = { notBefore: at(60), notAfter: at(90) }
    const { body: begun } = await client.call(switchOver, { params, body: { reason: 'night', ...window } })
    assert.ok('id' in begun)
    const report = pairReport({ role: 'primary', primary: 'a' })
    const blocking = Array.from({ length: 32 }, (_, index) => `${index} ${'x'.repeat(490)}`)
    await a.send({ pair: { ...report, check: { ...report.check!, switchover: false, blocking } } })
    const sql = opened()
    await sql`update operation set look_at = now() - interval '1 minute' where id = ${begun.id}`
    await sql.end({ timeout: 1 })
    await runtime().sweep()
    for (const until = Date.now() + 20_000; ; ) {
      const { body } = await client.call(getOperation, { params: { operation: begun.id } })
      if (/^waits: 0 x+; 1 x+/.test(body.message)) break
      assert.ok(Date.now() < until, body.message)
      await new Promise(resolve => setTimeout(resolve, 100))
    }
    await client.call(cancelOperation, { params: { operation: begun.id } })
  })

  test('a command of an operation that was called off is given to no host any more', async () => {
    const { client, a, b } = await twoHosts(runtime())
    const hosts = { a: a.identity.host, b: b.identity.host }
    const { body } = await client.call(setUpPair, { body: { name: 'orders', hosts, settings } })
    await client.call(cancelOperation, { params: { operation: body.operation.id } })
    for (const host of [a, b]) {
      const pulled = await host.cloud.pull()
      assert.ok(pulled.ok)
      assert.deepEqual(pulled.value?.commands, [])
    }
  })

  test('a host that was retired does not come back by the token it once enrolled with', async () => {
    const { client } = await newTenant(runtime())
    const { body } = await client.call(createEnrolmentToken, { body: { name: 'alpha' } })
    const requests: Parameters<typeof fetch>[] = []
    const recorded: typeof fetch = (...request) => {
      requests.push(request)
      return fetch(...request)
    }
    const path = join(temporaryFolder(), 'identity.json')
    const { host } = await enrol({ ticketText: body.token, facts, agentVersion: '1', path, fetch: recorded })
    const params = { host }
    const { etag } = await client.call(getHost, { params })
    await client.call(retireHost, { params, body: { reason: 'broken into' }, ifMatch: etag! })
    const again = await fetch(...requests[0]!)
    assert.equal(again.status, 401, await again.text())
    const { body: active } = await client.call(listHosts, { query: { state: 'active' } })
    assert.deepEqual(active.data, [])
  })

  test('a change of primary is told of each pair that a host is in, one after the other', async () => {
    const { client, id, a, b, healthy } = await adoptedPair(runtime())
    await healthy({ primary: 'b', epoch: 2 })
    const changes = async (pair: string) =>
      (await client.call(listEvents, { query: { pair, kind: 'primary_changed' } })).body.data.length
    assert.equal(await changes(id), 1)
    const sql = opened()
    await sql`update pair set state = 'unpaired' where id = ${id}`
    await sql.end({ timeout: 1 })
    const hosts = { a: a.identity.host, b: b.identity.host }
    const { body } = await client.call(setUpPair, { body: { name: 'orders', hosts, settings, adopt: true } })
    await healthy({ primary: 'a', epoch: 1 })
    await healthy({ primary: 'b', epoch: 2 })
    await healthy({ primary: 'b', epoch: 2 })
    assert.equal(await changes(body.pair), 1)
  })

  test('a wish that waits for the broker is not published over the one that came after it', async () => {
    const { client, id, a } = await adoptedPair(runtime())
    const topic = downTopic(a.identity, 'desired')
    const sql = opened()
    try {
      // As it lies there after a broker that was away refused it.
      await sql`insert into outbox (topic, payload, qos, retain, not_before, created_at)
        values (${topic}, 'older', 1, true, now() + interval '1 hour', now())`
      const { etag } = await client.call(getPair, { params: { pair: id } })
      await client.call(changeSettings, { params: { pair: id }, body: { profile: 'fast' }, ifMatch: etag! })
      assert.deepEqual([...(await sql`select payload from outbox where topic = ${topic} and payload = 'older'`)], [])
    } finally {
      await sql`delete from outbox where payload = 'older'`
      await sql.end({ timeout: 1 })
    }
  })

  test('whatever changes the wishes of hosts takes them in one order, and holds nothing else before', async () => {
    const { client, a: first, b: second } = await twoHosts(runtime())
    const { organisation } = first.identity
    const ids = [first.identity.host, second.identity.host].sort()
    // Host a of the pair is the later one.
    const hosts = { a: ids[1]!, b: ids[0]! }
    const swapped = { ...settings, hosts: { a: settings.hosts.b, b: settings.hosts.a } }
    const made = await client.call(setUpPair, { body: { name: 'orders', hosts, settings: swapped, adopt: true } })
    const params = { pair: made.body.pair }
    const { etag } = await client.call(getPair, { params })
    const tool = { name: 'tool', publicKey: 'A'.repeat(43), verbs: ['prechecks' as const] }
    const changes = [
      () => client.call(changeSettings, { params, body: { profile: 'fast' }, ifMatch: etag! }),
      () => client.call(createToolKey, { body: tool }),
    ]
    const sql = opened()
    try {
      for (const change of changes) {
        const changed = await sql.begin(async tx => {
          await tx`select 1 from host_desired where host = ${ids[0]!} for update`
          const began = change()
          for (const until = Date.now() + 20_000; ; ) {
            const [row] = await sql<{ waiting: number }[]>`select count(*)::int as waiting from pg_stat_activity
              where wait_event_type = 'Lock' and query like '%host_desired%'`
            if (row!.waiting > 0) break
            assert.ok(Date.now() < until, 'it did not come as far as the wish of the first host')
            await new Promise(resolve => setTimeout(resolve, 20))
          }
          await tx`select 1 from host_desired where host = ${ids[1]!} for update nowait`
          await tx`select 1 from organisation where id = ${organisation} for no key update nowait`
          return { began }
        })
        await changed.began
      }
    } finally {
      await sql.end({ timeout: 1 })
    }
  })
}
