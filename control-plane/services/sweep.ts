import { and, asc, eq, inArray, lte, sql } from 'drizzle-orm'
import type { Transaction } from '../db/client.ts'
import { command, hostDesired, operation, pair } from '../db/schema/index.ts'
import { acrossOrganisations } from '../db/transaction.ts'
import type { Deps } from '../deps.ts'
import { drainQuietly } from '../http/mutate.ts'
import { switchoverPlan } from '../operations/plan.ts'
import { silentAfterMs } from './host/host-view.ts'
import { lookAtPair } from './ingest/look-at-pairs.ts'
import { carryOn, enqueueCommand } from './operation/carry-on.ts'
import type { OperationRow } from './operation/operation-view.ts'
import { settle } from './operation/settle.ts'
import { enqueueDesired, issueDesired, toldMax } from './pair/issue-desired.ts'
import { leadingReport, observationOf } from './pair/pair-view.ts'
import { pairingOf } from './pair/pairing.ts'
import { readPairs } from './pair/read-pairs.ts'
import { switchoverObstacles } from './pair/readiness.ts'
import { reissueForTools } from './token/tool-keys.ts'

/**
 * What time brings: due operations, hosts that fell silent, documents that did not arrive, rows that are no longer
 * needed. Level-triggered and idempotent: any instance may run it at any time, and a sweep that was missed is made up by
 * the next. Each part is bounded, so that a backlog is worked off over several.
 */
export async function sweep(deps: Deps): Promise<{ operations: number; pairs: number; pushed: number }> {
  const operations = await dueOperations(deps)
  const pairs = await silentPairs(deps)
  await overtakeHosts(deps)
  const pushed = (await tellOfToolKeys(deps)) + (await repushDesired(deps))
  await drainQuietly(deps)
  await cleanUp(deps)
  return { operations, pairs, pushed }
}

const perSweep = { operations: 100, pairs: 200, documents: 2000 }

async function dueOperations(deps: Deps): Promise<number> {
  let done = 0
  while (done < perSweep.operations) {
    // One at a time, each in its own transaction: one that can't be looked at does not hold up the others.
    const worked = await acrossOrganisations(deps.database, async tx => {
      const [row] = await tx
        .select()
        .from(operation)
        .where(lte(operation.lookAt, deps.now()))
        .orderBy(asc(operation.lookAt))
        .limit(1)
        .for('update', { skipLocked: true })
      if (row === undefined) return false
      await lookAtOperation(tx, deps, row)
      return true
    })
    if (!worked) break
    done++
  }
  return done
}

async function lookAtOperation(tx: Transaction, deps: Deps, row: OperationRow): Promise<void> {
  const now = deps.now()
  const [rows] = row.pair === null ? [] : await readPairs(tx, { where: eq(pair.id, row.pair), limit: 1 })
  if (row.state === 'scheduled' && rows !== undefined) {
    await beginScheduled(tx, deps, { row, obstacles: switchoverObstacles(rows, now), rows })
    return
  }
  await carryOn(tx, deps, {
    row,
    event: { kind: 'look', observed: rows === undefined ? null : observationOf(rows, now) },
  })
  await repeatCommands(tx, deps, row)
}

/** Sessions of agents end with their connection: a command that met none is said again until it expires. */
async function repeatCommands(tx: Transaction, deps: Deps, row: OperationRow): Promise<void> {
  const waiting = await tx
    .select()
    .from(command)
    .where(and(eq(command.operation, row.id), eq(command.phase, '')))
  for (const one of waiting) await enqueueCommand(tx, one, deps.now())
}

/** So often the guards are asked again within the window. */
const retryScheduledMs = 30_000

async function beginScheduled(
  tx: Transaction,
  deps: Deps,
  part: { row: OperationRow; obstacles: string[]; rows: Parameters<typeof pairingOf>[0] },
): Promise<void> {
  const { row, rows, obstacles } = part
  const now = deps.now()
  const report = leadingReport(rows, now)
  const target = row.work.notes.target as 'a' | 'b' | null
  const over = row.work.notAfter !== null && now > new Date(row.work.notAfter)
  if (report?.primary !== undefined && report.primary !== null && obstacles.length === 0 && !over) {
    if (target === report.primary) return end(tx, deps, { row, message: `host ${target} is primary already` })
    const { primary, gen, epoch } = report
    const notAfter = row.work.notAfter === null ? null : new Date(row.work.notAfter)
    const work = switchoverPlan(pairingOf(rows), { primary, gen, epoch, notAfter })
    await carryOn(tx, deps, { row: { ...row, state: 'running', work }, event: { kind: 'look', observed: null } })
    return
  }
  if (over)
    return end(tx, deps, {
      row,
      message: `the window ended; in the way stood: ${obstacles.join('; ') || 'nothing any more'}`,
    })
  const work = { ...row.work, message: `waits: ${obstacles.join('; ')}` }
  await tx
    .update(operation)
    .set({ work, lookAt: new Date(now.getTime() + retryScheduledMs) })
    .where(eq(operation.id, row.id))
}

async function end(
  tx: Transaction,
  deps: Deps,
  { row, message }: { row: OperationRow; message: string },
): Promise<void> {
  const [after] = await tx
    .update(operation)
    .set({ state: 'cancelled', work: { ...row.work, message }, lookAt: null, endedAt: deps.now() })
    .where(eq(operation.id, row.id))
    .returning()
  await settle(tx, deps, after!)
}

/**
 * For what reads every host. The planner takes each table's row policy for a condition that one row in two hundred meets,
 * and looks up a hundred thousand rows one by one, in 2.5 s; read as a whole, the tables take a tenth of that.
 */
const overWholeTables = (tx: Transaction) => tx.execute(sql`set local enable_nestloop = off`)

/**
 * Pairs of hosts that fell silent without an alarm that says so. From the hosts, each place of a pair by its own index: a
 * join over either place at once compares every pair with every host.
 */
async function silentPairs(deps: Deps): Promise<number> {
  const before = new Date(deps.now().getTime() - silentAfterMs).toISOString()
  const silent = await acrossOrganisations(deps.database, async tx => {
    await overWholeTables(tx)
    return tx.execute<{ id: string }>(sql`
      with silent as (
        select h.id from host h
        left join host_reported r on r.host = h.id
        left join host_seen s on s.host = h.id
        where h.state = 'active' and greatest(r.received_at, s.received_at) < ${before}::timestamptz
          and not exists (select 1 from alarm a where a.host = h.id and a.kind = 'host_silent' and a.state <> 'cleared')
      )
      select p.id from silent join pair p on p.host_a = silent.id where p.state <> 'unpaired'
      union
      select p.id from silent join pair p on p.host_b = silent.id where p.state <> 'unpaired'
      limit ${perSweep.pairs}`)
  })
  for (const { id } of silent) await lookAtPair(deps, id)
  return silent.length
}

/** Organisations whose hosts have not all been told of the last change of its tooling's keys; some hosts at a time. */
async function tellOfToolKeys(deps: Deps): Promise<number> {
  return acrossOrganisations(deps.database, async tx => {
    const [behind] = await tx.execute<{ organisation: string }>(sql`
      select d.organisation from organisation o
      join host_desired d on d.organisation = o.id and d.tools_version < o.tools_version
      where o.tools_version > 0
      limit 1`)
    return behind === undefined ? 0 : reissueForTools(tx, deps, behind)
  })
}

/**
 * Hosts that hold a later wish than we do: our database was restored from a backup. What is wanted here is issued anew,
 * above what they hold, so that they take it.
 */
async function overtakeHosts(deps: Deps): Promise<void> {
  await acrossOrganisations(deps.database, async tx => {
    const ahead = await tx.execute<{ host: string; organisation: string }>(sql`
      select d.host, d.organisation from host_desired d
      join host h on h.id = d.host and h.state = 'active'
      join host_reported r on r.host = d.host
      where greatest(r.observed_generation, (r.body->'applied'->>'generation')::bigint) > d.generation
        and d.generation <= ${toldMax}
      limit ${perSweep.pairs}`)
    for (const { host, organisation } of ahead) await issueDesired(tx, deps, { organisation, hosts: [host] })
  })
}

/** A host that is behind is told again after this; one that is not, often enough that a broker which lost all is healed. */
const pushAgainMs = { behind: 60_000, steady: 55 * 60_000 }

async function repushDesired(deps: Deps): Promise<number> {
  const now = deps.now()
  const at = (ms: number): string => new Date(now.getTime() - ms).toISOString()
  return acrossOrganisations(deps.database, async tx => {
    await overWholeTables(tx)
    const due = await tx.execute<{ host: string }>(sql`
      select d.host from host_desired d
      join host h on h.id = d.host and h.state = 'active'
      left join host_reported r on r.host = d.host
      where d.pushed_at < ${at(pushAgainMs.steady)}::timestamptz
         or (d.pushed_at < ${at(pushAgainMs.behind)}::timestamptz and coalesce(r.observed_generation, 0) < d.generation)
      limit ${perSweep.documents}
      for update of d skip locked`)
    if (due.length === 0) return 0
    const hosts = due.map(row => row.host)
    const rows = await tx.update(hostDesired).set({ pushedAt: now }).where(inArray(hostDesired.host, hosts)).returning()
    await enqueueDesired(tx, deps, rows)
    return rows.length
  })
}

/** Operations are promised for 30 days, events for 400. */
const keepDays = { operations: 90, commands: 7, events: 400 }

async function cleanUp(deps: Deps): Promise<void> {
  const now = deps.now()
  const ago = (days: number): string => new Date(now.getTime() - days * 86_400_000).toISOString()
  await acrossOrganisations(deps.database, async tx => {
    await tx.execute(sql`delete from idempotency where expires_at < ${now.toISOString()}::timestamptz`)
    await tx.execute(sql`delete from command where expires_at < ${ago(keepDays.commands)}::timestamptz`)
    await tx.execute(sql`
      delete from operation o where ended_at < ${ago(keepDays.operations)}::timestamptz
        and not exists (select 1 from command c where c.operation = o.id)`)
    await tx.execute(sql`delete from event where at < ${ago(keepDays.events)}::timestamptz`)
    await tx.execute(sql`delete from rate_bucket where at < ${ago(1)}::timestamptz`)
  })
}
