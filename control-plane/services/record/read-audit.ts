import { and, asc, eq, gt } from 'drizzle-orm'
import type { Transaction } from '../../db/client.ts'
import { audit, organisation } from '../../db/schema/index.ts'
import type { Deps } from '../../deps.ts'
import { numberOfCursor, pageOfRows } from '../../http/pages.ts'
import { entryHash } from './audit.ts'

type Row = typeof audit.$inferSelect

const auditView = ({ organisation: _, at, ...row }: Row) => ({ ...row, at: at.toISOString() })

export async function listAudit(
  tx: Transaction,
  part: { organisation: string; limit: number; cursor?: string | undefined },
) {
  const after = numberOfCursor(part.cursor) ?? 0
  const rows = await chunk(tx, { owner: part.organisation, after, limit: part.limit + 1 })
  return pageOfRows(rows, { limit: part.limit, key: row => String(row.seq), view: auditView })
}

const chunk = (
  tx: Transaction,
  { owner, after, limit }: { owner: string; after: number; limit: number },
): Promise<Row[]> =>
  tx
    .select()
    .from(audit)
    .where(and(eq(audit.organisation, owner), gt(audit.seq, after)))
    .orderBy(asc(audit.seq))
    .limit(limit)

/**
 * A chain that lies in one database can be written anew as a whole by whoever owns that database: heads that somebody
 * else keeps are what shows it.
 */
export async function auditHead(tx: Transaction, deps: Deps, owner: string) {
  const [row] = await tx.select().from(organisation).where(eq(organisation.id, owner))
  const head = {
    organisation: owner,
    seq: row?.auditSeq ?? 0,
    hash: row?.auditHash ?? '',
    at: deps.now().toISOString(),
  }
  return { ...head, signed: await deps.signer.sign('auditHead', { v: 1, ...head }), trust: deps.trust.document }
}

const chunkRows = 1000

/** The whole chain, from the first entry to the head that the organisation's row holds: altered, missing and cut off. */
export async function verifyAudit(
  tx: Transaction,
  owner: string,
  kept: { seq?: number | undefined; hash?: string | undefined } = {},
) {
  const [head] = await tx.select().from(organisation).where(eq(organisation.id, owner))
  let seq = 0
  let hash = ''
  const fault = (at: number, why: string) => ({
    entries: seq,
    head: head?.auditHash ?? '',
    intact: false,
    firstFault: { seq: at, why },
  })
  for (;;) {
    const rows = await chunk(tx, { owner, after: seq, limit: chunkRows })
    for (const row of rows) {
      if (row.seq !== seq + 1) return fault(seq + 1, `the entry is missing; the next one is ${row.seq}`)
      if (row.previousHash !== hash) return fault(row.seq, 'it does not follow from the entry before')
      const computed = await entryHash({ ...row, details: row.details })
      if (computed !== row.hash) return fault(row.seq, 'the entry was altered')
      if (row.seq === kept.seq && kept.hash !== undefined && row.hash !== kept.hash)
        return fault(row.seq, 'the chain is another one than the head that was kept elsewhere')
      seq = row.seq
      hash = row.hash
    }
    if (rows.length < chunkRows) break
  }
  if (head !== undefined && (head.auditSeq !== seq || head.auditHash !== hash))
    return fault(seq + 1, `the chain ends at ${seq}, and ${head.auditSeq} entries were written`)
  if (kept.seq !== undefined && kept.seq > seq)
    return fault(seq + 1, `the chain ends at ${seq}, and the head that was kept elsewhere is ${kept.seq}`)
  return { entries: seq, head: hash, intact: true, firstFault: null }
}
