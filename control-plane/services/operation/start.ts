import { and, eq, notInArray } from 'drizzle-orm'
import type { OperationKind } from '../../../shared/contract/api/operations.ts'
import { ulid } from '../../../shared/ids.ts'
import type { Transaction } from '../../db/client.ts'
import { operation } from '../../db/schema/index.ts'
import type { Deps } from '../../deps.ts'
import { isTaken, Refusal } from '../../http/problem.ts'
import type { OperationWork } from '../../operations/work.ts'
import { recordEvents } from '../record/events.ts'
import { carryOn } from './carry-on.ts'
import type { OperationRow } from './operation-view.ts'

export interface Wanted {
  organisation: string
  kind: OperationKind
  /** null: it concerns one host alone. */
  pair: string | null
  host?: string
  work: OperationWork
  actor: string
  reason: string
  /** In the event that tells of its beginning, where the kind says too little. */
  what?: string
  /** Absent: at once. */
  startsAt?: Date
}

/** Writes the operation down and lets its first steps go, in the caller's transaction. */
export async function startOperation(tx: Transaction, deps: Deps, wanted: Wanted): Promise<OperationRow> {
  const { organisation, kind, pair, work, actor, reason } = wanted
  const now = deps.now()
  const startsAt = wanted.startsAt ?? now
  const scheduled = startsAt > now
  if (!isBeside(kind) && pair !== null) await (scheduled ? refuseSecondScheduled(tx, pair) : refuseSecond(tx, pair))
  const [row] = await tx
    .insert(operation)
    .values({
      id: ulid(now.getTime()),
      organisation,
      pair,
      host: wanted.host ?? null,
      kind,
      state: scheduled ? 'scheduled' : 'running',
      work,
      actor,
      reason,
      createdAt: now,
      startsAt,
      lookAt: startsAt,
    })
    .returning()
    .catch((error: unknown) => {
      if (isTaken(error, 'operation_open_of_pair') || isTaken(error, 'operation_scheduled_of_pair'))
        throw new Refusal('operation_in_progress', 'another operation of this pair began at the same moment')
      throw error
    })
  await recordEvents(tx, organisation, [
    {
      at: now,
      kind: 'operation_started',
      severity: 'info',
      pair,
      host: wanted.host ?? null,
      message: `${wanted.what ?? kind} ${scheduled ? `is scheduled for ${startsAt.toISOString()}` : 'begins'}${reason === '' ? '' : `: ${reason}`}`,
      data: { operation: row!.id, kind },
    },
  ])
  return scheduled ? row! : carryOn(tx, deps, { row: row!, event: { kind: 'look', observed: null } })
}

/** Kinds that only measure or wait: they keep nothing else from beginning. */
const beside = ['prechecks', 'settings'] as const satisfies readonly OperationKind[]
const isBeside = (kind: OperationKind): boolean => (beside as readonly OperationKind[]).includes(kind)

/**
 * One at a time for each pair. One that is scheduled takes its place when it begins: until then it keeps nobody waiting.
 * @throws Refusal with the one that is under way
 */
export async function refuseSecond(tx: Transaction, pair: string): Promise<void> {
  const open = await underWay(tx, pair)
  if (open !== null)
    throw new Refusal('operation_in_progress', `${open.why}; wait for its end or call it off`, { operation: open.id })
}

export async function underWay(tx: Transaction, pair: string): Promise<{ id: string; why: string } | null> {
  const [open] = await tx
    .select({ id: operation.id, kind: operation.kind })
    .from(operation)
    .where(and(eq(operation.pair, pair), eq(operation.state, 'running'), notInArray(operation.kind, [...beside])))
  return open === undefined ? null : { id: open.id, why: `${open.kind} ${open.id} is under way` }
}

export async function refuseSecondScheduled(tx: Transaction, pair: string): Promise<void> {
  const [open] = await tx
    .select({ id: operation.id, kind: operation.kind, startsAt: operation.startsAt })
    .from(operation)
    .where(and(eq(operation.pair, pair), eq(operation.state, 'scheduled')))
  if (open !== undefined)
    throw new Refusal(
      'operation_in_progress',
      `${open.kind} ${open.id} is scheduled for ${open.startsAt.toISOString()}: call it off first, or wait until it is over`,
      { operation: open.id },
    )
}
