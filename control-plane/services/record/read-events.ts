import { and, asc, eq, gt, inArray, type SQL } from 'drizzle-orm'
import type { EventView } from '../../../shared/contract/api/observation.ts'
import type { Member } from '../../auth/caller.ts'
import type { Transaction } from '../../db/client.ts'
import { event } from '../../db/schema/index.ts'
import { numberOfCursor, pageOfRows } from '../../http/pages.ts'

type Row = typeof event.$inferSelect

export const eventView = (row: Row): EventView => ({
  id: row.seq,
  at: row.at.toISOString(),
  kind: row.kind,
  severity: row.severity,
  pair: row.pair,
  host: row.host,
  message: row.message,
  data: row.data,
})

export interface EventFilter {
  member: Member
  pair?: string | undefined
  kind?: string | undefined
}

const matching = ({ member, pair, kind }: EventFilter, after: number): SQL | undefined =>
  and(
    eq(event.organisation, member.organisation),
    gt(event.seq, after),
    member.pairs === null ? undefined : inArray(event.pair, [...member.pairs]),
    pair === undefined ? undefined : eq(event.pair, pair),
    kind === undefined ? undefined : eq(event.kind, kind),
  )

export const eventsAfter = (tx: Transaction, filter: EventFilter & { after: number; limit: number }): Promise<Row[]> =>
  tx.select().from(event).where(matching(filter, filter.after)).orderBy(asc(event.seq)).limit(filter.limit)

export async function listEvents(
  tx: Transaction,
  part: EventFilter & { limit: number; cursor?: string | undefined; after?: number | undefined },
) {
  const after = numberOfCursor(part.cursor) ?? part.after ?? 0
  const rows = await eventsAfter(tx, { ...part, after, limit: part.limit + 1 })
  return pageOfRows(rows, { limit: part.limit, key: row => String(row.seq), view: eventView })
}
