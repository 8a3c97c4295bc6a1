import { and, eq, sql } from 'drizzle-orm'
import type { z } from 'zod'
import { type PairSettings, pairSettings, type pairSettingsPatch } from '../../../shared/contract/api/settings.ts'
import { newVipFaults } from '../../../shared/hosts/summary.ts'
import { ulid } from '../../../shared/ids.ts'
import type { Member } from '../../auth/caller.ts'
import type { Transaction } from '../../db/client.ts'
import { operation as operationTable, pair } from '../../db/schema/index.ts'
import type { Deps } from '../../deps.ts'
import { invalid, Refusal } from '../../http/problem.ts'
import { validated } from '../../http/validate.ts'
import { settingsPlan } from '../../operations/plan.ts'
import { currentReport } from '../host/host-view.ts'
import { carryOn } from '../operation/carry-on.ts'
import type { OperationRow } from '../operation/operation-view.ts'
import { refuseSecond, startOperation } from '../operation/start.ts'
import { recordEvents } from '../record/events.ts'
import { issueDesired } from './issue-desired.ts'
import { leadingReport } from './pair-view.ts'
import { lockPair, type PairRows, readPair } from './read-pairs.ts'

/**
 * New settings, checked as a whole, one generation up, signed for both hosts. The hosts apply them one at a time and
 * revert what fails; the operation says how far each of them is. null: they are what is wanted already.
 */
export async function changeSettings(
  tx: Transaction,
  deps: Deps,
  part: { id: string; member: Member; version: number; patch: z.output<typeof pairSettingsPatch> },
): Promise<{ rows: PairRows; operation: OperationRow | null }> {
  const rows = await lockPair(tx, part)
  const given = Object.fromEntries(Object.entries(part.patch).filter(([, value]) => value !== undefined))
  const settings = validated(pairSettings, { ...rows.pair.settings, ...given }, 'body')
  if (same(settings, rows.pair.settings)) return { rows, operation: null }
  refuseForeignVips(rows, settings)
  await endOlder(tx, deps, part.id)
  const generations = await wish(tx, deps, { rows, settings, fields: Object.keys(given) })
  const after = await readPair(tx, part)
  if (rows.pair.state !== 'paired') return { rows: after, operation: null }
  const { organisation } = rows.pair
  const operation = await startOperation(tx, deps, {
    organisation,
    kind: 'settings',
    pair: part.id,
    work: settingsPlan(generations, { protection: false }),
    actor: part.member.subject,
    reason: Object.keys(given).join(', '),
  })
  return { rows: after, operation }
}

/**
 * The witness admits the pair anew, after its database was restored or its store lost: it has forgotten what it promised,
 * so it votes again only under a new incarnation that both hosts have made a member. It travels as any other setting.
 */
export async function admitWitness(tx: Transaction, deps: Deps, part: Acting): Promise<OperationRow> {
  const rows = await lockPair(tx, part)
  if (rows.pair.settings.arbitration.witness.kind === 'none')
    throw new Refusal('conflict', 'arbitration.witness.kind is none: this pair has no witness that could admit it')
  const present = leadingReport(rows, deps.now())
  if (present?.witness?.reach === 'yes')
    throw new Refusal('operation_refused', 'the witness votes for this pair; a new admission would interrupt that', {
      obstacles: [`host ${present.primary ?? '?'} reports that it reaches the witness`],
    })
  return wishNamed(tx, deps, { ...part, rows, kind: 'witnessAdmission' })
}

/** New keys of the pair: made by the hosts, never known here; what travels is the name of the change. */
export async function changeKeys(tx: Transaction, deps: Deps, part: Acting): Promise<OperationRow> {
  const rows = await lockPair(tx, part)
  const silent = (['a', 'b'] as const).filter(slot => currentReport(rows.hosts[slot], deps.now()) === null)
  if (silent.length > 0)
    throw new Refusal('operation_refused', 'both hosts have their part in a change of keys', {
      obstacles: silent.map(slot => `host ${slot} was not heard lately`),
    })
  return wishNamed(tx, deps, { ...part, rows, kind: 'keyChange' })
}

interface Acting {
  id: string
  member: Member
  reason: string
}

/** Something that the hosts are to do once, one after the other, as they take a setting: its name is the setting. */
async function wishNamed(
  tx: Transaction,
  deps: Deps,
  { id, member, reason, rows, kind }: Acting & { rows: PairRows; kind: 'witnessAdmission' | 'keyChange' },
): Promise<OperationRow> {
  await refuseSecond(tx, id)
  const { settings, organisation, state, name } = rows.pair
  if (state !== 'paired') throw new Refusal('conflict', `pair ${name} is not set up yet`)
  const named = { ...settings, [kind]: ulid(deps.now().getTime()) }
  await endOlder(tx, deps, id)
  const generations = await wish(tx, deps, { rows, settings: named, fields: [kind] })
  return startOperation(tx, deps, {
    organisation,
    kind,
    pair: id,
    work: settingsPlan(generations, { protection: true }),
    actor: member.subject,
    reason,
  })
}

/** Written down, and signed for both hosts. */
async function wish(
  tx: Transaction,
  deps: Deps,
  { rows, settings, fields }: { rows: PairRows; settings: PairSettings; fields: string[] },
): Promise<Record<'a' | 'b', number>> {
  const { id, name, organisation, hostA, hostB } = rows.pair
  const generation = rows.pair.generation + 1
  await tx.update(pair).set({ settings, generation, version: sql`version + 1` }).where(eq(pair.id, id))
  const issued = await issueDesired(tx, deps, { organisation, hosts: [hostA, hostB] })
  await recordEvents(tx, organisation, [
    {
      at: deps.now(),
      kind: 'settings_changed',
      severity: 'info',
      pair: id,
      host: null,
      message: `settings of pair ${name}, generation ${generation}: ${fields.join(', ')}`,
      data: { generation, fields },
    },
  ])
  return { a: issued.get(hostA)!, b: issued.get(hostB)! }
}

/** What was wanted before is wanted no more: nobody waits for it. Before anything that holds the organisation's row. */
async function endOlder(tx: Transaction, deps: Deps, pairId: string): Promise<void> {
  const open = await tx
    .select()
    .from(operationTable)
    .where(
      and(eq(operationTable.pair, pairId), eq(operationTable.kind, 'settings'), eq(operationTable.state, 'running')),
    )
    .for('update')
  for (const row of open) await carryOn(tx, deps, { row, event: { kind: 'cancel' } })
}

/** A new virtual address lies in the segment of both hosts' addresses on its interface, as they told them. */
function refuseForeignVips({ pair, hosts }: PairRows, settings: PairSettings): void {
  const both = hosts.a.summary === null || hosts.b.summary === null ? null : { a: hosts.a.summary, b: hosts.b.summary }
  if (both === null) return
  const faults = settings.vips.flatMap((vip, index) =>
    pair.settings.vips.some(before => same(before, vip))
      ? []
      : newVipFaults(vip, both).map(message => ({ field: `body.vips.${index}.address`, message })),
  )
  if (faults.length > 0) throw invalid(faults, 'between_fields')
}

/** jsonb gives keys back in its own order. */
const same = (one: unknown, other: unknown): boolean => JSON.stringify(ordered(one)) === JSON.stringify(ordered(other))
function ordered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(ordered)
  if (typeof value !== 'object' || value === null) return value
  return Object.entries(value)
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([key, one]) => [key, ordered(one)])
}
