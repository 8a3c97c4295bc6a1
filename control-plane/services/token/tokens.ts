import { and, eq, gt, isNull } from 'drizzle-orm'
import type { z } from 'zod'
import type {
  apiToken as apiTokenSchema,
  createToken as createTokenRoute,
} from '../../../shared/contract/api/organisations.ts'
import type { Permission } from '../../../shared/contract/api/permissions.ts'
import { permissionsOf } from '../../../shared/contract/api/permissions.ts'
import { ulid } from '../../../shared/ids.ts'
import type { Member } from '../../auth/caller.ts'
import { hashOf, newToken } from '../../auth/tokens.ts'
import type { Transaction } from '../../db/client.ts'
import { apiToken } from '../../db/schema/index.ts'
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

/** Nobody gives what he has not: a token is never wider than the credential that made it. */
export async function createToken(
  tx: Transaction,
  { wanted, by, now }: { wanted: Wanted; by: Member; now: Date },
): Promise<{ row: Row; token: string }> {
  const given = permissionsOf[wanted.role].filter(one => wanted.scopes === null || wanted.scopes.includes(one))
  const excess = given.filter(one => !by.permissions.has(one))
  if (excess.length > 0)
    throw new Refusal('forbidden', `the caller does not have ${excess.join(', ')} and cannot give it`)
  if (by.pairs !== null && (wanted.pairs === null || wanted.pairs.some(pair => !by.pairs?.has(pair))))
    throw new Refusal('forbidden', 'the caller is limited to some pairs and can only give those')
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

export async function listTokens(
  tx: Transaction,
  part: { organisation: string; limit: number; cursor: string | undefined },
) {
  const after = keyOfCursor(part.cursor)
  const rows = await tx
    .select()
    .from(apiToken)
    .where(and(eq(apiToken.organisation, part.organisation), after === null ? undefined : gt(apiToken.id, after)))
    .orderBy(apiToken.id)
    .limit(part.limit + 1)
  return pageOfRows(rows, { limit: part.limit, key: row => row.id, view: tokenView })
}

/** Revoking twice is no fault. */
export async function revokeToken(
  tx: Transaction,
  part: { organisation: string; id: string; now: Date },
): Promise<Row> {
  const mine = and(eq(apiToken.organisation, part.organisation), eq(apiToken.id, part.id))
  await tx
    .update(apiToken)
    .set({ revokedAt: part.now })
    .where(and(mine, isNull(apiToken.revokedAt)))
  const [row] = await tx.select().from(apiToken).where(mine)
  if (row === undefined) throw notFound('token', part.id)
  return row
}
