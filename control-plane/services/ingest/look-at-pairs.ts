import { and, asc, eq, inArray, ne, or, type SQL, sql } from 'drizzle-orm'
import type { Transaction } from '../../db/client.ts'
import { operation, pair } from '../../db/schema/index.ts'
import { acrossOrganisations } from '../../db/transaction.ts'
import type { Deps } from '../../deps.ts'
import { faultText } from '../../fault-text.ts'
import { reconcileAlarms, takeNews } from '../alarm/alarms.ts'
import { causesOfPair } from '../alarm/causes.ts'
import { carryOn } from '../operation/carry-on.ts'
import { tellNews } from '../operation/news.ts'
import { observationOf, pairView } from '../pair/pair-view.ts'
import { holdToWish } from '../pair/push-desired.ts'
import { type PairRows, readPairs } from '../pair/read-pairs.ts'
import { recordEvents } from '../record/events.ts'
import type { StoredReport } from './store-reports.ts'

/**
 * After news of hosts: what waits for it goes on, what is wrong is raised, what has gone is cleared, and who is not at his
 * wish is held to it.
 */
export async function lookAtPairsOf(deps: Deps, stored: readonly StoredReport[]): Promise<void> {
  if (stored.length === 0) return
  const of = (hosts: readonly StoredReport[]): SQL | undefined => {
    const ids = hosts.map(one => one.host)
    return or(inArray(pair.hostA, ids), inArray(pair.hostB, ids))
  }
  const news = stored.filter(one => one.news)
  await holdToWish(
    deps,
    news.map(one => one.host),
  )
  // An operation may wait for a report that says nothing new.
  const waited = sql`exists (select 1 from operation o where o.pair = ${pair.id} and o.state = 'running')`
  const due = or(news.length === 0 ? undefined : of(news), and(of(stored), waited))
  const ids = await acrossOrganisations(deps.database, tx =>
    tx
      .select({ id: pair.id })
      .from(pair)
      .where(and(due, ne(pair.state, 'unpaired'))),
  )
  for (const { id } of ids) await lookAtPair(deps, id)
}

export async function lookAtPair(deps: Deps, id: string): Promise<void> {
  const carried = await acrossOrganisations(deps.database, tx => look(tx, deps, id)).catch((error: unknown) => {
    deps.log({
      level: 'error',
      message: `pair ${id} could not be looked at: ${faultText(error)}`,
    })
    return []
  })
  for (const operationId of carried) tellNews(operationId)
}

/** @returns the operations that went on */
async function look(tx: Transaction, deps: Deps, id: string): Promise<string[]> {
  const now = deps.now()
  // Operations before their pair, as whoever takes an answer: in the other order each would wait for the other.
  const waiting = await tx
    .select()
    .from(operation)
    .where(and(eq(operation.pair, id), eq(operation.state, 'running')))
    .orderBy(asc(operation.id))
    .for('update')
  // One looks at a time; another look that comes meanwhile would see the same.
  const held = await tx.execute(sql`select 1 from pair where id = ${id} for no key update skip locked`)
  if (held.length === 0) return []
  const [rows] = await readPairs(tx, { where: eq(pair.id, id), limit: 1 })
  if (rows === undefined || rows.pair.state === 'unpaired') return []
  await noteRoleChange(tx, rows, now)
  await reconcileAlarms(tx, {
    organisation: rows.pair.organisation,
    pair: id,
    causes: causesOfPair(rows, now),
    now,
  })
  const observed = observationOf(rows, now)
  for (const row of waiting) await carryOn(tx, deps, { row, event: { kind: 'look', observed } })
  return waiting.map(row => row.id)
}

/** A takeover that the hosts decided by themselves is an event here, once for each epoch. */
async function noteRoleChange(tx: Transaction, rows: PairRows, now: Date): Promise<void> {
  const { status } = pairView(rows, now)
  const { epoch, primary } = status
  if (epoch === null || primary === null || epoch <= 1) return
  const { host } = rows.hosts[primary]
  const origin = `epoch-${epoch}-of-${rows.pair.id}`
  // As it was written before a host could be in a second pair.
  const older = `epoch-${epoch}`
  const known = await tx.execute(sql`
    select 1 from event
    where host = ${host.id} and (origin = ${origin} or (origin = ${older} and pair = ${rows.pair.id}))`)
  if (known.length > 0 || (await takeNews(tx, { pair: rows.pair.id, wanted: 1 })) === 0) return
  await recordEvents(tx, rows.pair.organisation, [
    {
      at: now,
      kind: 'primary_changed',
      severity: 'info',
      pair: rows.pair.id,
      host: host.id,
      message: `host ${host.name} is primary of pair ${rows.pair.name} in epoch ${epoch}`,
      data: { epoch, primary },
      origin,
    },
  ])
}
