import { and, eq, gt, inArray, ne, or, type SQL, sql } from 'drizzle-orm'
import type { Member } from '../../auth/caller.ts'
import type { Transaction } from '../../db/client.ts'
import { host, hostDesired, hostInventory, hostReported, hostSeen, pair } from '../../db/schema/index.ts'
import { notFound } from '../../http/problem.ts'
import type { HostRows } from './host-view.ts'

/** Hosts with what was heard of them, in the order of their enrolment. */
export async function readHosts(tx: Transaction, part: { where: SQL | undefined; limit: number }): Promise<HostRows[]> {
  const rows = await tx
    .select({
      host,
      reported: hostReported,
      seen: hostSeen,
      summary: hostInventory.summary,
      generation: hostDesired.generation,
      pairId: pair.id,
      hostA: pair.hostA,
    })
    .from(host)
    .leftJoin(hostReported, eq(hostReported.host, host.id))
    .leftJoin(hostSeen, eq(hostSeen.host, host.id))
    .leftJoin(hostInventory, eq(hostInventory.host, host.id))
    .leftJoin(hostDesired, eq(hostDesired.host, host.id))
    .leftJoin(pair, and(or(eq(pair.hostA, host.id), eq(pair.hostB, host.id)), ne(pair.state, 'unpaired')))
    .where(part.where)
    .orderBy(host.id)
    .limit(part.limit)
  return rows.map(({ pairId, hostA, generation, ...row }) => ({
    ...row,
    generation: generation ?? 0,
    pair: pairId === null ? null : { id: pairId, slot: hostA === row.host.id ? 'a' : 'b' },
  }))
}

/** A credential that is limited to some pairs sees their hosts alone. */
export const hostsSeenBy = (member: Member): SQL | undefined =>
  and(
    eq(host.organisation, member.organisation),
    member.pairs === null ? undefined : inArray(pair.id, [...member.pairs]),
  )

export const hostsAfter = (cursor: string | null, state: 'active' | 'retired' | undefined): SQL | undefined =>
  and(cursor === null ? undefined : gt(host.id, cursor), state === undefined ? undefined : eq(host.state, state))

/** @throws Refusal 404 also for a foreign one: that it exists elsewhere is nobody's business. */
export async function readHost(tx: Transaction, part: { id: string; member: Member }): Promise<HostRows> {
  const [rows] = await readHosts(tx, { where: and(hostsSeenBy(part.member), eq(host.id, part.id)), limit: 1 })
  if (rows === undefined) throw notFound('host', part.id)
  return rows
}

/** For changes: nobody else changes it until the commit. */
export async function lockHost(tx: Transaction, part: { id: string; member: Member }): Promise<HostRows> {
  await tx.execute(sql`select 1 from host where id = ${part.id} for no key update`)
  return readHost(tx, part)
}

export const openPairOf = (hostId: string): SQL | undefined =>
  and(or(eq(pair.hostA, hostId), eq(pair.hostB, hostId)), ne(pair.state, 'unpaired'))
