import { count, isNull } from 'drizzle-orm'
import { ulid } from '../../shared/ids.ts'
import { hashOf, newToken } from '../auth/tokens.ts'
import type { Database } from '../db/client.ts'
import { apiToken, organisation } from '../db/schema/index.ts'
import { acrossOrganisations } from '../db/transaction.ts'
import { createOrganisation } from '../services/organisation/organisations.ts'

/** A year: whoever runs this control plane makes organisations rarely. */
const instanceTokenDays = 365

/** Into an empty database: one organisation with its administrator's token, and the token of whoever runs this. */
export async function bootstrap(database: Database, now: Date): Promise<{ admin: string; instance: string } | null> {
  return acrossOrganisations(database, async tx => {
    const [known] = await tx.select({ rows: count() }).from(organisation)
    const [instances] = await tx.select({ rows: count() }).from(apiToken).where(isNull(apiToken.organisation))
    if ((known?.rows ?? 0) > 0 || (instances?.rows ?? 0) > 0) return null
    const { token: admin } = await createOrganisation(tx, { name: 'first organisation', now })
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
    return { admin, instance }
  })
}
