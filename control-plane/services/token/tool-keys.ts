import { and, count, eq, gt, isNull, lt, sql } from 'drizzle-orm'
import type { z } from 'zod'
import type { createToolKey as createRoute, toolKey as toolKeySchema } from '../../../shared/contract/api/tool-keys.ts'
import { toolKeysMax, toolKid, toolVerbs } from '../../../shared/contract/documents.ts'
import { ulid } from '../../../shared/ids.ts'
import type { Member } from '../../auth/caller.ts'
import type { Transaction } from '../../db/client.ts'
import { hostDesired, organisation as organisations, toolKey } from '../../db/schema/index.ts'
import type { Deps } from '../../deps.ts'
import { keyOfCursor, pageOfRows } from '../../http/pages.ts'
import { notFound, Refusal } from '../../http/problem.ts'
import { issueDesired } from '../pair/issue-desired.ts'
import { givenWithin, refuseOtherPairs } from './tokens.ts'

type Row = typeof toolKey.$inferSelect

export const toolKeyView = (row: Row): z.input<typeof toolKeySchema> => ({
  id: row.id,
  kid: toolKid(row.id),
  name: row.name,
  publicKey: row.publicKey,
  verbs: toolVerbs.filter(verb => row.verbs.includes(verb)),
  pairs: row.pairs ?? null,
  createdAt: row.createdAt.toISOString(),
  revokedAt: row.revokedAt?.toISOString() ?? null,
})

/** Nobody gives what he has not: the verbs are those of `pair:operate`, and the pairs are the caller's own. */
export async function createToolKey(
  tx: Transaction,
  deps: Deps,
  { wanted, by }: { wanted: z.output<typeof createRoute.body>; by: Member },
): Promise<Row> {
  if (!by.permissions.has('pair:operate'))
    throw new Refusal('forbidden', 'the caller does not have pair:operate and cannot give it')
  await refuseOtherPairs(tx, { wanted: wanted.pairs, by })
  await noteChange(tx, by.organisation)
  const [present] = await tx
    .select({ keys: count() })
    .from(toolKey)
    .where(and(eq(toolKey.organisation, by.organisation), isNull(toolKey.revokedAt)))
  if ((present?.keys ?? 0) >= toolKeysMax)
    throw new Refusal('conflict', `the organisation has ${toolKeysMax} keys of tooling; revoke one that is not used`)
  const now = deps.now()
  const [row] = await tx
    .insert(toolKey)
    .values({ id: ulid(now.getTime()), organisation: by.organisation, createdAt: now, ...wanted })
    .returning()
  await reissueForTools(tx, deps, { organisation: by.organisation })
  return row!
}

/** Revoking twice is no fault. */
export async function revokeToolKey(
  tx: Transaction,
  deps: Deps,
  { id, member }: { id: string; member: Member },
): Promise<Row> {
  const { organisation } = member
  const mine = and(eq(toolKey.organisation, organisation), givenWithin(toolKey.pairs, member), eq(toolKey.id, id))
  const revoked = await tx
    .update(toolKey)
    .set({ revokedAt: deps.now() })
    .where(and(mine, isNull(toolKey.revokedAt)))
    .returning()
  if (revoked.length > 0) {
    await noteChange(tx, organisation)
    await reissueForTools(tx, deps, { organisation })
  }
  const [row] = await tx.select().from(toolKey).where(mine)
  if (row === undefined) throw notFound('key of tooling', id)
  return row
}

export async function listToolKeys(
  tx: Transaction,
  part: { member: Member; limit: number; cursor: string | undefined },
) {
  const after = keyOfCursor(part.cursor)
  const rows = await tx
    .select()
    .from(toolKey)
    .where(
      and(
        eq(toolKey.organisation, part.member.organisation),
        givenWithin(toolKey.pairs, part.member),
        after === null ? undefined : gt(toolKey.id, after),
      ),
    )
    .orderBy(toolKey.id)
    .limit(part.limit + 1)
  return pageOfRows(rows, { limit: part.limit, key: row => row.id, view: toolKeyView })
}

/**
 * Its row is held from here on, so that two changes are two counts. The wishes that are issued anew at once are held before:
 * whoever changes the settings of a pair takes them in this order too.
 */
async function noteChange(tx: Transaction, organisation: string): Promise<void> {
  await tx
    .select({ host: hostDesired.host })
    .from(hostDesired)
    .where(eq(hostDesired.organisation, organisation))
    .orderBy(hostDesired.host)
    .limit(reissuedAtOnce)
    .for('update')
  await tx
    .update(organisations)
    .set({ toolsVersion: sql`${organisations.toolsVersion} + 1` })
    .where(eq(organisations.id, organisation))
}

/** Signing costs some tenths of a millisecond each: a request issues this many at once, and the sweep the rest. */
export const reissuedAtOnce = 200

/** Desired documents that were rendered before the last change of keys, again. @returns how many */
export async function reissueForTools(
  tx: Transaction,
  deps: Deps,
  { organisation }: { organisation: string },
): Promise<number> {
  const behind = await tx
    .select({ host: hostDesired.host })
    .from(hostDesired)
    .innerJoin(organisations, eq(organisations.id, hostDesired.organisation))
    .where(and(eq(hostDesired.organisation, organisation), lt(hostDesired.toolsVersion, organisations.toolsVersion)))
    .orderBy(hostDesired.host)
    .limit(reissuedAtOnce)
  if (behind.length > 0) await issueDesired(tx, deps, { organisation, hosts: behind.map(row => row.host) })
  return behind.length
}
