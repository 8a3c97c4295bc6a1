import { and, eq, isNull } from 'drizzle-orm'
import { type TrustedTool, toolKeysMax, toolKid, toolVerbs } from '../../../shared/contract/documents.ts'
import type { Transaction } from '../../db/client.ts'
import { toolKey } from '../../db/schema/index.ts'

/** The keys of tooling that hosts of a pair are told of. A host in no pair has nothing that tooling may command. */
export async function trustedToolsOf(tx: Transaction, organisation: string): Promise<(pair: string) => TrustedTool[]> {
  const rows = await tx
    .select()
    .from(toolKey)
    .where(and(eq(toolKey.organisation, organisation), isNull(toolKey.revokedAt)))
    .orderBy(toolKey.id)
    .limit(toolKeysMax)
  return pair =>
    rows
      .filter(row => row.pairs === null || row.pairs.includes(pair))
      .map(row => ({
        kid: toolKid(row.id),
        publicKey: row.publicKey,
        verbs: toolVerbs.filter(verb => row.verbs.includes(verb)),
      }))
}
