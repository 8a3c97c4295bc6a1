import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { sql as raw } from 'drizzle-orm'
import postgres from 'postgres'
import { createApp } from '../../control-plane/app.ts'
import type { Database, Transaction } from '../../control-plane/db/client.ts'
import type { Deps } from '../../control-plane/deps.ts'
import { RetiredHosts } from '../../control-plane/entry/local/retired.ts'
import { lookAtPairsOf } from '../../control-plane/services/ingest/look-at-pairs.ts'
import { storeReports } from '../../control-plane/services/ingest/store-reports.ts'
import { routes } from '../../shared/contract/api/index.ts'
import { listAlarms, listEvents } from '../../shared/contract/api/observation.ts'
import { listOperations } from '../../shared/contract/api/operations.ts'
import { pairReport } from './support/host.ts'
import { adoptedPair } from './support/pair.ts'
import { targetOf } from './support/route-client.ts'
import { type NodeRuntime, newTenant, nodeRuntime } from './support/runtime.ts'

/** What one tenant asks, or one host says, costs the same in a fleet of any size: no table that grows with it is read as a whole. */
let runtime: NodeRuntime
before(async () => {
  runtime = await nodeRuntime()
})
after(() => runtime?.close())

const rowsOfOthers = 20_000
const grown = ['host', 'host_desired', 'host_reported', 'pair', 'operation', 'alarm', 'event', 'enrolment_token']

/** Another organisation's, so many that reading them all is not the planner's choice where an index is. */
async function fill(sql: postgres.Sql, organisation: string): Promise<void> {
  const id = (kind: string, n = 'n') => `'01j${kind}' || lpad((${n})::text, 22, '0')`
  const of = `'${organisation}'`
  const from = `from generate_series(1, ${rowsOfOthers}) n`
  for (const statement of [
    // As wide as real ones: a batch of reports is held against some hundred of them, and few pages are soon read.
    `insert into host (id, organisation, name, public_key, sealing_key, enrolled_at, facts)
      select ${id('h')}, ${of}, 'h' || n, 'k', 'k', now(), jsonb_build_object('facts', repeat(md5(n::text), 30)) ${from}`,
    `insert into host_desired (host, organisation, generation, jws, sha256, pushed_at, push_at)
      select ${id('h')}, ${of}, 1, '{}', '', now(), now() + interval '1 hour' ${from}`,
    `insert into host_reported (host, organisation, boot, seq, observed_generation, body, received_at)
      select ${id('h')}, ${of}, 1, 1, 1, '{}', now() ${from}`,
    `insert into pair (id, organisation, name, state, host_a, host_b, first, settings, generation, created_at)
      select ${id('p')}, ${of}, 'p' || n, 'unpaired', ${id('h')}, ${id('h', `1 + n % ${rowsOfOthers}`)}, 'a', '{}', 1, now() ${from}`,
    `insert into operation (id, organisation, pair, kind, state, work, actor, reason, created_at, starts_at, ended_at)
      select ${id('q')}, ${of}, ${id('p')}, 'switchover', 'succeeded', '{}', '', '', now(), now(), now() ${from}`,
    `insert into alarm (id, organisation, kind, severity, state, pair, subject, message, raised_at)
      select ${id('a')}, ${of}, 'host_silent', 'warning', case when n % 2 = 0 then 'raised' else 'cleared' end, ${id('p')}, n::text, '', now() ${from}`,
    `insert into event (organisation, seq, at, kind, severity, pair, message, data)
      select ${of}, 1000 + n, now(), 'test', 'info', ${id('p')}, '', '{}' ${from}`,
    `insert into enrolment_token (id, organisation, name, hash, created_at, expires_at)
      select ${id('t')}, ${of}, 'n', sha256(n::text::bytea), now(), now() ${from}`,
  ])
    await sql.unsafe(statement)
  await sql.unsafe(`analyze ${grown.join(', ')}`)
}

/** The same surroundings; each transaction tells at its end which tables it has read as a whole. */
function watched(deps: Deps, found: Set<string>, doing: () => string): Deps {
  // Of the connection, which may not have told of the transactions before yet.
  const reads = async (tx: Transaction): Promise<Map<string, number>> => {
    const rows = await tx.execute<{ name: string; scans: string }>(raw`
      select relname as name, seq_scan as scans from pg_stat_xact_user_tables where relname in ${grown}`)
    return new Map(rows.map(({ name, scans }) => [name, Number(scans)]))
  }
  const transaction = (work: (tx: Transaction) => Promise<unknown>, ...rest: [never]): Promise<unknown> =>
    deps.database.transaction(
      async tx => {
        const before = await reads(tx)
        const done = await work(tx)
        for (const [name, scans] of await reads(tx))
          if (scans > (before.get(name) ?? 0)) found.add(`${doing()} reads all of ${name}`)
        return done
      },
      ...rest,
    )
  const database = new Proxy(deps.database, {
    get: (target, name: keyof Database) => (name === 'transaction' ? transaction : target[name]),
  })
  return { ...deps, database }
}

test('what a tenant asks and a host says reads no table of the fleet as a whole', async context => {
  const { token, id, a } = await adoptedPair(runtime)
  const sql = postgres(runtime.adminUrl.replace(/[^/]+$/, 'understudy'), { max: 1 })
  context.after(() => sql.end({ timeout: 1 }))
  await fill(sql, (await newTenant(runtime, 'others')).organisation)
  const found = new Set<string>()
  let doing = ''
  const deps = watched(runtime.deps, found, () => doing)
  const { app } = createApp(() => deps)
  const headers = {
    authorization: `Bearer ${token}`,
    'content-type': 'application/json',
    'if-match': '"v2"',
  }
  const ask = async (method: string, target: string, body?: object): Promise<void> => {
    doing = `${method} ${target.replaceAll(/[0-9a-z]{26}/g, 'ID')}`
    const answer = await app.request(target, {
      method,
      headers: { ...headers, 'idempotency-key': crypto.randomUUID() },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    })
    const text = await answer.text()
    assert.ok(answer.status < 300, `${doing}: ${answer.status} ${text}`)
  }
  const params = { pair: id, host: a.identity.host, operation: '' }
  for (const route of routes) {
    if (route.method !== 'get' || ['public', 'host', 'instance'].includes(route.access) || route.id === 'streamEvents')
      continue
    const names = [...route.path.matchAll(/\{(\w+)\}/g)].map(match => match[1])
    if (names.every(name => name === 'pair' || name === 'host')) await ask('GET', targetOf(route, { params }))
  }
  for (const state of ['running', 'unknown']) await ask('GET', targetOf(listOperations, { query: { state } }))
  for (const state of ['raised', 'acknowledged']) await ask('GET', targetOf(listAlarms, { query: { state } }))
  for (const route of [listOperations, listAlarms, listEvents])
    await ask('GET', targetOf(route, { query: { pair: id } }))
  await ask('POST', `/v1/pairs/${id}/prechecks`, {})
  await ask('POST', `/v1/pairs/${id}/switchovers`, { reason: 'test' })
  doing = 'a report'
  const { organisation, host } = a.identity
  const body = a.report({ pair: { ...pairReport({ role: 'primary', primary: 'a', epoch: 2 }), alarms: ['one'] } })
  await lookAtPairsOf(deps, await storeReports(deps, [{ organisation, host, body }]))
  doing = 'the list of retired hosts'
  await new RetiredHosts().tell(deps, { deny: () => {} } as never)
  assert.deepEqual([...found], [])
})
