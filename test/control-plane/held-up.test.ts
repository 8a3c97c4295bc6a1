import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import postgres from 'postgres'
import { sweep } from '../../control-plane/services/sweep.ts'
import { startPrechecks } from '../../shared/contract/api/pairs.ts'
import { ulid } from '../../shared/ids.ts'
import { adoptedPair } from './support/pair.ts'
import { type NodeRuntime, newTenant, nodeRuntime } from './support/runtime.ts'

/** What stands still, or piles up, holds nothing else up. */
let runtime: NodeRuntime
before(async () => {
  runtime = await nodeRuntime()
})
after(() => runtime?.close())

test('a broker that takes messages and never answers takes no connection of the database from anybody', async context => {
  const { client, id } = await adoptedPair(runtime)
  const { publisher } = runtime.deps
  const sql = postgres(runtime.adminUrl.replace(/[^/]+$/, 'understudy'), { max: 1 })
  const silence = Promise.withResolvers<void>()
  const taken = Promise.withResolvers<string[]>()
  const done = Promise.withResolvers<void>()
  context.after(() => {
    silence.resolve()
    runtime.deps.publisher = publisher
    return sql.end({ timeout: 1 })
  })
  runtime.deps.publisher = {
    publish: async messages => {
      taken.resolve(messages.map(one => one.payload))
      await silence.promise
      done.resolve()
      return messages.map(() => null)
    },
  }
  await client.call(startPrechecks, { params: { pair: id }, body: {} })
  const payloads = await taken.promise
  const held = async (): Promise<number> => {
    const [row] = await sql<{ count: number }[]>`select count(*)::int as count from pg_stat_activity
      where datname = 'understudy' and state = 'idle in transaction' and query like '%outbox%'`
    return row!.count
  }
  // The sweep of the running control plane may be between two statements just now, but not for long.
  for (const until = Date.now() + 5_000; (await held()) > 0; ) {
    assert.ok(Date.now() < until, 'a transaction waits for the broker')
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  silence.resolve()
  await done.promise
  for (const until = Date.now() + 20_000; ; ) {
    const [row] = await sql<
      { count: number }[]
    >`select count(*)::int as count from outbox where payload = any(${payloads})`
    if (row!.count === 0) break
    assert.ok(Date.now() < until, 'what was published lies there still')
    await new Promise(resolve => setTimeout(resolve, 20))
  }
})

test('what piled up while nobody swept goes in bounded parts, and one kind that cannot go keeps no other back', async context => {
  const { organisation } = await newTenant(runtime)
  const sql = postgres(runtime.adminUrl.replace(/[^/]+$/, 'understudy'), { max: 1, onnotice: () => {} })
  context.after(async () => {
    await sql`drop function if exists refuse_to_go cascade`
    await sql`delete from enrolment_token where name = 'stuck'`
    await sql.end({ timeout: 1 })
  })
  // Old in two hours, so that the sweep of the running control plane leaves them alone; ours comes later.
  const hourMs = 3_600_000
  await sql`insert into idempotency (subject, key, fingerprint, status, headers, expires_at)
    select 'piled', n::text, '', 200, '{}', now() + interval '1 hour' from generate_series(1, 5001) n`
  const left = async (): Promise<number> =>
    Number((await sql`select count(*) as count from idempotency where subject = 'piled'`)[0]?.count)
  const deps = { ...runtime.deps, now: () => new Date(Date.now() + 2 * hourMs), log: () => {} }
  await sweep(deps)
  assert.equal(await left(), 1)
  await sql`insert into enrolment_token (id, organisation, name, hash, created_at, expires_at)
    values (${ulid(Date.now() + hourMs - 30 * 24 * hourMs)}, ${organisation}, 'stuck', 'x', now(), now())`
  await sql`create function refuse_to_go() returns trigger language plpgsql as $$ begin raise exception 'stuck'; end $$`
  await sql`create trigger refuse_to_go before delete on enrolment_token
    for each row when (old.name = 'stuck') execute function refuse_to_go()`
  await assert.rejects(sweep(deps), 'whoever runs it is told')
  assert.equal(await left(), 0)
})
