import { eq } from 'drizzle-orm'
import { sha256Hex } from '../../../shared/contract/signing.ts'
import type { Transaction } from '../../db/client.ts'
import { audit, organisation } from '../../db/schema/index.ts'

export interface AuditPart {
  at: Date
  actor: string
  /** A verb phrase, as the route's id. */
  action: string
  /** "pair 01j…": what it was done to. */
  resource: string
  outcome: 'done' | 'refused'
  /** No secrets. */
  details?: Record<string, unknown>
}

/**
 * Appends to the organisation's chain, in the transaction of what it tells. It holds the organisation's row until the
 * commit, so it comes last in a transaction.
 */
export async function recordAudit(tx: Transaction, owner: string, part: AuditPart): Promise<void> {
  const [head] = await tx
    .select({ seq: organisation.auditSeq, hash: organisation.auditHash })
    .from(organisation)
    .where(eq(organisation.id, owner))
    .for('no key update')
  if (head === undefined) throw new Error(`there is no organisation ${owner} to write the audit of`)
  const entry = { ...part, seq: head.seq + 1, details: part.details ?? {}, previousHash: head.hash }
  const hash = await entryHash({ organisation: owner, ...entry })
  await tx.insert(audit).values({ organisation: owner, ...entry, hash })
  await tx.update(organisation).set({ auditSeq: entry.seq, auditHash: hash }).where(eq(organisation.id, owner))
}

export interface HashedEntry extends Required<AuditPart> {
  organisation: string
  seq: number
  previousHash: string
}

/** Over a list in a fixed order, keys of the details sorted: jsonb does not keep their order. */
export const entryHash = (entry: HashedEntry): Promise<string> =>
  sha256Hex(
    JSON.stringify([
      entry.previousHash,
      entry.organisation,
      entry.seq,
      entry.at.toISOString(),
      entry.actor,
      entry.action,
      entry.resource,
      entry.outcome,
      sorted(entry.details),
    ]),
  )

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, one]) => one !== undefined)
      .sort(([one], [other]) => (one < other ? -1 : 1))
      .map(([key, one]) => [key, sorted(one)]),
  )
}
