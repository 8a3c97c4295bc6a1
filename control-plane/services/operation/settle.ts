import { and, eq, sql } from 'drizzle-orm'
import { hostOperationKinds } from '../../../shared/contract/api/operations.ts'
import type { Transaction } from '../../db/client.ts'
import { operation, pair } from '../../db/schema/index.ts'
import type { LastSwitchover } from '../../db/schema/pairs.ts'
import type { Deps } from '../../deps.ts'
import { measuredIn, unreadable } from '../../operations/measured-results.ts'
import type { OperationWork } from '../../operations/work.ts'
import { reconcileAlarms } from '../alarm/alarms.ts'
import { endPair } from '../pair/end.ts'
import { recordEvents } from '../record/events.ts'
import type { OperationRow } from './operation-view.ts'

/** What the end of an operation means for its pair; and everybody who watches is told. */
export async function settle(tx: Transaction, deps: Deps, row: OperationRow): Promise<OperationRow> {
  const now = deps.now()
  const result = resultOf(row)
  const [after] = await tx
    .update(operation)
    .set({ work: { ...row.work, result } })
    .where(eq(operation.id, row.id))
    .returning()
  if (row.state === 'succeeded' && row.pair !== null) await settlePair(tx, deps, { row, pairId: row.pair })
  const severity = row.state === 'succeeded' || row.state === 'cancelled' ? 'info' : 'warning'
  await recordEvents(tx, row.organisation, [
    {
      at: now,
      kind: 'operation_ended',
      severity,
      pair: row.pair,
      host: row.host,
      message: `${row.kind} ${row.state === 'unknown' ? 'has an unknown outcome' : row.state}: ${row.work.message}`,
      data: { operation: row.id, kind: row.kind, state: row.state },
    },
  ])
  return after!
}

function resultOf({ kind, work, state }: OperationRow): Record<string, unknown> | null {
  if (kind === 'prechecks' || kind === 'setUp' || kind === 'replacement') {
    const results = work.steps.flatMap(step =>
      (measuredIn(work.notes[step.id]) ?? [unreadable]).map(one => ({ host: step.slot, ...one })),
    )
    return results.length === 0 ? null : { results }
  }
  if (hostOperationKinds.some(one => one === kind)) {
    const [step] = work.steps
    return step === undefined ? null : ((work.notes[step.id] ?? null) as Record<string, unknown> | null)
  }
  if ((kind === 'switchover' || kind === 'takeover') && state === 'succeeded') return { durationMs: durationMs(work) }
  return work.result
}

/** From the command's sending to the report that shows the new primary serving: what a person waits, not the outage. */
function durationMs(work: OperationWork): number | null {
  const began = work.steps[0]?.startedAt
  const ended = work.steps.at(-1)?.endedAt
  if (began === undefined || began === null || ended === undefined || ended === null) return null
  return Date.parse(ended) - Date.parse(began)
}

async function settlePair(
  tx: Transaction,
  deps: Deps,
  { row, pairId }: { row: OperationRow; pairId: string },
): Promise<void> {
  const now = deps.now()
  const change = (set: Record<string, unknown>) =>
    tx
      .update(pair)
      .set({ ...set, version: sql`version + 1` })
      .where(eq(pair.id, pairId))
  switch (row.kind) {
    case 'setUp':
      await change({ state: 'paired', setUpAt: now })
      return
    case 'switchover':
    case 'takeover': {
      const last: LastSwitchover = {
        at: now.toISOString(),
        kind: row.kind === 'switchover' ? 'planned' : 'forced',
        reason: row.reason,
        durationMs: durationMs(row.work),
        by: row.actor,
      }
      await change({ lastSwitchover: last })
      return
    }
    case 'maintenance': {
      const [step] = row.work.steps
      const forMs = step?.action.do === 'command' ? Number(step.action.args.forMs) : 0
      await change(
        forMs === 0
          ? // The host's own end of it may be heard a little later.
            { maintenanceUntil: now, maintenanceReason: null }
          : { maintenanceUntil: new Date(now.getTime() + forMs), maintenanceReason: row.reason },
      )
      return
    }
    case 'unpair':
      await change({ state: 'unpaired' })
      await endPlanned(tx, deps, pairId)
      await reconcileAlarms(tx, { organisation: row.organisation, pair: pairId, causes: [], now })
      await endPair(tx, deps, { row, pairId })
      return
    case 'prechecks':
    case 'replacement':
    case 'settings':
    case 'witnessAdmission':
    case 'keyChange':
    case 'inventory':
    case 'storageScan':
    case 'storageDiscovery':
    case 'initiatorName':
    case 'vswitch':
    case 'hostKeys':
      return
  }
}

/** What was planned for a pair that is none any more. */
async function endPlanned(tx: Transaction, deps: Deps, pairId: string): Promise<void> {
  const ended = await tx
    .update(operation)
    .set({
      state: 'cancelled',
      work: sql`jsonb_set(work, '{message}', '"the pair was ended"')`,
      lookAt: null,
      endedAt: deps.now(),
    })
    .where(and(eq(operation.pair, pairId), eq(operation.state, 'scheduled')))
    .returning()
  for (const row of ended) await settle(tx, deps, row)
}
