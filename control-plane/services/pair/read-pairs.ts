import { and, eq, inArray, type SQL, sql } from 'drizzle-orm'
import { type Member, seesPair } from '../../auth/caller.ts'
import type { Transaction } from '../../db/client.ts'
import { host, pair } from '../../db/schema/index.ts'
import { notFound, Refusal } from '../../http/problem.ts'
import type { HostRows } from '../host/host-view.ts'
import { readHosts } from '../host/read-hosts.ts'

/** A pair with both of its hosts and what was heard of them: what every decision about it starts from. */
export interface PairRows {
  pair: typeof pair.$inferSelect
  hosts: { a: HostRows; b: HostRows }
}

export async function readPairs(tx: Transaction, part: { where: SQL | undefined; limit: number }): Promise<PairRows[]> {
  const pairs = await tx.select().from(pair).where(part.where).orderBy(pair.id).limit(part.limit)
  if (pairs.length === 0) return []
  const ids = [...new Set(pairs.flatMap(one => [one.hostA, one.hostB]))]
  const rows = await readHosts(tx, { where: inArray(host.id, ids), limit: ids.length * 2 })
  const byId = new Map(rows.map(one => [one.host.id, one]))
  return pairs.map(one => ({ pair: one, hosts: { a: byId.get(one.hostA)!, b: byId.get(one.hostB)! } }))
}

export const pairsSeenBy = (member: Member): SQL | undefined =>
  and(
    eq(pair.organisation, member.organisation),
    member.pairs === null ? undefined : inArray(pair.id, [...member.pairs]),
  )

/** @throws Refusal 404 also for a foreign one. */
export async function readPair(tx: Transaction, part: { id: string; member: Member }): Promise<PairRows> {
  const [rows] = await readPairs(tx, { where: and(pairsSeenBy(part.member), eq(pair.id, part.id)), limit: 1 })
  if (rows === undefined || !seesPair(part.member, part.id)) throw notFound('pair', part.id)
  return rows
}

/** For changes; with `version`, refused when it was changed meanwhile. */
export async function lockPair(
  tx: Transaction,
  part: { id: string; member: Member; version?: number | null },
): Promise<PairRows> {
  await tx.execute(sql`select 1 from pair where id = ${part.id} for no key update`)
  const rows = await readPair(tx, part)
  const { version } = rows.pair
  if (typeof part.version === 'number' && part.version !== version)
    throw new Refusal('stale', `pair ${part.id} is at version ${version}, not ${part.version}; read it again`)
  if (rows.pair.state === 'unpaired') throw new Refusal('conflict', `pair ${part.id} was ended; set up a new one`)
  return rows
}
