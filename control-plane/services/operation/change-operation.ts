import { and, desc, eq, inArray, lt, or, type SQL, sql } from 'drizzle-orm'
import type { OperationState } from '../../../shared/contract/api/operations.ts'
import type { Member } from '../../auth/caller.ts'
import type { Transaction } from '../../db/client.ts'
import { operation, pair } from '../../db/schema/index.ts'
import type { Deps } from '../../deps.ts'
import { keyOfCursor, pageOfRows } from '../../http/pages.ts'
import { notFound, Refusal } from '../../http/problem.ts'
import { hasEnded, isCancellable } from '../../operations/advance.ts'
import { carryOn } from './carry-on.ts'
import { type OperationRow, operationView } from './operation-view.ts'
import { refuseSecond } from './start.ts'

/** Of its pairs and of their hosts. */
function seenBy(member: Member): SQL | undefined {
  const mine = eq(operation.organisation, member.organisation)
  if (member.pairs === null) return mine
  const pairs = [...member.pairs]
  const ofHost = sql`exists (select 1 from pair p where ${inArray(sql`p.id`, pairs)} and ${operation.host} in (p.host_a, p.host_b))`
  return and(mine, or(inArray(operation.pair, pairs), ofHost))
}

export async function readOperation(tx: Transaction, part: { id: string; member: Member }): Promise<OperationRow> {
  const [row] = await tx
    .select()
    .from(operation)
    .where(and(seenBy(part.member), eq(operation.id, part.id)))
  if (row === undefined) throw notFound('operation', part.id)
  return row
}

export async function listOperations(
  tx: Transaction,
  part: {
    member: Member
    limit: number
    cursor: string | undefined
    pair: string | undefined
    state: OperationState | undefined
  },
) {
  const before = keyOfCursor(part.cursor)
  const rows = await tx
    .select()
    .from(operation)
    .where(
      and(
        seenBy(part.member),
        before === null ? undefined : lt(operation.id, before),
        part.pair === undefined ? undefined : eq(operation.pair, part.pair),
        part.state === undefined ? undefined : eq(operation.state, part.state),
      ),
    )
    .orderBy(desc(operation.id))
    .limit(part.limit + 1)
  return pageOfRows(rows, { limit: part.limit, key: row => row.id, view: operationView })
}

async function lockOperation(tx: Transaction, part: { id: string; member: Member }): Promise<OperationRow> {
  await readOperation(tx, part)
  const [row] = await tx.select().from(operation).where(eq(operation.id, part.id)).for('update')
  return row!
}

/** Calling off what is called off already is no fault. */
export async function cancelOperation(
  tx: Transaction,
  deps: Deps,
  part: { id: string; member: Member },
): Promise<OperationRow> {
  const row = await lockOperation(tx, part)
  if (row.state === 'cancelled') return row
  if (!isCancellable(row)) {
    const detail = hasEnded(row.state)
      ? `it has ended already: ${row.state}`
      : 'its command was sent and may be under way; what it began is not undone by forgetting it'
    throw new Refusal('not_cancellable', detail)
  }
  return carryOn(tx, deps, { row, event: { kind: 'cancel' } })
}

/** A set-up or replacement goes on where it stopped; anything else is asked for anew, since the world has moved on. */
export async function resumeOperation(
  tx: Transaction,
  deps: Deps,
  part: { id: string; member: Member },
): Promise<OperationRow> {
  const row = await lockOperation(tx, part)
  if (row.kind !== 'setUp' && row.kind !== 'replacement')
    throw new Refusal('conflict', `a ${row.kind} is not resumed; ask for a new one`)
  if (row.state === 'running' || row.state === 'scheduled') return row
  if (row.state === 'succeeded') throw new Refusal('conflict', `the ${row.kind} has succeeded`)
  if (row.pair !== null) {
    const [of] = await tx.select({ state: pair.state }).from(pair).where(eq(pair.id, row.pair)).for('no key update')
    if (of?.state === 'unpaired') throw new Refusal('conflict', 'the pair was given up; set up a new one')
    await refuseSecond(tx, row.pair)
  }
  return carryOn(tx, deps, { row, event: { kind: 'resume' } })
}
