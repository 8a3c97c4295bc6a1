import { and, count, eq, gt, inArray, isNull, ne, type SQL, sql } from 'drizzle-orm'
import type { z } from 'zod'
import type {
  apiToken as apiTokenSchema,
  createToken as createTokenRoute,
} from '../../../shared/contract/api/organisations.ts'
import type { Permission } from '../../../shared/contract/api/permissions.ts'
import { grantedBy } from '../../../shared/contract/api/permissions.ts'
import { ulid } from '../../../shared/ids.ts'
import type { Member } from '../../auth/caller.ts'
import { hashOf, newToken } from '../../auth/tokens.ts'
import type { Transaction } from '../../db/client.ts'
import { apiToken, organisation, pair, type toolKey } from '../../db/schema/index.ts'
import { keyOfCursor, pageOfRows } from '../../http/pages.ts'
import { notFound, Refusal } from '../../http/problem.ts'

type Row = typeof apiToken.$inferSelect
type Wanted = z.output<typeof createTokenRoute.body>

export function tokenView(row: Row): z.input<typeof apiTokenSchema> {
  return {
    id: row.id,
    name: row.name,
    role: row.role,
    scopes: row.scopes as Permission[] | null,
    pairs: row.pairs,
    createdAt: row.createdAt.toISOString(),
    expiresAt: row.expiresAt.toISOString(),
    revokedAt: row.revokedAt?.toISOString() ?? null,
    lastUsedAt: row.lastUsedAt?.toISOString() ?? null,
  }
}

/** People come by an identity provider; what is left is a token for each tool. Each has a rate of requests of its own. */
export const tokensMax = 500

/** The organisation's row is held, so that two requests at once are counted one after the other. @throws Refusal */
async function refuseTooMany(tx: Transaction, { by, now }: { by: Member; now: Date }): Promise<void> {
  await tx
    .select({ id: organisation.id })
    .from(organisation)
    .where(eq(organisation.id, by.organisation))
    .for('no key update')
  const [present] = await tx
    .select({ tokens: count() })
    .from(apiToken)
    .where(and(eq(apiToken.organisation, by.organisation), isNull(apiToken.revokedAt), gt(apiToken.expiresAt, now)))
  if ((present?.tokens ?? 0) >= tokensMax)
    throw new Refusal(
      'conflict',
      `the organisation has ${tokensMax} API tokens in force: revoke those that are not used`,
    )
}

/** Nobody gives what he has not: a token is never wider than the credential that made it. */
export async function createToken(
  tx: Transaction,
  { wanted, by, now }: { wanted: Wanted; by: Member; now: Date },
): Promise<{ row: Row; token: string }> {
  const excess = grantedBy(wanted).filter(one => !by.permissions.has(one))
  if (excess.length > 0)
    throw new Refusal('forbidden', `the caller does not have ${excess.join(', ')} and cannot give it`)
  await refuseOtherPairs(tx, { wanted: wanted.pairs, by })
  await refuseTooMany(tx, { by, now })
  const token = newToken()
  const [row] = await tx
    .insert(apiToken)
    .values({
      id: ulid(now.getTime()),
      organisation: by.organisation,
      name: wanted.name,
      hash: await hashOf(token),
      role: wanted.role,
      scopes: wanted.scopes,
      pairs: wanted.pairs,
      createdAt: now,
      expiresAt: new Date(now.getTime() + wanted.expiresInDays * 86_400_000),
    })
    .returning()
  return { row: row!, token }
}

/** Pairs of a credential that is given: the giver's own, and there. @throws Refusal */
export async function refuseOtherPairs(
  tx: Transaction,
  { wanted, by }: { wanted: readonly string[] | null; by: Member },
): Promise<void> {
  if (by.pairs !== null && (wanted === null || wanted.some(one => !by.pairs?.has(one))))
    throw new Refusal('forbidden', 'the caller is limited to some pairs and can only give those')
  if (wanted === null) return
  const known = await tx
    .select({ id: pair.id })
    .from(pair)
    .where(and(eq(pair.organisation, by.organisation), inArray(pair.id, [...wanted]), ne(pair.state, 'unpaired')))
  const missing = wanted.find(id => !known.some(one => one.id === id))
  if (missing !== undefined) throw notFound('pair', missing)
}

/** Whoever is limited to some pairs deals with the credentials of those alone. */
export const givenWithin = (
  column: typeof apiToken.pairs | typeof toolKey.pairs,
  { pairs }: Member,
): SQL | undefined => (pairs === null ? undefined : sql`${column} <@ ${JSON.stringify([...pairs])}::jsonb`)

export async function listTokens(tx: Transaction, part: { member: Member; limit: number; cursor: string | undefined }) {
  const after = keyOfCursor(part.cursor)
  const rows = await tx
    .select()
    .from(apiToken)
    .where(
      and(
        eq(apiToken.organisation, part.member.organisation),
        givenWithin(apiToken.pairs, part.member),
        after === null ? undefined : gt(apiToken.id, after),
      ),
    )
    .orderBy(apiToken.id)
    .limit(part.limit + 1)
  return pageOfRows(rows, { limit: part.limit, key: row => row.id, view: tokenView })
}

/** Revoking twice is no fault. */
export async function revokeToken(tx: Transaction, part: { member: Member; id: string; now: Date }): Promise<Row> {
  const { member, id } = part
  const mine = and(
    eq(apiToken.organisation, member.organisation),
    givenWithin(apiToken.pairs, member),
    eq(apiToken.id, id),
  )
  await tx
    .update(apiToken)
    .set({ revokedAt: part.now })
    .where(and(mine, isNull(apiToken.revokedAt)))
  const [row] = await tx.select().from(apiToken).where(mine)
  if (row === undefined) throw notFound('token', part.id)
  return row
}
