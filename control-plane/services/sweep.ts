import { and, asc, eq, lte, type SQL, sql } from 'drizzle-orm'
import { sentenceMax } from '../../shared/contract/api/common.ts'
import { ulid } from '../../shared/ids.ts'
import { cutTo } from '../../shared/text.ts'
import type { Transaction } from '../db/client.ts'
import { command, operation, pair } from '../db/schema/index.ts'
import { acrossOrganisations } from '../db/transaction.ts'
import type { Deps } from '../deps.ts'
import { faultText } from '../fault-text.ts'
import { drainQuietly } from '../http/mutate.ts'
import { switchoverPlan } from '../operations/plan.ts'
import { silentAfterMs } from './host/host-view.ts'
import { lookAtPair } from './ingest/look-at-pairs.ts'
import { carryOn, enqueueCommand } from './operation/carry-on.ts'
import type { OperationRow } from './operation/operation-view.ts'
import { settle } from './operation/settle.ts'
import { underWay } from './operation/start.ts'
import { leadingReport, observationOf } from './pair/pair-view.ts'
import { pairingOf } from './pair/pairing.ts'
import { repushDesired } from './pair/push-desired.ts'
import { type PairRows, readPairs } from './pair/read-pairs.ts'
import { switchoverObstacles } from './pair/readiness.ts'
import { reissueForTools } from './token/tool-keys.ts'

/**
 * What time brings: due operations, hosts that fell silent, documents that did not arrive, rows that are no longer
 * needed. Level-triggered and idempotent: any instance may run it at any time, and a sweep that was missed is made up by
 * the next. Each part is bounded, so that a backlog is worked off over several.
 */
export async function sweep(deps: Deps): Promise<{ operations: number; pairs: number; pushed: number }> {
  const faults: unknown[] = []
  const part = (work: (deps: Deps) => Promise<number>): Promise<number> =>
    work(deps).catch((error: unknown) => {
      faults.push(error)
      return 0
    })
  const operations = await part(dueOperations)
  const pairs = await part(silentPairs)
  const pushed = (await part(tellOfToolKeys)) + (await part(repushDesired))
  await drainQuietly(deps)
  await part(cleanUp)
  // One that fails keeps no other from its work; whoever runs the sweep is told of the first.
  if (faults.length > 0) throw faults[0]
  return { operations, pairs, pushed }
}

const perSweep = { operations: 100, pairs: 200 }

async function dueOperations(deps: Deps): Promise<number> {
  let done = 0
  while (done < perSweep.operations) {
    // One at a time, each in its own transaction: one that can't be looked at does not hold up the others.
    const due: { id: string | null } = { id: null }
    const worked = await acrossOrganisations(deps.database, async tx => {
      const [row] = await tx
        .select()
        .from(operation)
        .where(lte(operation.lookAt, deps.now()))
        .orderBy(asc(operation.lookAt))
        .limit(1)
        .for('update', { skipLocked: true })
      if (row === undefined) return false
      due.id = row.id
      await lookAtOperation(tx, deps, row)
      return true
    }).catch((error: unknown) => putOff(deps, { id: due.id, error }))
    if (!worked) break
    done++
  }
  return done
}

/** It is the oldest that is due: left as it is, every sweep would begin and end with it. */
async function putOff(deps: Deps, { id, error }: { id: string | null; error: unknown }): Promise<true> {
  if (id === null) throw error
  const lookAt = new Date(deps.now().getTime() + putOffMs)
  await acrossOrganisations(deps.database, tx => tx.update(operation).set({ lookAt }).where(eq(operation.id, id)))
  deps.log({ level: 'error', message: `operation ${id} could not be looked at, and is put off: ${faultText(error)}` })
  return true
}
const putOffMs = 60_000

async function lookAtOperation(tx: Transaction, deps: Deps, row: OperationRow): Promise<void> {
  const now = deps.now()
  const [rows] = row.pair === null ? [] : await readPairs(tx, { where: eq(pair.id, row.pair), limit: 1 })
  if (row.state === 'scheduled' && rows !== undefined) {
    await beginScheduled(tx, deps, { row, rows })
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
  { row, rows }: { row: OperationRow; rows: PairRows },
): Promise<void> {
  const now = deps.now()
  const waits = (ms: number, obstacles: readonly string[]) =>
    tx
      .update(operation)
      .set({
        work: { ...row.work, message: cutTo(`waits: ${obstacles.join('; ')}`, sentenceMax) },
        lookAt: new Date(now.getTime() + ms),
      })
      .where(eq(operation.id, row.id))
  const [held] = await tx.execute(sql`select 1 from pair where id = ${rows.pair.id} for no key update skip locked`)
  // Whoever holds it may be beginning another operation.
  if (held === undefined) return void (await waits(retryHeldMs, ['another request holds the pair']))
  const other = await underWay(tx, rows.pair.id)
  const obstacles = [...(other === null ? [] : [other.why]), ...switchoverObstacles(rows, now)]
  const report = leadingReport(rows, now)
  const target = row.work.notes.target as 'a' | 'b' | null
  const notAfter = row.work.notAfter === null ? null : new Date(row.work.notAfter)
  if (notAfter !== null && now > notAfter)
    return end(tx, deps, {
      row,
      message: `the window ended; in the way stood: ${obstacles.join('; ') || 'nothing any more'}`,
    })
  if (obstacles.length > 0 || report === null || report.primary === null)
    return void (await waits(retryScheduledMs, obstacles))
  const { primary, gen, epoch } = report
  if (target === primary) return end(tx, deps, { row, message: `host ${target} is primary already` })
  const work = switchoverPlan(pairingOf(rows), { primary, gen, epoch, notAfter })
  await carryOn(tx, deps, { row: { ...row, state: 'running', work }, event: { kind: 'look', observed: null } })
}
const retryHeldMs = 1_000

async function end(
  tx: Transaction,
  deps: Deps,
  { row, message }: { row: OperationRow; message: string },
): Promise<void> {
  const [after] = await tx
    .update(operation)
    .set({
      state: 'cancelled',
      work: { ...row.work, message: cutTo(message, sentenceMax) },
      lookAt: null,
      endedAt: deps.now(),
    })
    .where(eq(operation.id, row.id))
    .returning()
  await settle(tx, deps, after!)
}

/**
 * Pairs of hosts that fell silent without an alarm that says so. This reads every host, from its narrowest table; a host
 * that is not in it (which a crash of the database empties) is looked up where its last report lies.
 *
 * Silence says something only where one could have been heard: not before the database, and this instance with its ears
 * at the broker, have been up for as long. From the hosts, each place of a pair by its own index: a join over either place
 * at once compares every pair with every host.
 */
async function silentPairs(deps: Deps): Promise<number> {
  const before = new Date(deps.now().getTime() - silentAfterMs)
  if (deps.hearingSince > before) return 0
  const at = sql`${before.toISOString()}::timestamptz`
  const silent = await acrossOrganisations(deps.database, async tx => {
    // The planner takes the row policy for a condition that one row in two hundred meets, and would look up each of a
    // hundred thousand hosts one by one.
    await tx.execute(sql`set local enable_nestloop = off`)
    return tx.execute<{ id: string }>(sql`
      with silent as (
        select h.id from host h
        left join host_seen s on s.host = h.id
        where h.state = 'active' and pg_postmaster_start_time() < ${at}
          and coalesce(s.received_at, (select r.received_at from host_reported r where r.host = h.id)) < ${at}
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
 * Operations are promised for 30 days, events for 400, and alarms are told of by events; a ticket lives an hour at most. A token
 * that ended is shown as long as events that its use left.
 */
const keepDays = { operations: 90, commands: 7, events: 400, alarms: 400, enrolmentTokens: 30, tokens: 400 }
/** Of one organisation, some gigabytes: one whose hosts or tools tell more than a million things has the newest. */
export const eventsMax = 1_000_000

/** Of each kind in one sweep: what piled up goes in several, and no statement comes near its limit of time. */
const deletedMax = 5_000

async function cleanUp(deps: Deps): Promise<number> {
  const now = deps.now()
  const ago = (days: number): SQL => sql`${new Date(now.getTime() - days * 86_400_000).toISOString()}::timestamptz`
  // Ids begin with the time at which they were made.
  const before = (days: number): string => ulid(now.getTime() - days * 86_400_000).slice(0, 10)
  const old = (table: string, which: SQL): SQL => {
    const from = sql.identifier(table)
    return sql`delete from ${from} where ctid = any(array(select ctid from ${from} where ${which} limit ${deletedMax}))`
  }
  const deletions = [
    old('idempotency', sql`expires_at < ${ago(0)}`),
    old('command', sql`expires_at < ${ago(keepDays.commands)}`),
    old(
      'operation',
      sql`ended_at < ${ago(keepDays.operations)} and not exists (select 1 from command c where c.operation = operation.id)`,
    ),
    old('event', sql`at < ${ago(keepDays.events)}`),
    // For each organisation by the key: a join might read all events of all, every two seconds.
    sql`delete from event where ctid = any(array(
      select old.at from organisation o cross join lateral (
        select e.ctid as at from event e
        where e.organisation = o.id and e.seq <= o.event_seq - ${eventsMax}::bigint
        order by e.seq limit ${deletedMax}) old
      where o.event_seq > ${eventsMax}::bigint limit ${deletedMax}))`,
    old('alarm', sql`id < ${before(keepDays.alarms)} and state = 'cleared'`),
    old('enrolment_token', sql`id < ${before(keepDays.enrolmentTokens)}`),
    // No index says how old they are, and none of them is large: now and then is enough.
    ...(now.getUTCMinutes() % bucketMinutes === 0
      ? [
          old('rate_bucket', sql`at < ${ago(1)}`),
          old('api_token', sql`least(revoked_at, expires_at) < ${ago(keepDays.tokens)}`),
        ]
      : []),
  ]
  const inOne = (some: readonly SQL[]): Promise<void> =>
    acrossOrganisations(deps.database, async tx => {
      for (const one of some) await tx.execute(one)
    })
  await inOne(deletions).catch(async (error: unknown) => {
    // One kind that cannot go keeps no other.
    for (const one of deletions) await inOne([one]).catch(() => {})
    throw error
  })
  return 0
}
const bucketMinutes = 10
