import { and, eq, sql } from 'drizzle-orm'
import type { z } from 'zod'
import type { pushInventory } from '../../../shared/contract/api/agents.ts'
import { host, hostInventory } from '../../db/schema/index.ts'
import { inOrganisation } from '../../db/transaction.ts'
import type { Deps } from '../../deps.ts'

/** The newest of a host, told by an active one. @returns whether it was newer than what was known */
export async function storeInventory(
  deps: Deps,
  part: { organisation: string; host: string; body: z.output<typeof pushInventory.body> },
): Promise<boolean> {
  const { organisation } = part
  const { boot, seq, summary, network, storage } = part.body
  const told = { boot, seq, summary, network, storage, receivedAt: deps.now() }
  return inOrganisation(deps.database, organisation, async tx => {
    const [from] = await tx
      .select({ id: host.id })
      .from(host)
      .where(and(eq(host.id, part.host), eq(host.state, 'active')))
    if (from === undefined) return false
    const stored = await tx
      .insert(hostInventory)
      .values({ host: from.id, organisation, ...told })
      .onConflictDoUpdate({
        target: hostInventory.host,
        set: told,
        setWhere: sql`(excluded.boot, excluded.seq) > (${hostInventory.boot}, ${hostInventory.seq})`,
      })
      .returning({ host: hostInventory.host })
    return stored.length > 0
  })
}
