import type { z } from 'zod'
import type { beginMaintenance, switchOver, takeOver } from '../../../shared/contract/api/pairs.ts'
import { otherNode } from '../../../shared/protocol/nodes.ts'
import type { Member } from '../../auth/caller.ts'
import type { Transaction } from '../../db/client.ts'
import type { Deps } from '../../deps.ts'
import { invalid, Refusal } from '../../http/problem.ts'
import { maintenancePlan, prechecksPlan, switchoverPlan, takeoverPlan, workOf } from '../../operations/plan.ts'
import type { OperationRow } from '../operation/operation-view.ts'
import { refuseSecond, refuseSecondScheduled, startOperation } from '../operation/start.ts'
import { measuredOf } from './measured.ts'
import { leadingReport, reportsOf } from './pair-view.ts'
import { pairingOf, presentOf } from './pairing.ts'
import { lockPair, type PairRows } from './read-pairs.ts'
import { switchoverObstacles } from './readiness.ts'

interface Part<Wanted> {
  id: string
  member: Member
  wanted: Wanted
  version?: number | null
}

const wantedOf = (rows: PairRows, { member }: { member: Member }) => ({
  organisation: member.organisation,
  pair: rows.pair.id,
  actor: member.subject,
})

export type SwitchoverAnswer =
  | { dryRun: true; allowed: boolean; obstacles: string[] }
  | { dryRun: false; operation: OperationRow }

/** A planned switchover, guarded: here, again at the beginning of its window, and last by the host itself. */
export async function switchover(
  tx: Transaction,
  deps: Deps,
  part: Part<z.output<typeof switchOver.body>>,
): Promise<SwitchoverAnswer> {
  const { wanted } = part
  const rows = await lockPair(tx, part)
  const now = deps.now()
  const window = windowOf(wanted, now)
  const scheduled = window.notBefore !== null && window.notBefore > now
  const obstacles = switchoverObstacles(rows, now)
  const handingOver = () => whoHandsOver(rows, wanted, now)
  if (wanted.dryRun) {
    const found = [
      ...(await reasonsOf(() => (scheduled ? refuseSecondScheduled(tx, part.id) : refuseSecond(tx, part.id)))),
      // The epoch belongs to the time when it begins.
      ...(scheduled ? [] : await reasonsOf(handingOver)),
      ...obstacles,
    ]
    return { dryRun: true, allowed: found.length === 0, obstacles: found }
  }
  if (!scheduled) await refuseSecond(tx, part.id)
  const common = { ...wantedOf(rows, part), kind: 'switchover', reason: wanted.reason } as const
  if (scheduled) {
    // Epoch and guards belong to the time when it begins.
    const message = `begins at ${window.notBefore?.toISOString()} or as soon as nothing stands in the way any more; not begun by ${window.notAfter?.toISOString()} it is called off`
    const work = { ...workOf([], window.notAfter), notes: { target: wanted.target ?? null }, message }
    return {
      dryRun: false,
      operation: await startOperation(tx, deps, { ...common, work, startsAt: window.notBefore! }),
    }
  }
  const present = handingOver()
  if (obstacles.length > 0)
    throw new Refusal('operation_refused', `a switchover now is refused: ${obstacles.join('; ')}`, { obstacles })
  const work = switchoverPlan(pairingOf(rows), { ...present, notAfter: window.notAfter })
  return { dryRun: false, operation: await startOperation(tx, deps, { ...common, work }) }
}

/** @throws Refusal where the caller saw another epoch, or wants what is so already */
function whoHandsOver(
  rows: PairRows,
  { expectedEpoch, target }: Pick<z.output<typeof switchOver.body>, 'expectedEpoch' | 'target'>,
  now: Date,
): ReturnType<typeof presentOf> {
  const present = presentOf(rows, { now, expectedEpoch })
  if (target === present.primary)
    throw new Refusal('conflict', `host ${target} is primary already, in epoch ${present.epoch}`)
  return present
}

/** What a request would be refused with. */
async function reasonsOf(check: () => unknown): Promise<readonly string[]> {
  try {
    await check()
    return []
  } catch (error) {
    if (error instanceof Refusal) return error.extra.obstacles ?? [error.message]
    throw error
  }
}

/** Nobody plans further ahead without looking again. */
const windowDaysMax = 30

function windowOf(wanted: { notBefore?: string | undefined; notAfter?: string | undefined }, now: Date) {
  const notBefore = wanted.notBefore === undefined ? null : new Date(wanted.notBefore)
  const notAfter = wanted.notAfter === undefined ? null : new Date(wanted.notAfter)
  // Without an end an old wish would come true at any time.
  if (notBefore !== null && (notAfter === null || notAfter <= notBefore))
    throw outOfWindow(
      'notAfter',
      'a window has an end, after its beginning: a switchover must not come at any later time',
    )
  if (notAfter !== null && notAfter <= now) throw outOfWindow('notAfter', 'the window is over already')
  if (notBefore !== null && notBefore.getTime() - now.getTime() > windowDaysMax * 86_400_000)
    throw outOfWindow('notBefore', `a switchover is planned at most ${windowDaysMax} days ahead`)
  return { notBefore, notAfter }
}

const outOfWindow = (name: string, message: string): Refusal =>
  invalid([{ field: `body.${name}`, message }], 'between_fields')

/** Forced: with the other host off, and an acknowledgement that fits what is known to be at stake. */
export async function forcedTakeover(
  tx: Transaction,
  deps: Deps,
  part: Part<z.output<typeof takeOver.body>>,
): Promise<OperationRow> {
  const { wanted } = part
  const rows = await lockPair(tx, part)
  await refuseSecond(tx, part.id)
  const now = deps.now()
  const reports = reportsOf(rows, now)
  const { name } = rows.hosts[wanted.host].host
  const own = reports[wanted.host]
  if (own === null)
    throw new Refusal(
      'operation_refused',
      `host ${name} was not heard within 30 s and would not get the command; force it there, with its command line`,
      {
        obstacles: [`host ${name} was not heard within 30 s`],
      },
    )
  if (own.gen !== wanted.expectedGen || own.epoch !== wanted.expectedEpoch)
    throw new Refusal(
      'epoch_changed',
      `host ${name} is at gen ${own.gen}, epoch ${own.epoch}, and the caller saw gen ${wanted.expectedGen}, epoch ${wanted.expectedEpoch}`,
    )
  if (own.role === 'primary') throw new Refusal('conflict', `host ${name} is primary already`)
  const other = reports[otherNode(wanted.host)]
  if (other?.serving === true)
    throw new Refusal(
      'operation_refused',
      'the other host serves: a forced takeover would make two of them. Switch over instead',
      {
        obstacles: ['the other host reported within 30 s that it serves'],
      },
    )
  const lagBytes = leadingReport(rows, now)?.replication.lagBytes ?? null
  const acknowledged = wanted.acknowledge.lossBytes
  if (lagBytes !== null && (acknowledged === null || acknowledged < lagBytes))
    throw new Refusal(
      'operation_refused',
      `the last known lag is ${lagBytes} bytes, and ${acknowledged ?? 'nothing'} is acknowledged`,
      {
        obstacles: [`acknowledge.lossBytes must be ${lagBytes} or more`],
      },
    )
  const { overGen } = wanted.acknowledge
  refuseUnheard({ gen: own.gen, heard: own.genHeard ?? own.gen, overGen, name })
  const withWitness = rows.pair.settings.arbitration.witness.kind !== 'none'
  const work = takeoverPlan(pairingOf(rows), {
    host: wanted.host,
    gen: own.gen,
    epoch: own.epoch,
    withWitness,
    overGen,
  })
  return startOperation(tx, deps, { ...wantedOf(rows, part), kind: 'takeover', work, reason: wanted.reason })
}

/** The other host was forced before, and nothing of what was written then has come to this one. @throws Refusal */
function refuseUnheard(part: { gen: number; heard: number; overGen: number | undefined; name: string }): void {
  const { gen, heard, overGen, name } = part
  if (overGen === (heard > gen ? heard : undefined)) return
  if (heard <= gen)
    throw new Refusal(
      'conflict',
      `acknowledge.overGen names gen ${overGen}, and host ${name}, at gen ${gen}, has heard of none above its own: leave it out`,
    )
  const known = `gen ${heard} was forced on the other host, and host ${name}, at gen ${gen}, has heard nothing of what was written in it`
  throw new Refusal('operation_refused', `${known}: force the other host, or let this one hear of it first`, {
    obstacles: [`${known}; to give all of that up, acknowledge.overGen must be ${heard}`],
  })
}

export async function maintenance(
  tx: Transaction,
  deps: Deps,
  part: Part<z.output<typeof beginMaintenance.body> | null>,
): Promise<OperationRow> {
  const rows = await lockPair(tx, part)
  await refuseSecond(tx, part.id)
  const present = presentOf(rows, { now: deps.now(), expectedEpoch: undefined })
  const forMs = part.wanted === null ? 0 : part.wanted.forMinutes * 60_000
  const work = maintenancePlan(pairingOf(rows), { ...present, forMs })
  return startOperation(tx, deps, {
    ...wantedOf(rows, part),
    kind: 'maintenance',
    ...(part.wanted === null && { what: 'the end of maintenance' }),
    work,
    reason: part.wanted?.reason ?? 'before its time',
  })
}

export async function prechecks(tx: Transaction, deps: Deps, part: Part<null>): Promise<OperationRow> {
  const rows = await lockPair(tx, part)
  const work = prechecksPlan(pairingOf(rows), measuredOf(rows.pair, deps))
  return startOperation(tx, deps, { ...wantedOf(rows, part), kind: 'prechecks', work, reason: '' })
}
