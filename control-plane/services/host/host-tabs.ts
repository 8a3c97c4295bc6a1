import { and, desc, eq, inArray, ne, sql } from 'drizzle-orm'
import type { z } from 'zod'
import type { vswitchWish } from '../../../shared/contract/api/host-tabs.ts'
import { type HostOperationKind, hostOperationKinds } from '../../../shared/contract/api/operations.ts'
import type { Verb } from '../../../shared/contract/documents.ts'
import { initiatorNameFault } from '../../../shared/hosts/iscsi-name.ts'
import { portalFault } from '../../../shared/hosts/iscsi-portal.ts'
import type { HostNetwork } from '../../../shared/hosts/network.ts'
import { lipFault, type StorageAdapter } from '../../../shared/hosts/storage.ts'
import { deleteRefusal, type HostContext, vswitchFaults } from '../../../shared/hosts/vswitch-rules.ts'
import { otherNode } from '../../../shared/protocol/nodes.ts'
import type { Member } from '../../auth/caller.ts'
import type { Transaction } from '../../db/client.ts'
import { hostInventory, host as hostTable, operation, pair } from '../../db/schema/index.ts'
import type { Deps } from '../../deps.ts'
import { invalid, Refusal } from '../../http/problem.ts'
import { hostPlan } from '../../operations/plan.ts'
import type { OperationRow } from '../operation/operation-view.ts'
import { startOperation } from '../operation/start.ts'
import { type HostRows, isConnected } from './host-view.ts'
import { lockHost, readHost } from './read-hosts.ts'

interface Part {
  id: string
  member: Member
}

type PairRow = typeof pair.$inferSelect

async function pairOf(tx: Transaction, rows: HostRows): Promise<PairRow | null> {
  if (rows.pair === null) return null
  const [of] = await tx.select().from(pair).where(eq(pair.id, rows.pair.id))
  return of ?? null
}

/** Why the host's network and storage are shown and not changed, or null. */
const readOnlyWhy = (rows: HostRows, of: PairRow | null): string | null =>
  of?.settings.mode === 'converged'
    ? `host ${rows.host.name} is in pair ${of.name}, whose mode is converged: its network and storage are managed by the cluster that the host is a member of`
    : null

/** What the host told last, of its own accord or when it was asked. */
export async function inventoryOf(tx: Transaction, part: Part & { of: 'network' | 'storage' }) {
  const rows = await readHost(tx, part)
  const readOnly = readOnlyWhy(rows, await pairOf(tx, rows))
  const last = await lastInventory(tx, part.id)
  const inventory = last?.[part.of]
  return last === null || typeof inventory !== 'object' || inventory === null
    ? { asOf: null, inventory: null, readOnly }
    : { asOf: last.at.toISOString(), inventory: inventory as Record<string, unknown>, readOnly }
}

interface KnownInventory {
  at: Date
  network?: unknown
  storage?: unknown
}

async function lastInventory(tx: Transaction, host: string): Promise<KnownInventory | null> {
  const [told] = await tx.select().from(hostInventory).where(eq(hostInventory.host, host))
  const asked = await askedInventory(tx, host)
  if (told === undefined || (asked !== null && asked.at > told.receivedAt)) return asked
  return { at: told.receivedAt, network: told.network, storage: told.storage }
}

/** The answer to an operation; one that was too large for it came the other way alone. */
async function askedInventory(tx: Transaction, host: string): Promise<KnownInventory | null> {
  const [row] = await tx
    .select({ work: operation.work, endedAt: operation.endedAt })
    .from(operation)
    .where(and(eq(operation.host, host), eq(operation.kind, 'inventory'), eq(operation.state, 'succeeded')))
    .orderBy(desc(operation.id))
    .limit(1)
  if (row === undefined || row.endedAt === null || row.work.result?.network === undefined) return null
  return { at: row.endedAt, ...row.work.result }
}

export type HostWish =
  | { kind: 'inventory' }
  | { kind: 'storageScan'; adapters: string[]; lip: boolean; limitSeconds: number }
  | { kind: 'storageDiscovery'; portal: string }
  | { kind: 'initiatorName'; name: string; logOutSessions: boolean }
  | { kind: 'vswitch'; wish: z.output<typeof vswitchWish> }
  | { kind: 'vswitchDelete'; name: string }

/** Checked here by the rules that the host itself has; then one command to that host. */
export async function operateHost(
  tx: Transaction,
  deps: Deps,
  part: Part & { wanted: HostWish },
): Promise<OperationRow> {
  const { member, wanted } = part
  const rows = await lockHost(tx, part)
  const { host } = rows
  if (host.state === 'retired') throw new Refusal('conflict', `host ${host.name} is retired`)
  const of = await pairOf(tx, rows)
  const readOnly = wanted.kind === 'inventory' ? null : readOnlyWhy(rows, of)
  if (readOnly !== null) throw new Refusal('conflict', readOnly)
  await refuseSecondOfHost(tx, host.id)
  refuseBroken(wanted, { rows, pair: of, last: await lastInventory(tx, host.id) })
  if (wanted.kind === 'initiatorName') await refuseTakenInitiator(tx, { rows, name: wanted.name })
  refuseUnheard(rows, deps.now())
  const { verb, args, kind } = commandOf(wanted)
  return startOperation(tx, deps, {
    organisation: member.organisation,
    kind,
    pair: null,
    host: host.id,
    work: hostPlan({ host: host.id, name: host.name, verb, args }),
    actor: member.subject,
    reason: '',
  })
}

export function refuseUnheard(rows: HostRows, now: Date): void {
  if (isConnected(rows, now) === 'yes') return
  const why = `host ${rows.host.name} was not heard within 30 s`
  throw new Refusal('operation_refused', `${why} and would not get the command`, { obstacles: [why] })
}

// It comes from a host, so a list that is none is no list.
function networkIn(last: KnownInventory | null): HostNetwork | null {
  const { nics, vswitches } = (last?.network ?? {}) as Partial<HostNetwork>
  return Array.isArray(nics) && Array.isArray(vswitches) ? (last?.network as HostNetwork) : null
}

function adaptersIn(last: KnownInventory | null): StorageAdapter[] {
  const { adapters } = (last?.storage ?? {}) as { adapters?: unknown }
  return Array.isArray(adapters) ? (adapters as StorageAdapter[]) : []
}

/** The host's row is held, so nobody else begins one meanwhile. */
export async function refuseSecondOfHost(tx: Transaction, host: string): Promise<void> {
  const [open] = await tx
    .select({ id: operation.id, kind: operation.kind })
    .from(operation)
    .where(
      and(eq(operation.host, host), eq(operation.state, 'running'), inArray(operation.kind, [...hostOperationKinds])),
    )
  if (open !== undefined)
    throw new Refusal('operation_in_progress', `${open.kind} ${open.id} is under way on this host; wait for its end`, {
      operation: open.id,
    })
}

function refuseBroken(
  wanted: HostWish,
  known: { rows: HostRows; pair: PairRow | null; last: KnownInventory | null },
): void {
  if (wanted.kind === 'storageScan' && wanted.lip) {
    const fault = lipFault(wanted.adapters, adaptersIn(known.last))
    if (fault !== null) throw broken([{ field: `body.${fault.field}`, message: fault.rule }])
  }
  if (wanted.kind === 'storageDiscovery') {
    const fault = portalFault(wanted.portal)
    if (fault !== null) throw broken([{ field: `body.${fault.field}`, message: fault.rule }])
  }
  if (wanted.kind === 'initiatorName') {
    const fault = initiatorNameFault(wanted.name, [])
    if (fault !== null) throw broken([{ field: 'body.name', message: fault }])
  }
  if (wanted.kind !== 'vswitch' && wanted.kind !== 'vswitchDelete') return
  const context = contextOf({ ...known, network: networkIn(known.last) })
  if (wanted.kind === 'vswitchDelete') {
    const why = deleteRefusal(wanted.name, context)
    if (why !== null) throw new Refusal('conflict', why)
    return
  }
  const faults = vswitchFaults(wanted.wish, context)
  if (faults.length > 0) throw broken(faults.map(one => ({ field: `body.${one.field}`, message: one.rule })))
}

/** A target takes two hosts with one name for one; whoever it is in the organisation. */
async function refuseTakenInitiator(tx: Transaction, { rows, name }: { rows: HostRows; name: string }): Promise<void> {
  const [taken] = await tx
    .select({ host: hostTable.name })
    .from(hostInventory)
    .innerJoin(hostTable, eq(hostTable.id, hostInventory.host))
    .where(
      and(
        eq(hostInventory.organisation, rows.host.organisation),
        eq(hostTable.state, 'active'),
        ne(hostInventory.host, rows.host.id),
        sql`${hostInventory.summary}->>'initiatorName' = ${name}`,
      ),
    )
    .limit(1)
  const fault = initiatorNameFault(name, taken === undefined ? [] : [{ host: `host ${taken.host}`, name }])
  if (fault !== null) throw broken([{ field: 'body.name', message: fault }])
}

function contextOf({
  rows,
  pair: of,
  network,
}: {
  rows: HostRows
  pair: PairRow | null
  network: HostNetwork | null
}): HostContext {
  if (network === null)
    throw new Refusal(
      'conflict',
      `the networks of host ${rows.host.name} are not known yet: ask for its inventory first (POST /v1/hosts/${rows.host.id}/inventory)`,
    )
  const own = rows.pair?.slot === 'a' ? 'a' : 'b'
  const peer = otherNode(own)
  const paths: readonly string[] = of?.settings.hosts[own].addresses ?? []
  const carriers = [...network.nics, ...network.vswitches].filter(one =>
    one.addresses.some(address => paths.includes(address.split('/')[0] ?? '')),
  )
  return {
    nics: network.nics,
    vswitches: network.vswitches,
    routes: Array.isArray(network.routes) ? network.routes : [],
    peerAddresses: of?.settings.hosts[peer].addresses ?? [],
    vips: (of?.settings.vips ?? []).map(vip => ({ address: vip.address, vswitch: vip.interface })),
    peerPathDevices: carriers.map(one => one.name),
  }
}

const broken = (faults: readonly { field: string; message: string }[]): Refusal => invalid(faults, 'host_rule')

function commandOf(wanted: HostWish): { verb: Verb; args: Record<string, unknown>; kind: HostOperationKind } {
  switch (wanted.kind) {
    case 'inventory':
      return { kind: 'inventory', verb: 'inventory', args: {} }
    case 'storageScan': {
      const { adapters, lip, limitSeconds } = wanted
      return { kind: 'storageScan', verb: 'storageScan', args: { adapters, lip, limitSeconds } }
    }
    case 'storageDiscovery':
      return { kind: 'storageDiscovery', verb: 'storageDiscovery', args: { portal: wanted.portal } }
    case 'initiatorName': {
      const { name, logOutSessions } = wanted
      return { kind: 'initiatorName', verb: 'initiatorName', args: { name, logOutSessions } }
    }
    case 'vswitch':
      return { kind: 'vswitch', verb: 'vswitch', args: { put: wanted.wish, remove: null } }
    case 'vswitchDelete':
      return { kind: 'vswitch', verb: 'vswitch', args: { put: null, remove: wanted.name } }
  }
}
