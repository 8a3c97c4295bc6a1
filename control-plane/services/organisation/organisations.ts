import { and, eq, gt, sql } from 'drizzle-orm'
import { ulid } from '../../../shared/ids.ts'
import { hashOf, newToken } from '../../auth/tokens.ts'
import type { Transaction } from '../../db/client.ts'
import { apiToken, organisation } from '../../db/schema/index.ts'
import { keyOfCursor, pageOfRows } from '../../http/pages.ts'
import { Refusal } from '../../http/problem.ts'

type Row = typeof organisation.$inferSelect

export const organisationView = ({ id, name, createdAt }: Row) => ({ id, name, createdAt: createdAt.toISOString() })

/** The first token is an administrator's; who has it makes the others, and revokes it. */
export const firstTokenDays = 30

export async function createOrganisation(
  tx: Transaction,
  { name, now }: { name: string; now: Date },
): Promise<{ row: Row; token: string }> {
  const [row] = await tx
    .insert(organisation)
    .values({ id: ulid(now.getTime()), name, createdAt: now })
    .returning()
  return { row: row!, token: await administratorToken(tx, { organisation: row!.id, name: 'first administrator', now }) }
}

/** From whoever runs this control plane: an organisation in which nobody has a token can make none. @throws Refusal */
export async function readmitAdministrator(
  tx: Transaction,
  { id, now }: { id: string; now: Date },
): Promise<{ row: Row; token: string }> {
  const [row] = await tx.select().from(organisation).where(eq(organisation.id, id))
  if (row === undefined) throw new Refusal('not_found', `there is no organisation ${id} here`)
  return {
    row,
    token: await administratorToken(tx, { organisation: id, name: 'administrator, made by the instance', now }),
  }
}

async function administratorToken(
  tx: Transaction,
  { organisation: owner, name, now }: { organisation: string; name: string; now: Date },
): Promise<string> {
  const token = newToken()
  await tx.insert(apiToken).values({
    id: ulid(now.getTime()),
    organisation: owner,
    name,
    hash: await hashOf(token),
    role: 'admin',
    scopes: null,
    pairs: null,
    createdAt: now,
    expiresAt: new Date(now.getTime() + firstTokenDays * 86_400_000),
  })
  return token
}

export async function listOrganisations(tx: Transaction, part: { limit: number; cursor: string | undefined }) {
  const after = keyOfCursor(part.cursor)
  const rows = await tx
    .select()
    .from(organisation)
    .where(after === null ? undefined : gt(organisation.id, after))
    .orderBy(organisation.id)
    .limit(part.limit + 1)
  return pageOfRows(rows, { limit: part.limit, key: row => row.id, view: organisationView })
}

export async function readOrganisation(tx: Transaction, id: string): Promise<Row> {
  const [row] = await tx.select().from(organisation).where(eq(organisation.id, id))
  if (row === undefined) throw new Error(`the caller's organisation ${id} is not there`)
  return row
}

export async function renameOrganisation(
  tx: Transaction,
  part: { id: string; name: string; version: number },
): Promise<Row> {
  const [row] = await tx
    .update(organisation)
    .set({ name: part.name, version: sql`${organisation.version} + 1` })
    .where(and(eq(organisation.id, part.id), eq(organisation.version, part.version)))
    .returning()
  if (row === undefined) throw new Refusal('stale', 'the organisation was changed meanwhile; read it again')
  return row
}
