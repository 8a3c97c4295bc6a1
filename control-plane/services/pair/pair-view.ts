import type { z } from 'zod'
import type { pair as pairSchema } from '../../../shared/contract/api/pairs.ts'
import type { HostReport } from '../../../shared/contract/report.ts'
import type { Observation } from '../../operations/work.ts'
import { conditionsOf, currentReport, type HostRows, isConnected, lastHeard } from '../host/host-view.ts'
import type { PairRows } from './read-pairs.ts'

/**
 * The pair as it is shown: from the hosts' newest reports, never better than the truth. What no host has told lately is
 * unknown. Where the two contradict each other, the one at the higher (gen, epoch, version) knows more.
 */
type View = z.input<typeof pairSchema>
type PairReport = NonNullable<HostReport['pair']>

export function pairView(rows: PairRows, now: Date): View {
  const { pair } = rows
  return {
    id: pair.id,
    name: pair.name,
    state: pair.state,
    createdAt: pair.createdAt.toISOString(),
    setUpAt: pair.setUpAt?.toISOString() ?? null,
    generation: pair.generation,
    settings: pair.settings,
    status: statusOf(rows, now),
    lastSwitchover: pair.lastSwitchover ?? null,
    hosts: slots.map(slot => hostOfPair(rows, { slot, now })),
  }
}

const slots = ['a', 'b'] as const

export function reportsOf(rows: PairRows, now: Date): { a: PairReport | null; b: PairReport | null } {
  return { a: currentReport(rows.hosts.a, now)?.pair ?? null, b: currentReport(rows.hosts.b, now)?.pair ?? null }
}

/** The report that knows most; at the same version the primary's, who decides. */
export function leadingReport(rows: PairRows, now: Date): PairReport | null {
  const present = Object.values(reportsOf(rows, now)).filter(one => one !== null)
  const [first] = present.sort((one, other) => compare(other, one))
  return first ?? null
}

function compare(one: PairReport, other: PairReport): number {
  return (
    one.gen - other.gen ||
    one.epoch - other.epoch ||
    one.version - other.version ||
    Number(one.role === 'primary') - Number(other.role === 'primary')
  )
}

function statusOf(rows: PairRows, now: Date): View['status'] {
  const { pair, hosts } = rows
  const report = leadingReport(rows, now)
  const asOf = [lastHeard(hosts.a), lastHeard(hosts.b)]
    .filter(one => one !== null)
    .sort((x, y) => y.getTime() - x.getTime())[0]
  const maintenance =
    pair.maintenanceUntil !== null && pair.maintenanceUntil > now
      ? { until: pair.maintenanceUntil.toISOString(), reason: pair.maintenanceReason ?? '' }
      : null
  const vips = pair.settings.vips.map(({ address, interface: on, network }) => ({
    address,
    interface: on,
    network,
    holder: holderOf(rows, { address, now }),
  }))
  const base = { maintenance, vips, asOf: asOf?.toISOString() ?? null }
  if (report === null) {
    const why = 'neither host was heard within 30 s: what is shown elsewhere is what was known before'
    return {
      ...base,
      protection: 'unknown',
      since: null,
      why,
      gen: null,
      epoch: null,
      primary: null,
      sealed: null,
      replication: null,
      witness: null,
    }
  }
  // Only the primary says whether the service is up; the backup alone knows that it is not itself.
  const told = report.role === 'primary' ? report : (reportOfPrimary(rows, now) ?? null)
  const { replication } = report
  return {
    ...base,
    protection: told?.protection ?? 'unknown',
    since: told?.since ?? null,
    why: told?.why ?? `host ${report.primary ?? '?'} is primary, and was not heard within 30 s`,
    gen: report.gen,
    epoch: report.epoch,
    primary: report.primary,
    sealed: report.sealed,
    replication: {
      state: replication.process,
      streaming: replication.streaming ? 'yes' : 'no',
      lagBytes: replication.lagBytes === null ? null : Math.max(0, Math.round(replication.lagBytes)),
      operation: replication.operation,
    },
    witness: report.witness && pickWitness(report.witness),
  }
}

const pickWitness = ({ reach, voteP99Ms, why }: NonNullable<PairReport['witness']>) => ({ reach, voteP99Ms, why })

function reportOfPrimary(rows: PairRows, now: Date): PairReport | undefined {
  return Object.values(reportsOf(rows, now)).find(one => one?.role === 'primary') ?? undefined
}

function holderOf(rows: PairRows, { address, now }: { address: string; now: Date }): 'a' | 'b' | null {
  const reports = reportsOf(rows, now)
  return slots.find(slot => reports[slot]?.vips.some(vip => vip.address === address && vip.present)) ?? null
}

function hostOfPair(rows: PairRows, { slot, now }: { slot: 'a' | 'b'; now: Date }): View['hosts'][number] {
  const host: HostRows = rows.hosts[slot]
  const applied = conditionsOf(host, now).find(one => one.type === 'Applied')
  return {
    id: host.host.id,
    name: host.host.name,
    slot,
    managementAddresses: rows.pair.settings.hosts[slot].addresses,
    role: reportsOf(rows, now)[slot]?.role ?? 'unknown',
    connected: isConnected(host, now),
    lastSeenAt: lastHeard(host)?.toISOString() ?? null,
    agentVersion: host.reported?.body.agent.version ?? host.host.agentVersion,
    postgresVersion: host.host.facts?.postgresVersion ?? null,
    observedGeneration: host.reported?.observedGeneration ?? 0,
    applied: { status: applied?.status ?? 'Unknown', why: applied?.message ?? '' },
  }
}

/** What operations wait for. */
export function observationOf(rows: PairRows, now: Date): Observation {
  const reports = reportsOf(rows, now)
  const leading = leadingReport(rows, now)
  const primary = leading?.primary ?? null
  return {
    reporting: { a: reports.a !== null, b: reports.b !== null },
    primary,
    serving: primary !== null && reports[primary]?.serving === true,
    epoch: leading?.epoch ?? null,
    gen: leading?.gen ?? null,
    protection: reportOfPrimary(rows, now)?.protection ?? 'unknown',
    applied: { a: appliedBy(rows.hosts.a, now), b: appliedBy(rows.hosts.b, now) },
  }
}

function appliedBy(host: HostRows, now: Date): Observation['applied']['a'] {
  const report = currentReport(host, now)
  return report === null ? null : { observed: report.observedGeneration, ...report.applied }
}
