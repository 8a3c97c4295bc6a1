import assert from 'node:assert/strict'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, test } from 'node:test'
import { exportJWK, exportSPKI, generateKeyPair, SignJWT } from 'jose'
import postgres from 'postgres'
import { repushDesired } from '../../control-plane/services/pair/push-desired.ts'
import { sweep } from '../../control-plane/services/sweep.ts'
import { createEnrolmentToken } from '../../shared/contract/api/hosts.ts'
import { listAlarms, listAudit, verifyAudit } from '../../shared/contract/api/observation.ts'
import { getOperation } from '../../shared/contract/api/operations.ts'
import { createToken, getPermissions, listTokens } from '../../shared/contract/api/organisations.ts'
import { getPair, switchOver } from '../../shared/contract/api/pairs.ts'
import { refusal } from './contract/tenancy.ts'
import { adoptedPair } from './support/pair.ts'
import { ApiClient } from './support/route-client.ts'
import { type NodeRuntime, newTenant, nodeRuntime } from './support/runtime.ts'

const keys = await generateKeyPair('ES256', { extractable: true })
let identityServer: Server
let runtime: NodeRuntime
let issuer: string

before(async () => {
  const jwk = { ...(await exportJWK(keys.publicKey)), kid: 'one', alg: 'ES256' }
  identityServer = createServer((_, response) => void response.end(JSON.stringify({ keys: [jwk] })))
  await new Promise<void>(resolve => identityServer.listen(0, '127.0.0.1', resolve))
  issuer = `http://127.0.0.1:${(identityServer.address() as AddressInfo).port}`
  const provider = {
    issuer,
    audience: 'understudy',
    jwksUrl: `${issuer}/jwks`,
    organisationClaim: 'organisation',
    roleClaim: 'role',
  }
  runtime = await nodeRuntime({ identityProviders: [provider] })
})
after(async () => {
  identityServer?.close()
  await runtime?.close()
})

const clientWith = (token: string): ApiClient => new ApiClient({ url: runtime.url, token })

test('a person comes with a token of the identity provider, has the role it names, and stands in the audit by name', async () => {
  const { organisation, client } = await newTenant(runtime)
  const claims = { organisation, role: ['viewer', 'operator'], email: 'ada@example.org' }
  const token = await new SignJWT(claims)
    .setProtectedHeader({ alg: 'ES256', kid: 'one' })
    .setIssuer(issuer)
    .setAudience('understudy')
    .setSubject('ada')
    .setExpirationTime('5m')
    .sign(keys.privateKey)
  const { body } = await clientWith(token).call(getPermissions, {})
  assert.deepEqual([body.role, body.organisation], ['operator', organisation])
  await assert.rejects(clientWith(token).call(createEnrolmentToken, { body: { name: 'x' } }), refusal('forbidden', 403))
  const { body: audit } = await client.call(listAudit, {})
  assert.equal(audit.data.at(-1)?.actor, `${issuer} ada@example.org`)
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
  await at(first.due + 1_000)
  assert.deepEqual([(await of(a)).told, (await of(a)).afterMs], [first.told, 55 * 60_000])
  assert.deepEqual([(await of(b)).told, (await of(b)).afterMs], [first.due + 1_000, 60_000])
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

test('who asks more than his share is told to wait, and others are not', async () => {
  const limited = await nodeRuntime({
    limits: { perToken: { perSecond: 1, burst: 5 }, perAddress: { perSecond: 1000, burst: 1000 } },
  })
  try {
    const { client } = await newTenant(limited)
    const other = await newTenant(limited)
    const answers = await Promise.allSettled(Array.from({ length: 12 }, () => client.call(listTokens, {})))
    const refused = answers.filter(one => one.status === 'rejected')
    assert.ok(refused.length >= 5, `${refused.length} were refused`)
    for (const one of refused) refusal('rate_limited', 429)(one.reason)
    await other.client.call(listTokens, {})
  } finally {
    await limited.close()
  }
})
