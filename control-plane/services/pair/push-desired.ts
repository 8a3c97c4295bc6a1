import { gte, inArray, sql } from 'drizzle-orm'
import type { Transaction } from '../../db/client.ts'
import { hostDesired } from '../../db/schema/index.ts'
import { acrossOrganisations } from '../../db/transaction.ts'
import type { Deps } from '../../deps.ts'
import { enqueueDesired, issueDesired, pushAgainMs, toldMax } from './issue-desired.ts'

/**
 * Hosts are held to their wish. Each wish has a time at which it is looked at again, so that a sweep over any number of
 * hosts reads the few that are due; what a host tells moves that time, when it is news.
 */
const documentsPerSweep = 2000

interface Due extends Record<string, unknown> {
  host: string
  organisation: string
  generation: number
  jws: string
  sha256: string
  told: boolean
}

/** Wishes that are due: told again to hosts that are behind, and hourly to all. @returns how many were told */
export function repushDesired(deps: Deps): Promise<number> {
  const now = deps.now().getTime()
  const at = (ms: number) => sql`${new Date(now + ms).toISOString()}::timestamptz`
  return acrossOrganisations(deps.database, async tx => {
    const due = await tx.execute<Due>(sql`
      with due as (
        select host, generation, pushed_at from host_desired
        where push_at <= ${at(0)} order by push_at limit ${documentsPerSweep}
        for update skip locked
      ), judged as (
        select due.host, h.state = 'active' as active,
          coalesce(r.observed_generation, 0) < due.generation as behind, due.pushed_at <= ${at(-pushAgainMs.steady)} as old
        from due join host h on h.id = due.host left join host_reported r on r.host = due.host
      ), ruled as (
        select host, active, behind, active and (behind or old) as told from judged
      )
      update host_desired d set
        pushed_at = case when told then ${at(0)} else d.pushed_at end,
        push_at = case
          when told and behind then ${at(pushAgainMs.behind)}
          when told or not active then ${at(pushAgainMs.steady)}
          else d.pushed_at + ${pushAgainMs.steady} * interval '1 ms' end
      from ruled where ruled.host = d.host
      returning d.host, d.organisation, d.generation, d.jws, d.sha256, ruled.told`)
    const told = due.filter(row => row.told).map(row => ({ ...row, generation: Number(row.generation) }))
    await enqueueDesired(tx, deps, told)
    return told.length
  })
}

/** What was told since then is due at once: the broker has ended, and may have lost what it had not saved. */
export async function pushAgain(deps: Deps, { since }: { since: Date }): Promise<void> {
  await acrossOrganisations(deps.database, tx =>
    tx
      .update(hostDesired)
      .set({ pushAt: deps.now(), pushedAt: new Date(since.getTime() - pushAgainMs.steady) })
      .where(gte(hostDesired.pushedAt, since)),
  )
}

/**
 * After news of hosts. One that is behind is told again, a minute after the last time at the latest. One that holds a
 * later wish than ours shows that our database was restored from a backup: what is wanted here is issued anew, above what
 * it holds, so that it takes it.
 */
export async function holdToWish(deps: Deps, hosts: readonly string[]): Promise<void> {
  if (hosts.length === 0) return
  await acrossOrganisations(deps.database, async tx => {
    const differing = await differingFromWish(tx, hosts)
    for (const { host, organisation, ahead } of differing)
      if (ahead) await issueDesired(tx, deps, { organisation, hosts: [host] })
    const behind = differing.filter(one => !one.ahead).map(one => one.host)
    if (behind.length === 0) return
    const soon = sql`least(push_at, pushed_at + ${pushAgainMs.behind} * interval '1 ms')`
    await tx.update(hostDesired).set({ pushAt: soon }).where(inArray(hostDesired.host, behind))
  })
}

function differingFromWish(tx: Transaction, hosts: readonly string[]) {
  const held = sql`greatest(r.observed_generation, (r.body->'applied'->>'generation')::bigint)`
  return tx.execute<{ host: string; organisation: string; ahead: boolean }>(sql`
    select host_desired.host, host_desired.organisation, ${held} > generation as ahead
    from host_desired join host_reported r on r.host = host_desired.host
    where ${inArray(hostDesired.host, [...hosts])} and generation <= ${toldMax}
      and (${held} > generation or r.observed_generation < generation)
    order by host_desired.host`)
}
