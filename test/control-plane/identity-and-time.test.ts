import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, test } from 'node:test'
import { exportJWK, exportSPKI, generateKeyPair, SignJWT } from 'jose'
import type { MqttClient } from 'mqtt'
import postgres from 'postgres'
import { Ingest } from '../../control-plane/broker/ingest.ts'
import { defaultLimits, type IdentityProvider } from '../../control-plane/deps.ts'
import { repushDesired } from '../../control-plane/services/pair/push-desired.ts'
import { sweep } from '../../control-plane/services/sweep.ts'
import { createEnrolmentToken } from '../../shared/contract/api/hosts.ts'
import { listAlarms, listAudit, verifyAudit } from '../../shared/contract/api/observation.ts'
import { getOperation } from '../../shared/contract/api/operations.ts'
import { createToken, getPermissions, listTokens, revokeToken } from '../../shared/contract/api/organisations.ts'
import { beginMaintenance, getPair, startPrechecks, switchOver } from '../../shared/contract/api/pairs.ts'
import { documentSigner } from '../../shared/contract/signing.ts'
import { upTopic } from '../../shared/contract/topics.ts'
import { refusal } from './contract/tenancy.ts'
import { enrolledHost } from './support/host.ts'
import { adoptedPair } from './support/pair.ts'
import { ApiClient, ApiProblem } from './support/route-client.ts'
import { type NodeRuntime, newTenant, nodeRuntime } from './support/runtime.ts'

const keys = await generateKeyPair('ES256', { extractable: true })
let identityServer: Server
let runtime: NodeRuntime
let issuer: string
let provider: IdentityProvider

before(async () => {
  const jwk = { ...(await exportJWK(keys.publicKey)), kid: 'one', alg: 'ES256' }
  identityServer = createServer((_, response) => void response.end(JSON.stringify({ keys: [jwk] })))
  await new Promise<void>(resolve => identityServer.listen(0, '127.0.0.1', resolve))
  issuer = `http://127.0.0.1:${(identityServer.address() as AddressInfo).port}`
  provider = {
    issuer,
    audience: 'understudy',
    jwksUrl: `${issuer}/jwks`,
    organisationClaim: 'organisation',
    roleClaim: 'role',
  }
  const limited = { ...provider, issuer: `${issuer}/limited`, organisations: ['01j00000000000000000000000'] }
  const away = { ...provider, issuer: `${issuer}/away`, jwksUrl: 'http://127.0.0.1:1/jwks' }
  runtime = await nodeRuntime({ identityProviders: [provider, limited, away] })
})
after(async () => {
  identityServer?.close()
  await runtime?.close()
})

const personOf = (claims: Record<string, unknown>, subject: string, path = ''): Promise<string> =>
  new SignJWT(claims)
    .setProtectedHeader({ alg: 'ES256', kid: 'one' })
    .setIssuer(issuer + path)
    .setAudience('understudy')
    .setSubject(subject)
    .setExpirationTime('5m')
    .sign(keys.privateKey)

const clientWith = (token: string): ApiClient => new ApiClient({ url: runtime.url, token })

test('a person comes with a token of the identity provider, has the role it names, and stands in the audit by name', async () => {
  const { organisation, client } = await newTenant(runtime)
  const token = await personOf(
    { organisation, role: ['viewer', 'operator'], email: 'ada@example.org', email_verified: true },
    'ada',
  )
  const { body } = await clientWith(token).call(getPermissions, {})
  assert.deepEqual([body.role, body.organisation], ['operator', organisation])
  await assert.rejects(clientWith(token).call(createEnrolmentToken, { body: { name: 'x' } }), refusal('forbidden', 403))
  const { body: audit } = await client.call(listAudit, {})
  assert.equal(audit.data.at(-1)?.actor, `${issuer} ada@example.org (ada)`)
})

test('an address that the identity provider does not say it has verified stands for nobody in the audit', async () => {
  const { organisation, client } = await newTenant(runtime)
  for (const [at, verified] of [false, 'false', undefined].entries()) {
    const claims = { organisation, role: 'viewer', email: 'ada@example.org', email_verified: verified }
    const eve = clientWith(await personOf(claims, `eve${at}`))
    await assert.rejects(eve.call(createEnrolmentToken, { body: { name: 'x' } }), refusal('forbidden', 403))
    const { body: audit } = await client.call(listAudit, {})
    assert.equal(audit.data.at(-1)?.actor, `${issuer} eve${at}`)
  }
})

test('an identity provider speaks for the organisations it was given alone; one whose keys are away sends nobody away for it', async () => {
  const { organisation } = await newTenant(runtime)
  const claims = { organisation, role: 'admin' }
  const ask = async (path: string) => clientWith(await personOf(claims, 'ada', path)).call(getPermissions, {})
  await assert.rejects(ask('/limited'), (error: Error) => {
    assert.match(error.message, /does not speak for the organisation/)
    return refusal('unauthenticated', 401)(error)
  })
  await assert.rejects(ask('/away'), (error: Error) => {
    assert.match(error.message, /the keys of .*\/away cannot be had from http:\/\/127\.0\.0\.1:1\/jwks now/)
    return refusal('busy', 503)(error)
  })
})

test('a token that is over, for somebody else, of an unknown organisation, or signed in another way opens nothing', async () => {
  const { organisation } = await newTenant(runtime)
  const base = (change: Record<string, unknown> = {}, alg = 'ES256') =>
    new SignJWT({ organisation, role: 'admin', ...change })
      .setIssuer(issuer)
      .setSubject('eve')
      .setProtectedHeader({ alg, kid: 'one' })
  const stranger = await generateKeyPair('ES256')
  const confused = new TextEncoder().encode(await exportSPKI(keys.publicKey))
  const tokens = [
    await base().setAudience('understudy').setExpirationTime('-5m').sign(keys.privateKey),
    await base().setAudience('another').setExpirationTime('5m').sign(keys.privateKey),
    await base().setAudience('understudy').sign(keys.privateKey),
    await base().setAudience('understudy').setExpirationTime('5m').sign(stranger.privateKey),
    await base({}, 'HS256').setAudience('understudy').setExpirationTime('5m').sign(confused),
    await base({ organisation: '01j00000000000000000000000' })
      .setAudience('understudy')
      .setExpirationTime('5m')
      .sign(keys.privateKey),
    await base({ role: 'king' }).setAudience('understudy').setExpirationTime('5m').sign(keys.privateKey),
  ]
  for (const [at, token] of tokens.entries())
    await assert.rejects(clientWith(token).call(getPermissions, {}), refusal('unauthenticated', 401), `token ${at}`)
})

test('an entry of the audit that somebody altered, took out or cut off is named', async () => {
  const { organisation, client } = await newTenant(runtime)
  for (const name of ['one', 'two', 'three']) await client.call(createToken, { body: { name, role: 'viewer' } })
  const sql = postgres(runtime.adminUrl.replace(/[^/]+$/, 'understudy'), { max: 1 })
  const verdict = async () => (await client.call(verifyAudit, {})).body.firstFault
  try {
    await sql`alter table audit disable trigger all`
    await sql`update audit set actor = 'nobody' where organisation = ${organisation} and seq = 2`
    assert.deepEqual(await verdict(), { seq: 2, why: 'the entry was altered' })
    await sql`delete from audit where organisation = ${organisation} and seq = 2`
    assert.deepEqual(await verdict(), { seq: 2, why: 'the entry is missing; the next one is 3' })
    await sql`delete from audit where organisation = ${organisation} and seq > 1`
    assert.equal((await verdict())?.seq, 2)
  } finally {
    await sql`alter table audit enable trigger all`
    await sql.end({ timeout: 1 })
  }
})

test('hosts that fall silent raise an alarm, their state is unknown, and a report clears it', async context => {
  const { client, id, healthy } = await adoptedPair(runtime)
  context.after(() => {
    runtime.deps.now = () => new Date()
  })
  runtime.deps.now = () => new Date(Date.now() + 40_000)
  await sweep(runtime.deps)
  const { body: pair } = await client.call(getPair, { params: { pair: id } })
  assert.deepEqual([pair.status.protection, pair.hosts[0]?.connected], ['unknown', 'unknown'])
  const silent = async () => {
    const { body } = await client.call(listAlarms, { query: { pair: id } })
    return body.data.filter(one => one.kind === 'host_silent').map(one => one.state)
  }
  assert.deepEqual(await silent(), ['raised', 'raised'])
  await healthy()
  assert.deepEqual(await silent(), ['cleared', 'cleared'])
})

test('after a start, silence says nothing of hosts until they could have been heard again', async context => {
  const { client, id } = await adoptedPair(runtime)
  const { hearingSince } = runtime.deps
  context.after(() => {
    Object.assign(runtime.deps, { hearingSince, now: () => new Date() })
  })
  const silent = async () =>
    (await client.call(listAlarms, { query: { pair: id } })).body.data.filter(one => one.kind === 'host_silent').length
  const later = Date.now() + 40_000
  Object.assign(runtime.deps, { hearingSince: new Date(later - 20_000), now: () => new Date(later) })
  await sweep(runtime.deps)
  assert.equal(await silent(), 0)
  runtime.deps.hearingSince = new Date(later - 31_000)
  await sweep(runtime.deps)
  assert.equal(await silent(), 2)
})

test('a crash of the database, which forgets heartbeats, leaves hosts as their last reports have them', async context => {
  const { client, id, healthy } = await adoptedPair(runtime)
  const sql = postgres(runtime.adminUrl.replace(/[^/]+$/, 'understudy'), { max: 1 })
  context.after(() => {
    runtime.deps.now = () => new Date()
    return sql.end({ timeout: 1 })
  })
  await healthy()
  await sql`truncate host_seen`
  await sweep(runtime.deps)
  const silent = async () =>
    (await client.call(listAlarms, { query: { pair: id } })).body.data.filter(one => one.kind === 'host_silent').length
  assert.equal(await silent(), 0)
  runtime.deps.now = () => new Date(Date.now() + 40_000)
  await sweep(runtime.deps)
  assert.equal(await silent(), 2)
})

test('a wish is told again each minute to a host that is behind, to one that is not after an hour, and to none that is retired', async context => {
  const { a, b } = await adoptedPair(runtime)
  const sql = postgres(runtime.adminUrl.replace(/[^/]+$/, 'understudy'), { max: 1 })
  context.after(() => sql.end({ timeout: 1 }))
  const of = async ({ identity }: { identity: { host: string } }) => {
    const [row] = await sql<{ generation: string; told: Date; due: Date }[]>`
      select generation, pushed_at as told, push_at as due from host_desired where host = ${identity.host}`
    const [told, due] = [row!.told.getTime(), row!.due.getTime()]
    return { generation: Number(row!.generation), told, afterMs: due - told, due }
  }
  const [first, second] = [await of(a), await of(b)]
  assert.deepEqual([first.afterMs, second.afterMs], [60_000, 60_000], 'both may be behind')
  const { generation } = first
  await a.send({ observedGeneration: generation, applied: { status: 'True', generation, why: '' } })
  const at = async (ms: number) => {
    const deps = { ...runtime.deps, now: () => new Date(ms) }
    await repushDesired(deps)
  }
  // Both are due by then, the second as much later as it was told later.
  const bothDue = second.due + 1_000
  await at(bothDue)
  assert.deepEqual([(await of(a)).told, (await of(a)).afterMs], [first.told, 55 * 60_000])
  assert.deepEqual([(await of(b)).told, (await of(b)).afterMs], [bothDue, 60_000])
  await at(first.told + 55 * 60_000)
  assert.equal((await of(a)).told, first.told + 55 * 60_000)
  // It fell back, as after a restore of its disk: that is news, and it is told without waiting an hour.
  await a.send({ observedGeneration: 0, applied: { status: 'True', generation: 0, why: '' } })
  assert.equal((await of(a)).afterMs, 60_000)
  await sql`update host set state = 'retired' where id = ${b.identity.host}`
  const before = await of(b)
  await at(before.due)
  assert.deepEqual([(await of(b)).told, (await of(b)).due], [before.told, before.due + 55 * 60_000])
})

test('an operation that cannot be looked at is put off and told of, and the others and the rest of the sweep go on', async context => {
  const bad = await adoptedPair(runtime)
  const good = await adoptedPair(runtime)
  const sql = postgres(runtime.adminUrl.replace(/[^/]+$/, 'understudy'), { max: 1 })
  const begun = await Promise.all(
    [bad, good].map(one => one.client.call(startPrechecks, { params: { pair: one.id }, body: {} })),
  )
  const [broken = '', sound = ''] = begun.map(one => one.body.id)
  context.after(async () => {
    await sql`delete from command where operation = ${broken}`
    await sql`delete from operation where id = ${broken}`
    await sql.end({ timeout: 1 })
  })
  // Due in an hour, so that the sweep of the running control plane leaves them alone; ours comes later.
  const hourMs = 3_600_000
  const at = (ms: number): Date => new Date(Date.now() + ms)
  await sql`update operation set look_at = ${at(hourMs)}, work = ${sql.json({ v: 1, steps: 'none' })} where id = ${broken}`
  await sql`update operation set look_at = ${at(hourMs + 1)} where id = ${sound}`
  const said: string[] = []
  const deps = {
    ...runtime.deps,
    now: () => at(2 * hourMs),
    log: ({ message }: { message: string }) => void said.push(message),
  }
  await sweep(deps)
  const told = said.filter(one => one.startsWith(`operation ${broken} could not be looked at, and is put off`))
  assert.equal(told.length, 1, said.join('\n'))
  const { body } = await good.client.call(getOperation, { params: { operation: sound } })
  assert.equal(body.state, 'unknown', 'nobody answered for two hours')
  const [row] = await sql<{ look: Date }[]>`select look_at as look from operation where id = ${broken}`
  assert.ok(row!.look.getTime() > Date.now() + 2 * hourMs)
})

test('answers and reports that come in the same instant never wait for each other in a circle', async () => {
  const { client, id, a, healthy } = await adoptedPair(runtime)
  const sql = postgres(runtime.adminUrl.replace(/[^/]+$/, 'understudy'), { max: 1 })
  const deadlocks = async (): Promise<number> => {
    await sql`select pg_stat_force_next_flush()`
    const [row] = await sql<
      { count: string }[]
    >`select deadlocks as count from pg_stat_database where datname = 'understudy'`
    return Number(row?.count)
  }
  const before = await deadlocks()
  const params = { pair: id }
  for (let round = 0; round < 12; round++) {
    const { etag } = await client.call(getPair, { params })
    await client.call(beginMaintenance, { params, body: { forMinutes: 30, reason: 'again' }, ifMatch: etag! })
    const asked = await a.nextCommand()
    await Promise.all([healthy(), a.ack(asked, { phase: 'done' }), healthy()])
  }
  const after = await deadlocks()
  await sql.end({ timeout: 1 })
  assert.equal(after - before, 0)
})

test('a host that floods the ingest takes no other host’s answer with it', async () => {
  const { client, id, a, b } = await adoptedPair(runtime)
  const begun = await client.call(startPrechecks, { params: { pair: id }, body: {} })
  const command = await a.nextCommand()
  const signer = await documentSigner(a.identity.host, a.identity.key)
  const { operation, jti } = command
  const ack = {
    v: 1,
    host: a.identity.host,
    operation,
    jti,
    phase: 'failed',
    message: 'no',
    percent: null,
    result: null,
  }
  const answer = await signer.sign('ack', { ...ack, at: new Date().toISOString() })
  const ingest = new Ingest(runtime.deps, new EventEmitter() as unknown as MqttClient)
  const say = ({ organisation, host }: { organisation: string; host: string }, text: string) =>
    ingest.take(upTopic({ organisation, host }, 'ack'), Buffer.from(text))
  for (let at = 0; at < 20_000; at++) say(b.identity, `{"protected":"${at}"}`)
  say(a.identity, answer)
  await ingest.close()
  assert.ok(ingest.counts.dropped > 19_000, `${ingest.counts.dropped} were dropped`)
  const { body } = await client.call(getOperation, { params: { operation: begun.body.id } })
  assert.equal(body.state, 'failed', body.message)
})

test('a stream of events ends when its token is revoked, and reads no further ahead than its reader takes', async () => {
  const { client, organisation } = await newTenant(runtime)
  const made = await client.call(createToken, { body: { name: 'screen', role: 'viewer' } })
  const sql = postgres(runtime.adminUrl.replace(/[^/]+$/, 'understudy'), { max: 1 })
  const rows = 40_000
  await sql`
    insert into event (organisation, seq, at, kind, severity, message, data)
    select ${organisation}, seq, now(), 'test', 'info', repeat('x', 500), '{}' from generate_series(1, ${rows}) seq`
  await sql`update organisation set event_seq = ${rows} where id = ${organisation}`
  await sql.end({ timeout: 1 })
  const headers = { authorization: `Bearer ${made.body.token}` }
  const response = await fetch(`${runtime.url}/v1/events/stream?after=0`, { headers })
  const reader = response.body!.getReader()
  await reader.read()
  // Nobody reads on. What has been read ahead by now lies in this process, which serves it too.
  const heldBefore = process.memoryUsage().arrayBuffers
  await new Promise(resolve => setTimeout(resolve, 2_300))
  assert.ok(process.memoryUsage().arrayBuffers - heldBefore < 16 * 1024 ** 2, 'the whole table is not read ahead')
  await client.call(revokeToken, { params: { token: made.body.record.id } })
  let length = 0
  for (;;) {
    const { done, value } = await reader.read()
    if (done) break
    length += value.length
  }
  assert.ok(length < (rows * 500) / 2, `${length} bytes came after the token was revoked`)
})

test('a switchover that was planned begins in its window when nothing stands in the way, for the epoch of that time', async context => {
  const { client, id, healthy } = await adoptedPair(runtime)
  context.after(() => {
    runtime.deps.now = () => new Date()
  })
  const at = (minutes: number): string => new Date(Date.now() + minutes * 60_000).toISOString()
  const begun = await client.call(switchOver, {
    params: { pair: id },
    body: { reason: 'night', notBefore: at(1), notAfter: at(3) },
  })
  assert.ok('id' in begun.body)
  const params = { operation: begun.body.id }
  runtime.deps.now = () => new Date(Date.now() + 90_000)
  await sweep(runtime.deps)
  const waiting = await client.call(getOperation, { params })
  assert.equal(waiting.body.state, 'scheduled', 'nobody was heard for 90 s')
  assert.match(waiting.body.message, /neither host was heard/)
  runtime.deps.now = () => new Date(Date.now() + 125_000 - 10_000)
  await healthy({ epoch: 3 })
  runtime.deps.now = () => new Date(Date.now() + 125_000)
  await sweep(runtime.deps)
  // A host's own requests are signed with its clock, which is not moved here.
  const running = await client.call(getOperation, { params })
  assert.equal(running.body.state, 'running')
  assert.equal(running.body.steps[0]?.title, 'host a hands the service over')
})

test('who asks more than his share, as a tool, a person, a host or without a credential, is told to wait, and others are not', async () => {
  const share = { perSecond: 0.1, burst: 5 }
  const limits = { ...defaultLimits, perToken: share, perAddress: share, perHost: share }
  const limited = await nodeRuntime({ limits, identityProviders: [provider] })
  try {
    const { client, organisation } = await newTenant(limited)
    const other = await newTenant(limited)
    const host = await enrolledHost(client, { name: 'alpha', address: '10.9.0.1' })
    const with_ = (token: string) => new ApiClient({ url: limited.url, token })
    const [ada, bob] = [
      await personOf({ organisation, role: 'viewer' }, 'ada'),
      await personOf({ organisation, role: 'viewer' }, 'bob'),
    ]
    const manyTimes = (ask: () => Promise<unknown>) => Promise.allSettled(Array.from({ length: 12 }, ask))
    const guess = () => with_('understudy_wrong').call(listTokens, {})
    for (const ask of [() => client.call(listTokens, {}), () => with_(ada).call(getPermissions, {}), guess]) {
      const reasons = (await manyTimes(ask)).flatMap(one => (one.status === 'rejected' ? [one.reason] : []))
      const told = reasons.filter(one => one instanceof ApiProblem && one.problem.code === 'rate_limited')
      assert.ok(told.length >= 5, `${told.length} were told to wait`)
    }
    const pulls = await Promise.all(Array.from({ length: 12 }, () => host.cloud.pull()))
    assert.ok(pulls.filter(one => !one.ok && one.status === 429).length >= 5, JSON.stringify(pulls))
    await other.client.call(listTokens, {})
    await with_(bob).call(getPermissions, {})
  } finally {
    await limited.close()
  }
})
