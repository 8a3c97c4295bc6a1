import type { z } from 'zod'
import type { operation as operationSchema } from '../../../shared/contract/api/operations.ts'
import type { operation } from '../../db/schema/index.ts'
import { isCancellable, progressOf } from '../../operations/advance.ts'

export type OperationRow = typeof operation.$inferSelect

export function operationView(row: OperationRow): z.input<typeof operationSchema> {
  return {
    id: row.id,
    kind: row.kind,
    pair: row.pair,
    host: row.host,
    state: row.state,
    progress: progressOf(row),
    cancellable: isCancellable(row),
    steps: row.work.steps.map(({ id, title, slot, state, message, startedAt, endedAt }) => ({
      id,
      title,
      host: slot,
      state,
      message,
      startedAt,
      endedAt,
    })),
    result: row.work.result,
    message: row.work.message,
    actor: row.actor,
    reason: row.reason,
    createdAt: row.createdAt.toISOString(),
    startsAt: row.startsAt.toISOString(),
    endedAt: row.endedAt?.toISOString() ?? null,
  }
}
