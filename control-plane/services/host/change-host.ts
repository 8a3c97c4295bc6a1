import { eq, sql } from 'drizzle-orm'
import type { Member } from '../../auth/caller.ts'
import type { Transaction } from '../../db/client.ts'
import { enrolmentToken, host } from '../../db/schema/index.ts'
import { isTaken, Refusal } from '../../http/problem.ts'
import { recordEvents } from '../record/events.ts'
import { exchangeVoterKey } from '../witness/members.ts'
import type { HostRows } from './host-view.ts'
import { lockHost, readHost } from './read-hosts.ts'

interface Part {
  id: string
  member: Member
  version: number
  now: Date
}

async function lockVersion(tx: Transaction, part: Part): Promise<HostRows> {
  const rows = await lockHost(tx, part)
  if (rows.host.version !== part.version)
    throw new Refusal('stale', `host ${part.id} is at version ${rows.host.version}, not ${part.version}; read it again`)
  return rows
}

export async function renameHost(tx: Transaction, part: Part & { name: string }): Promise<HostRows> {
  await lockVersion(tx, part)
  await tx
    .update(host)
    .set({ name: part.name, version: sql`version + 1` })
    .where(eq(host.id, part.id))
    .catch((error: unknown) => {
      if (isTaken(error, 'host_name_of_active'))
        throw new Refusal('name_taken', `another host has the name ${part.name}`)
      throw error
    })
  return readHost(tx, part)
}

/** Its key opens nothing from the commit on: neither this API nor the vote of a hosted witness. */
export async function endHost(tx: Transaction, row: typeof host.$inferSelect, now: Date): Promise<void> {
  await tx.update(host).set({ state: 'retired', retiredAt: now, version: sql`version + 1` }).where(eq(host.id, row.id))
  await exchangeVoterKey(tx, { organisation: row.organisation, from: row.publicKey, to: null, now })
}

/** A host in a pair is replaced, or its pair is ended first. */
export async function retireHost(tx: Transaction, part: Part & { reason: string }): Promise<HostRows> {
  const rows = await lockVersion(tx, part)
  if (rows.host.state === 'retired') return rows
  if (rows.pair !== null)
    throw new Refusal(
      'conflict',
      `host ${rows.host.name} is host ${rows.pair.slot} of pair ${rows.pair.id}: end the pair first, or enrol a replacement`,
    )
  await endHost(tx, rows.host, part.now)
  await tx.delete(enrolmentToken).where(eq(enrolmentToken.replaces, part.id))
  await recordEvents(tx, part.member.organisation, [
    {
      at: part.now,
      kind: 'host_retired',
      severity: 'info',
      pair: null,
      host: part.id,
      message: `host ${rows.host.name} was retired: ${part.reason}`,
    },
  ])
  return readHost(tx, part)
}
