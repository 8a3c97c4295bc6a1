import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import postgres from 'postgres'
import { waiters, waitersMax } from '../../control-plane/services/operation/wait.ts'
import { openStreams, streamsMax } from '../../control-plane/services/record/stream-events.ts'
import { sweep } from '../../control-plane/services/sweep.ts'
import { createEnrolmentToken } from '../../shared/contract/api/hosts.ts'
import { listAlarms, listEvents } from '../../shared/contract/api/observation.ts'
import { getOperation } from '../../shared/contract/api/operations.ts'
import { createToken, getOrganisation, revokeToken } from '../../shared/contract/api/organisations.ts'
import { startPrechecks } from '../../shared/contract/api/pairs.ts'
import { enrolledHost, pairReport } from './support/host.ts'
import { adoptedPair } from './support/pair.ts'
import { ApiClient, ApiProblem } from './support/route-client.ts'
import { type NodeRuntime, newTenant, nodeRuntime } from './support/runtime.ts'

/** What one tenant, or one host, cannot use up for the others. */
let runtime: NodeRuntime
before(async () => {
  runtime = await nodeRuntime()
})
after(() => runtime?.close())

const clientWith = (token: string): ApiClient => new ApiClient({ url: runtime.url, token })

test('what a tenant adds to its audit, its tokens and its events is bounded, and so is what each host tells', async context => {
  const { client, organisation } = await newTenant(runtime)
  const sql = postgres(runtime.adminUrl.replace(/[^/]+$/, 'understudy'), { max: 1 })
  const { limits } = runtime.deps
  context.after(async () => {
    runtime.deps.limits = limits
    await sql.end({ timeout: 1 })
  })
  const refused = async (asked: Promise<unknown>, says: RegExp, status: number): Promise<void> => {
    await assert.rejects(asked, (error: Error) => {
      assert.ok(
        error instanceof ApiProblem && error.problem.status === status && says.test(error.message),
        error.message,
      )
      return true
    })
  }
  // Whoever may change nothing leaves some words of what he tried, and not any number.
  const { body: viewer } = await client.call(createToken, { body: { name: 'viewer', role: 'viewer' } })
  const tries = () => clientWith(viewer.token).call(createEnrolmentToken, { body: { name: 'x' } })
  await refused(tries(), /needs the permission host:enrol/, 403)
  await sql`update rate_bucket set tokens = 0, at = now() where key like 'refused:%'`
  await refused(tries(), /more than 100 refused changes of this credential/, 429)
  const [entries] =
    await sql`select count(*)::int as refused from audit where organisation = ${organisation} and outcome = 'refused'`
  assert.equal(entries!.refused, 1)
  // Tokens in force.
  await sql`
    insert into api_token (id, organisation, name, hash, role, created_at, expires_at)
    select 'made-' || ${organisation} || n, ${organisation}, 'made', sha256((${organisation} || n)::bytea), 'viewer', now(), now() + interval '1 day'
    from generate_series(1, 498) n`
  await refused(
    client.call(createToken, { body: { name: 'y', role: 'viewer' } }),
    /has 500 API tokens in force: revoke/,
    409,
  )
  await client.call(revokeToken, { params: { token: viewer.record.id } })
  await client.call(createToken, { body: { name: 'y', role: 'viewer' } })
  await sql`update api_token set revoked_at = now() where organisation = ${organisation} and name = 'made'`
  // A host's events: its share is what the bucket says.
  const host = await enrolledHost(client, { name: 'alpha', address: '10.9.0.1' })
  const eventOf = (at: number) => ({
    ...{ id: `01j0000000000000000000${String(at).padStart(4, '0')}`, at: new Date().toISOString() },
    ...{ kind: 'test', severity: 'info' as const, message: `${at}` },
  })
  assert.ok((await host.cloud.events([eventOf(0)])).ok)
  const key = `events:${host.identity.host}`
  await sql`update rate_bucket set tokens = 0, at = now() where key = ${key}`
  const many = await host.cloud.events(Array.from({ length: 100 }, (_, at) => eventOf(at + 1)))
  assert.ok(
    !many.ok && many.status === 429 && /more than 5000 events of this host/.test(many.why),
    JSON.stringify(many),
  )
  await sql`update rate_bucket set tokens = 10, at = now() where key = ${key}`
  assert.ok((await host.cloud.events([eventOf(101)])).ok, 'what fits is taken')
  // Of all events the newest million.
  const [head] = await sql`select event_seq::int as seq from organisation where id = ${organisation}`
  await sql`update organisation set event_seq = ${1_000_000 + head!.seq - 1} where id = ${organisation}`
  await sweep(runtime.deps)
  const [left] = await sql`select min(seq)::int as first from event where organisation = ${organisation}`
  assert.equal(left!.first, head!.seq)
  // And every change of the organisation, by whichever of its credentials.
  runtime.deps.limits = { ...limits, perOrganisation: { perSecond: 0.01, burst: 3 } }
  await sql`delete from rate_bucket where key = ${`changes:${organisation}`}`
  const other = clientWith(
    (await client.call(createToken, { body: { name: 'z', role: 'admin', expiresInDays: 1 } })).body.token,
  )
  for (const one of [client, other]) await one.call(createEnrolmentToken, { body: { name: 'beta' } })
  const says = /more than 3 changes of this organisation at once/
  for (const one of [client, other])
    await refused(one.call(createEnrolmentToken, { body: { name: 'beta' } }), says, 429)
})

test('a host that tells of other alarms and epochs with each report fills neither the alarms nor the events', async context => {
  const { client, id, a, healthy } = await adoptedPair(runtime)
  const sql = postgres(runtime.adminUrl.replace(/[^/]+$/, 'understudy'), { max: 1 })
  context.after(() => sql.end({ timeout: 1 }))
  const report = pairReport({ role: 'primary', primary: 'a' })
  let told = 0
  const madeUp = () => Array.from({ length: 32 }, () => `made up ${++told}`)
  const rows = async (): Promise<number> => {
    const [row] = await sql`select (select count(*) from alarm where pair = ${id})::int as rows`
    return row!.rows
  }
  for (let at = 0; at < 34; at++) await a.send({ pair: { ...report, alarms: madeUp() } })
  assert.ok((await rows()) <= 1001, `${await rows()} alarms`)
  // What is the pair's own comes first, as soon as there is room for one more.
  await sql`update rate_bucket set tokens = 1, at = now() where key = ${`news:${id}`}`
  const unprotected = { ...report, protection: 'serving but unprotected' as const }
  await a.send({ pair: { ...unprotected, alarms: madeUp() } })
  const { body: raised } = await client.call(listAlarms, { query: { pair: id, state: 'raised' } })
  assert.deepEqual(
    raised.data.map(one => one.kind),
    ['protection_lost'],
  )
  // A change of primary that there was no room for is told by the next look.
  const changes = async () =>
    (await client.call(listEvents, { query: { pair: id, kind: 'primary_changed' } })).body.data.map(
      one => one.data.epoch,
    )
  await sql`update rate_bucket set tokens = 0, at = now() where key = ${`news:${id}`}`
  await healthy({ primary: 'b', epoch: 2 })
  assert.deepEqual(await changes(), [])
  await sql`update rate_bucket set tokens = 1, at = now() where key = ${`news:${id}`}`
  await healthy({ primary: 'b', epoch: 3 })
  assert.deepEqual(await changes(), [3])
})

test('more streams than an organisation may have at once are not opened, however many are asked for in the same instant', async () => {
  const { token, organisation } = await newTenant(runtime)
  const others = Array.from({ length: streamsMax - 2 }, () => openStreams.take(organisation))
  const abort = new AbortController()
  const headers = { authorization: `Bearer ${token}` }
  const statuses = await Promise.all(
    Array.from({ length: 6 }, async () => {
      const answer = await fetch(`${runtime.url}/v1/events/stream`, { headers, signal: abort.signal })
      return answer.status
    }),
  )
  abort.abort()
  for (const leave of others) leave?.()
  assert.deepEqual(statuses.sort(), [200, 200, 429, 429, 429, 429])
})

test('a stream costs nothing of its token’s rate while it is open, and HEAD opens none', async context => {
  const { token, client, organisation } = await newTenant(runtime)
  const { limits } = runtime.deps
  context.after(() => {
    runtime.deps.limits = limits
  })
  const headers = { authorization: `Bearer ${token}` }
  for (let times = 0; times < 3; times++) {
    const head = await fetch(`${runtime.url}/v1/events/stream`, { method: 'HEAD', headers })
    assert.deepEqual([head.status, head.headers.get('content-type')], [200, 'text/event-stream'])
  }
  const free = Array.from({ length: streamsMax }, () => openStreams.take(organisation))
  for (const leave of free) leave?.()
  assert.ok(!free.includes(null), 'each HEAD has given its place back')
  const streams = new AbortController()
  const open = () => fetch(`${runtime.url}/v1/events/stream`, { headers, signal: streams.signal })
  const opened = await Promise.all([open(), open(), open()])
  assert.deepEqual(
    opened.map(one => one.status),
    [200, 200, 200],
  )
  // As many as are there for what is asked from here on, and none that comes back.
  runtime.deps.limits = { ...limits, perToken: { perSecond: 0.000_001, burst: 2 } }
  const sql = postgres(runtime.adminUrl.replace(/[^/]+$/, 'understudy'), { max: 1 })
  context.after(() => sql.end({ timeout: 1 }))
  await sql`update rate_bucket set tokens = 2, at = now()
    where key in (select 'token:' || id from api_token where organisation = ${organisation})`
  await new Promise(resolve => setTimeout(resolve, 3_500))
  await client.call(getOrganisation, {})
  streams.abort()
})

test('of those who wait for an operation an organisation has a number, and whoever is one more is answered at once', async () => {
  const { client, id, a } = await adoptedPair(runtime)
  const { organisation } = a.identity
  const { body: begun } = await client.call(startPrechecks, { params: { pair: id }, body: {} })
  const asked = { params: { operation: begun.id }, wait: 25 }
  const others = Array.from({ length: waitersMax }, () => waiters.take(organisation))
  const { body: now } = await client.call(getOperation, asked)
  assert.equal(now.state, 'running')
  for (const leave of others) leave?.()
  // With a place again it is the end that is answered.
  const waits = client.call(getOperation, asked)
  await a.ack(await a.nextCommand(), { phase: 'failed', message: 'no' })
  assert.equal((await waits).body.state, 'failed')
})

test('commands that wait for a host come in the order in which they were given, and the same list has the same ETag', async context => {
  const { client, id, a } = await adoptedPair(runtime)
  const sql = postgres(runtime.adminUrl.replace(/[^/]+$/, 'understudy'), { max: 1 })
  context.after(() => sql.end({ timeout: 1 }))
  const { body: begun } = await client.call(startPrechecks, { params: { pair: id }, body: {} })
  await sql`delete from command where operation = ${begun.id}`
  const names = Array.from({ length: 24 }, (_, at) => `01j0000000000000000000${String(at).padStart(4, '0')}`)
  for (const jti of [...names].reverse())
    await sql`
      insert into command (jti, organisation, operation, host, step, jws, expires_at)
      values (${jti}, ${a.identity.organisation}, ${begun.id}, ${a.identity.host}, 'x', ${jti}, now() + interval '1 minute')`
  const pulled = await a.cloud.pull()
  assert.ok(pulled.ok)
  assert.deepEqual(pulled.value?.commands, names.slice(0, 20))
})
