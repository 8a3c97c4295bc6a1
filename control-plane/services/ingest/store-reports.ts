import { sql } from 'drizzle-orm'
import type { Heartbeat, HostReport } from '../../../shared/contract/report.ts'
import { acrossOrganisations } from '../../db/transaction.ts'
import type { Deps } from '../../deps.ts'
import { silentAfterMs } from '../host/host-view.ts'
import { gistOf } from './gist.ts'

/**
 * Reports and heartbeats into the database, many at once. Each says which organisation it came for: a row is written
 * only where the registry says the same of an active host, and only over an older (boot, seq). What is late, repeated or
 * not the sender's to say changes nothing.
 */
export interface FromHost<Body> {
  organisation: string
  host: string
  body: Body
}

/**
 * The newest of each host: one statement must not touch a row twice. By organisation too, since a message that names a
 * foreign one is dropped by the registry and must not take the genuine one with it.
 */
function newestOfEach<Body extends { boot: number; seq: number }>(given: readonly FromHost<Body>[]): FromHost<Body>[] {
  const newest = new Map<string, FromHost<Body>>()
  for (const one of given) {
    const key = `${one.organisation}/${one.host}`
    const known = newest.get(key)
    if (known === undefined || isNewer(one.body, known.body)) newest.set(key, one)
  }
  // In one order, so that two batches never wait for each other.
  return [...newest.values()].sort((one, other) => (one.host < other.host ? -1 : 1))
}

const isNewer = (one: { boot: number; seq: number }, other: { boot: number; seq: number }): boolean =>
  one.boot > other.boot || (one.boot === other.boot && one.seq > other.seq)

export interface StoredReport extends Record<string, unknown> {
  host: string
  /** It says something that the one before did not, or comes after a silence. */
  news: boolean
}

/** @returns the hosts whose report was newer than the stored one */
export async function storeReports(deps: Deps, given: readonly FromHost<HostReport>[]): Promise<StoredReport[]> {
  if (given.length === 0) return []
  const now = deps.now()
  const rows = newestOfEach(given).map(({ organisation, host, body }) => ({
    organisation,
    host,
    body,
    gist: gistOf(body, now),
  }))
  const silentBefore = new Date(now.getTime() - silentAfterMs).toISOString()
  const stored = await acrossOrganisations(deps.database, tx =>
    tx.execute<StoredReport>(sql`
      with given as (
        select * from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
          as r (organisation text, host text, gist text, body jsonb)
      ), before as (
        select t.host, t.gist, t.received_at from host_reported t join given using (host)
      ), stored as (
        insert into host_reported as t (host, organisation, boot, seq, observed_generation, body, gist, received_at)
        select h.id, h.organisation, (r.body->>'boot')::bigint, (r.body->>'seq')::bigint,
               (r.body->>'observedGeneration')::bigint, r.body, r.gist, ${now.toISOString()}::timestamptz
        from given r
        join host h on h.id = r.host and h.organisation = r.organisation and h.state = 'active'
        on conflict (host) do update set
          boot = excluded.boot, seq = excluded.seq, observed_generation = excluded.observed_generation,
          body = excluded.body, gist = excluded.gist, received_at = excluded.received_at
        where (excluded.boot, excluded.seq) > (t.boot, t.seq)
        returning host, gist, boot, seq, body
      ), heard as (
        insert into host_seen as t (host, boot, seq, role, epoch, received_at)
        select host, boot, seq, coalesce(body->'pair'->>'role', 'unknown'), coalesce((body->'pair'->>'epoch')::bigint, 0),
               ${now.toISOString()}::timestamptz
        from stored order by host
        on conflict (host) do update set
          boot = excluded.boot, seq = excluded.seq, role = excluded.role, epoch = excluded.epoch,
          received_at = excluded.received_at
        where (excluded.boot, excluded.seq) > (t.boot, t.seq)
      )
      select distinct on (host) host,
        coalesce(before.gist <> stored.gist or before.received_at < ${silentBefore}::timestamptz, true) as news
      from stored left join before using (host)`),
  )
  return [...stored]
}

type Beat = Pick<Heartbeat, 'boot' | 'seq' | 'role' | 'epoch'>

/** @returns how many rows were written */
export async function storeHeartbeats(deps: Deps, given: readonly FromHost<Beat>[]): Promise<number> {
  if (given.length === 0) return 0
  const rows = newestOfEach(given).map(({ organisation, host, body: { boot, seq, role, epoch } }) => {
    return { organisation, host, boot, seq, role, epoch }
  })
  const now = deps.now().toISOString()
  const stored = await acrossOrganisations(deps.database, tx =>
    tx.execute(sql`
      insert into host_seen as t (host, boot, seq, role, epoch, received_at)
      select h.id, r.boot, r.seq, r.role, r.epoch, ${now}::timestamptz
      from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
        as r (organisation text, host text, boot bigint, seq bigint, role text, epoch bigint)
      join host h on h.id = r.host and h.organisation = r.organisation and h.state = 'active'
      on conflict (host) do update set
        boot = excluded.boot, seq = excluded.seq, role = excluded.role, epoch = excluded.epoch,
        received_at = excluded.received_at
      where (excluded.boot, excluded.seq) > (t.boot, t.seq)
      returning 1`),
  )
  return stored.length
}
