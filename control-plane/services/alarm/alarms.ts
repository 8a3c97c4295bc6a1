import { and, desc, eq, inArray, lt, ne } from 'drizzle-orm'
import type { z } from 'zod'
import type { alarmKinds, alarm as alarmSchema } from '../../../shared/contract/api/observation.ts'
import { ulid } from '../../../shared/ids.ts'
import { cutTo } from '../../../shared/text.ts'
import { takeShare } from '../../auth/bearer.ts'
import type { Member } from '../../auth/caller.ts'
import type { Transaction } from '../../db/client.ts'
import { alarm } from '../../db/schema/index.ts'
import { keyOfCursor, pageOfRows } from '../../http/pages.ts'
import { notFound } from '../../http/problem.ts'
import { recordEvents } from '../record/events.ts'

type Row = typeof alarm.$inferSelect
export type AlarmKind = (typeof alarmKinds)[number]

export const alarmView = (row: Row): z.input<typeof alarmSchema> => ({
  id: row.id,
  kind: row.kind as AlarmKind,
  severity: row.severity,
  state: row.state,
  pair: row.pair,
  host: row.host,
  message: row.message,
  raisedAt: row.raisedAt.toISOString(),
  acknowledgedAt: row.acknowledgedAt?.toISOString() ?? null,
  acknowledgedBy: row.acknowledgedBy,
  clearedAt: row.clearedAt?.toISOString() ?? null,
})

export async function listAlarms(
  tx: Transaction,
  part: {
    member: Member
    limit: number
    cursor?: string | undefined
    state?: Row['state'] | undefined
    pair?: string | undefined
  },
) {
  const before = keyOfCursor(part.cursor)
  const { member } = part
  const rows = await tx
    .select()
    .from(alarm)
    .where(
      and(
        eq(alarm.organisation, member.organisation),
        member.pairs === null ? undefined : inArray(alarm.pair, [...member.pairs]),
        before === null ? undefined : lt(alarm.id, before),
        part.state === undefined ? undefined : eq(alarm.state, part.state),
        part.pair === undefined ? undefined : eq(alarm.pair, part.pair),
      ),
    )
    .orderBy(desc(alarm.id))
    .limit(part.limit + 1)
  return pageOfRows(rows, { limit: part.limit, key: row => row.id, view: alarmView })
}

/** Acknowledging one that is acknowledged, or cleared, changes nothing and is no fault. */
export async function acknowledgeAlarm(
  tx: Transaction,
  { id, member, now }: { id: string; member: Member; now: Date },
): Promise<Row> {
  const mine = and(
    eq(alarm.id, id),
    eq(alarm.organisation, member.organisation),
    member.pairs === null ? undefined : inArray(alarm.pair, [...member.pairs]),
  )
  await tx
    .update(alarm)
    .set({ state: 'acknowledged', acknowledgedAt: now, acknowledgedBy: member.subject })
    .where(and(mine, eq(alarm.state, 'raised')))
  const [row] = await tx.select().from(alarm).where(mine)
  if (row === undefined) throw notFound('alarm', id)
  return row
}

/** Something that holds now and should not. */
export interface Cause {
  kind: AlarmKind
  severity: 'warning' | 'critical'
  pair: string | null
  host: string | null
  message: string
}

export const subjectOf = (cause: Pick<Cause, 'kind' | 'pair' | 'host' | 'message'>): string =>
  // Agents' own alarms are many of one kind; the others are one for each thing.
  cutTo(
    [cause.kind, cause.pair ?? '', cause.host ?? '', cause.kind === 'agent_alarm' ? cause.message : ''].join('|'),
    600,
  )

/**
 * Of alarms and changes of primary that a pair is news of: a host that makes up others with each report fills neither the
 * list of all nor the disk below it. What there is no room for is said by a later look.
 */
const newsOfPair = { perSecond: 0.05, burst: 1_000 }

export const takeNews = (tx: Transaction, { pair, wanted }: { pair: string; wanted: number }): Promise<number> =>
  takeShare(tx, { key: `news:${pair}`, rate: newsOfPair, wanted })

/**
 * Makes the open alarms of a pair, whose row the caller holds, equal to what holds now: raises what is new, clears what has
 * gone. Level, not edge: an evaluation that was missed is made up by the next.
 */
export async function reconcileAlarms(
  tx: Transaction,
  part: { organisation: string; pair: string; causes: readonly Cause[]; now: Date },
): Promise<void> {
  const { organisation, pair, causes, now } = part
  const open = await tx
    .select()
    .from(alarm)
    .where(and(eq(alarm.organisation, organisation), ne(alarm.state, 'cleared'), eq(alarm.pair, pair)))
  const wanted = new Map(causes.map(cause => [subjectOf(cause), cause]))
  const gone = open.filter(row => !wanted.has(row.subject))
  const unsaid = [...wanted].filter(([subject]) => !open.some(row => row.subject === subject))
  const room = unsaid.length === 0 ? 0 : await takeNews(tx, { pair, wanted: unsaid.length })
  // What we judge ourselves before whatever a host may write.
  const isOwnWord = ([, { kind }]: (typeof unsaid)[number]): number => Number(kind === 'agent_alarm')
  const fresh = unsaid.sort((one, other) => isOwnWord(one) - isOwnWord(other)).slice(0, room)
  if (gone.length > 0) {
    await tx
      .update(alarm)
      .set({ state: 'cleared', clearedAt: now })
      .where(
        inArray(
          alarm.id,
          gone.map(row => row.id),
        ),
      )
  }
  const raised =
    fresh.length === 0
      ? []
      : await tx
          .insert(alarm)
          .values(
            fresh.map(([subject, cause]) => ({
              id: ulid(now.getTime()),
              organisation,
              ...cause,
              subject,
              state: 'raised' as const,
              raisedAt: now,
            })),
          )
          .onConflictDoNothing()
          .returning()
  await recordEvents(tx, organisation, [
    ...raised.map(row => ({
      at: now,
      kind: 'alarm_raised',
      severity: row.severity,
      pair: row.pair,
      host: row.host,
      message: row.message,
      data: { alarm: row.id, kind: row.kind },
    })),
    ...gone.map(row => ({
      at: now,
      kind: 'alarm_cleared',
      severity: 'info' as const,
      pair: row.pair,
      host: row.host,
      message: row.message,
      data: { alarm: row.id, kind: row.kind },
    })),
  ])
}
