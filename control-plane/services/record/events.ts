import { eq, sql } from 'drizzle-orm'
import { sentenceMax } from '../../../shared/contract/api/common.ts'
import { cutTo } from '../../../shared/text.ts'
import type { Transaction } from '../../db/client.ts'
import { event, organisation } from '../../db/schema/index.ts'

export interface EventPart {
  at: Date
  kind: string
  severity: 'info' | 'warning' | 'critical'
  pair: string | null
  host: string | null
  message: string
  data?: Record<string, unknown>
  /** Of an event that a host made; the same again is not stored again. */
  origin?: string
}

/**
 * Numbers are given while the organisation's row is held, so they become visible in their order and without gaps: a
 * reader that has seen number n has seen all before it.
 */
export async function recordEvents(tx: Transaction, owner: string, parts: readonly EventPart[]): Promise<number> {
  if (parts.length === 0) return 0
  const [head] = await tx
    .update(organisation)
    .set({ eventSeq: sql`${organisation.eventSeq} + ${parts.length}` })
    .where(eq(organisation.id, owner))
    .returning({ seq: organisation.eventSeq })
  if (head === undefined) throw new Error(`there is no organisation ${owner} to write events of`)
  const first = head.seq - parts.length + 1
  await tx.insert(event).values(
    parts.map(({ origin, data, ...part }, index) => ({
      organisation: owner,
      seq: first + index,
      ...part,
      // One that is longer than the API shows would take the whole list with it.
      message: cutTo(part.message, sentenceMax),
      data: data ?? {},
      origin: origin ?? null,
    })),
  )
  return parts.length
}
