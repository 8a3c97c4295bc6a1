import { and, eq, gt, type SQL, sql } from 'drizzle-orm'
import type { Member } from '../../auth/caller.ts'
import type { Transaction } from '../../db/client.ts'
import { enrolmentToken } from '../../db/schema/index.ts'
import { keyOfCursor, pageOfRows } from '../../http/pages.ts'
import { notFound, Refusal } from '../../http/problem.ts'

type Row = typeof enrolmentToken.$inferSelect

export const enrolmentTokenView = ({ id, name, replaces, createdAt, expiresAt, usedAt }: Row) => ({
  id,
  name,
  replaces,
  createdAt: createdAt.toISOString(),
  expiresAt: expiresAt.toISOString(),
  usedAt: usedAt?.toISOString() ?? null,
})

/** Whoever is limited to some pairs deals with the replacements in those alone. */
function seenBy({ organisation, pairs }: Member): SQL | undefined {
  const own = eq(enrolmentToken.organisation, organisation)
  if (pairs === null) return own
  const ids = JSON.stringify([...pairs])
  return and(
    own,
    sql`exists (select 1 from pair p where ${ids}::jsonb ? p.id and ${enrolmentToken.replaces} in (p.host_a, p.host_b))`,
  )
}

export async function listEnrolmentTokens(
  tx: Transaction,
  part: { member: Member; limit: number; cursor: string | undefined },
) {
  const after = keyOfCursor(part.cursor)
  const rows = await tx
    .select()
    .from(enrolmentToken)
    .where(and(seenBy(part.member), after === null ? undefined : gt(enrolmentToken.id, after)))
    .orderBy(enrolmentToken.id)
    .limit(part.limit + 1)
  return pageOfRows(rows, { limit: part.limit, key: row => row.id, view: enrolmentTokenView })
}

/** The host that used it is retired; taking its token away would change nothing. @throws Refusal */
export async function withdrawEnrolmentToken(tx: Transaction, part: { id: string; member: Member }): Promise<Row> {
  const [row] = await tx
    .select()
    .from(enrolmentToken)
    .where(and(seenBy(part.member), eq(enrolmentToken.id, part.id)))
    .for('update')
  if (row === undefined) throw notFound('enrolment token', part.id)
  if (row.usedAt !== null)
    throw new Refusal('conflict', `a host enrolled with it at ${row.usedAt.toISOString()}: retire the host ${row.name}`)
  await tx.delete(enrolmentToken).where(eq(enrolmentToken.id, row.id))
  return row
}
