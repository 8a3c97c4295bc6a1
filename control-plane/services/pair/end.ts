import { and, eq } from 'drizzle-orm'
import type { z } from 'zod'
import type { unpair as unpairRoute } from '../../../shared/contract/api/pairs.ts'
import { otherNode } from '../../../shared/protocol/nodes.ts'
import type { Member } from '../../auth/caller.ts'
import type { Transaction } from '../../db/client.ts'
import { host, pair } from '../../db/schema/index.ts'
import type { Deps } from '../../deps.ts'
import { Refusal } from '../../http/problem.ts'
import { alonePlan, unpairPlan, workOf } from '../../operations/plan.ts'
import type { OperationWork } from '../../operations/work.ts'
import { endHost } from '../host/change-host.ts'
import { isConnected } from '../host/host-view.ts'
import type { OperationRow } from '../operation/operation-view.ts'
import { refuseSecond, startOperation } from '../operation/start.ts'
import { recordEvents } from '../record/events.ts'
import { issueDesired } from './issue-desired.ts'
import { reportsOf } from './pair-view.ts'
import { pairingOf, presentOf } from './pairing.ts'
import { lockPair, type PairRows } from './read-pairs.ts'

type Wanted = z.output<typeof unpairRoute.body>

const slots = ['a', 'b'] as const

/**
 * A pair ends without loss: the primary keeps serving, the backup leaves when both are well. Where a host is gone for good,
 * which only the operator knows, the one that is left goes on alone or is released, and the other one's credentials end.
 */
export async function unpair(
  tx: Transaction,
  deps: Deps,
  part: { id: string; member: Member; wanted: Wanted; version?: number | null },
): Promise<OperationRow> {
  const { id, member, wanted } = part
  const rows = await lockPair(tx, part)
  await refuseSecond(tx, id)
  const work = planOf(rows, wanted, deps.now())
  const { organisation, subject: actor } = member
  return startOperation(tx, deps, { organisation, kind: 'unpair', pair: id, work, actor, reason: wanted.reason })
}

function planOf(rows: PairRows, wanted: Wanted, now: Date): OperationWork {
  if (wanted.lost !== undefined) return planWithout(rows, { ...wanted, lost: wanted.lost }, now)
  const reports = reportsOf(rows, now)
  const members = slots.filter(slot => reports[slot] !== null)
  const unheard = slots.filter(slot => isConnected(rows.hosts[slot], now) !== 'yes')
  const neverJoined = rows.pair.state === 'set up wanted' && unheard.length === 0
  // Neither host has begun: there is nothing to leave.
  if (neverJoined && members.length === 0) return workOf([])
  if (members.length === 2) return unpairPlan(pairingOf(rows), presentOf(rows, { ...wanted, now, ...epochOf(wanted) }))
  if (neverJoined) return alonePlan(pairingOf(rows), { ...presentOf(rows, { now, ...epochOf(wanted) }), lost: false })
  const silent = slots
    .filter(slot => reports[slot] === null)
    .map(
      slot =>
        `host ${rows.hosts[slot].host.name} ${unheard.includes(slot) ? 'was not heard within 30 s' : 'does not report that it is in this pair'}`,
    )
  throw new Refusal(
    'operation_refused',
    `both hosts have their part in the end of a pair: ${silent.join(', ')}. Where one is gone for good, name it as \`lost\``,
    { obstacles: silent },
  )
}

const epochOf = ({ expectedEpoch }: Wanted) => ({ expectedEpoch })

function planWithout(
  rows: PairRows,
  { lost, expectedEpoch }: Wanted & { lost: NonNullable<Wanted['lost']> },
  now: Date,
): OperationWork {
  const gone = rows.hosts[lost.host].host
  if (isConnected(rows.hosts[lost.host], now) === 'yes')
    throw new Refusal(
      'conflict',
      `host ${gone.name} was heard within 30 s, so it is not gone: end the pair with both hosts, or switch that one off for good first`,
    )
  const notes = { lost: gone.id }
  const left = otherNode(lost.host)
  const { name } = rows.hosts[left].host
  if (expectedEpoch !== undefined) presentOf(rows, { now, expectedEpoch })
  if (lost.survivor === 'is released') return { ...workOf([]), notes }
  const report = reportsOf(rows, now)[left]
  if (report?.role !== 'primary' || !report.serving) {
    const stands =
      report === null ? 'was not heard within 30 s, or is in no pair' : `is ${report.role} and does not serve`
    throw new Refusal(
      'operation_refused',
      `host ${name} ${stands}, so it cannot go on: force it first (POST /v1/pairs/${rows.pair.id}/takeovers), or have it released`,
      { obstacles: [`host ${name} ${stands}`] },
    )
  }
  const { gen, epoch } = report
  return { ...alonePlan(pairingOf(rows), { primary: left, gen, epoch, lost: true }), notes }
}

/** The end of the operation: both hosts are told that they are in no pair here, and one that is lost is no host any more. */
export async function endPair(
  tx: Transaction,
  deps: Deps,
  { row, pairId }: { row: OperationRow; pairId: string },
): Promise<void> {
  const { organisation } = row
  const [ended] = await tx.select().from(pair).where(eq(pair.id, pairId))
  if (ended === undefined) return
  const { lost } = row.work.notes
  const [gone] =
    typeof lost === 'string'
      ? await tx
          .select()
          .from(host)
          .where(and(eq(host.id, lost), eq(host.organisation, organisation), eq(host.state, 'active')))
          .for('no key update')
      : []
  if (gone !== undefined) {
    const now = deps.now()
    await endHost(tx, gone, now)
    await recordEvents(tx, organisation, [
      {
        ...{ at: now, kind: 'host_retired', severity: 'info', pair: pairId, host: gone.id },
        message: `host ${gone.name} was retired: it is lost, and its pair was ended without it`,
      },
    ])
  }
  await issueDesired(tx, deps, { organisation, hosts: [ended.hostA, ended.hostB].filter(id => id !== gone?.id) })
}
