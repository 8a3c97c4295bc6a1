import { and, count, gt, isNull, sql } from 'drizzle-orm'
import { ulid } from '../../shared/ids.ts'
import { hashOf, newToken } from '../auth/tokens.ts'
import type { Database } from '../db/client.ts'
import { apiToken, organisation } from '../db/schema/index.ts'
import { acrossOrganisations } from '../db/transaction.ts'
import { createOrganisation } from '../services/organisation/organisations.ts'

/** Any number. */
const lockKey = 7_227_002

/** A year: whoever runs this control plane makes organisations rarely. */
const instanceTokenDays = 365

export interface FirstTokens {
  /** Of the first organisation; null: there are some, whose administrators have theirs. */
  admin: string | null
  instance: string
}

/**
 * Into an empty database: one organisation with its administrator's token, and the token of whoever runs this. He gets
 * another one when his is over: by it he makes new ones for organisations whose own are.
 */
export async function bootstrap(database: Database, now: Date): Promise<FirstTokens | null> {
  return acrossOrganisations(database, async tx => {
    // Of instances that start together one makes them.
    await tx.execute(sql`select pg_advisory_xact_lock(${lockKey})`)
    const inForce = and(isNull(apiToken.organisation), isNull(apiToken.revokedAt), gt(apiToken.expiresAt, now))
    const [instances] = await tx.select({ rows: count() }).from(apiToken).where(inForce)
    if ((instances?.rows ?? 0) > 0) return null
    const [known] = await tx.select({ id: organisation.id }).from(organisation).limit(1)
    const first = known === undefined ? await createOrganisation(tx, { name: 'first organisation', now }) : null
    const instance = newToken()
    await tx.insert(apiToken).values({
      id: ulid(now.getTime()),
      organisation: null,
      name: 'instance',
      hash: await hashOf(instance),
      role: 'admin',
      scopes: null,
      pairs: null,
      createdAt: now,
      expiresAt: new Date(now.getTime() + instanceTokenDays * 86_400_000),
    })
    return { admin: first?.token ?? null, instance }
  })
}
