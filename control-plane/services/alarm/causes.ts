import { cutTo } from '../../../shared/text.ts'
import {
  conditionsOf,
  currentReport,
  type HostRows,
  isConnected,
  lastHeard,
  skewMaxMs,
  skewOf,
} from '../host/host-view.ts'
import { leadingReport, pairView } from '../pair/pair-view.ts'
import type { PairRows } from '../pair/read-pairs.ts'
import type { Cause } from './alarms.ts'

/** What is wrong with a pair and its hosts now, as alarms. Pure: whoever looks sees the same. */

/** WAL that the backup has not flushed; more takes a takeover seconds to replay. */
export const lagMaxBytes = 256 * 1024 * 1024
/** What hosts say in it is as long as that itself. */
const messageMax = 500
/** The pair's own end of maintenance is not trusted to be told in time. */
const maintenanceGraceMs = 5 * 60_000

export function causesOfPair(rows: PairRows, now: Date): Cause[] {
  const { pair } = rows
  const report = leadingReport(rows, now)
  const about = { pair: pair.id, host: null }
  const causes: Cause[] = []
  if (pair.state === 'paired') {
    const { protection, why, witness, replication } = pairView(rows, now).status
    if (protection === 'not serving' || protection === 'serving but unprotected')
      causes.push({
        kind: 'protection_lost',
        severity: protection === 'not serving' ? 'critical' : 'warning',
        ...about,
        message: `pair ${pair.name} is ${protection}: ${why}`,
      })
    if (report?.witness?.void === true)
      causes.push({
        kind: 'witness_void',
        severity: 'warning',
        ...about,
        message: cutTo(
          `the witness of pair ${pair.name} has no vote any more, and there is no automatic takeover until it has admitted the pair anew (POST /v1/pairs/${pair.id}/witness-admissions): ${report.witness.why}`,
          messageMax,
        ),
      })
    else if (witness?.reach === 'no')
      causes.push({
        kind: 'witness_lost',
        severity: 'warning',
        ...about,
        message: `pair ${pair.name} does not reach its witness: no automatic takeover`,
      })
    const lag = replication?.lagBytes ?? 0
    if (lag > lagMaxBytes)
      causes.push({
        kind: 'replication_lag',
        severity: 'warning',
        ...about,
        message: `the backup of pair ${pair.name} is more than ${lagMaxBytes / 1024 ** 2} MiB behind`,
      })
    if (report?.maintenance === true && isForgotten(rows, now))
      causes.push({
        kind: 'maintenance_forgotten',
        severity: 'warning',
        ...about,
        message: `pair ${pair.name} is still in maintenance, after its time or without one that is known here`,
      })
  }
  for (const host of [rows.hosts.a, rows.hosts.b]) causes.push(...causesOfHost(host, { pair: pair.id, now }))
  return causes
}

function isForgotten({ pair }: PairRows, now: Date): boolean {
  return pair.maintenanceUntil === null || now.getTime() > pair.maintenanceUntil.getTime() + maintenanceGraceMs
}

function causesOfHost(rows: HostRows, { pair, now }: { pair: string; now: Date }): Cause[] {
  const { host } = rows
  const about = { pair, host: host.id }
  const heard = lastHeard(rows)
  if (isConnected(rows, now) !== 'yes') {
    if (heard === null) return []
    return [
      {
        kind: 'host_silent',
        severity: 'warning',
        ...about,
        message: `host ${host.name} was last heard at ${heard.toISOString()}; its state is unknown`,
      },
    ]
  }
  const causes: Cause[] = []
  const conditions = conditionsOf(rows, now)
  const holds = (type: (typeof conditions)[number]['type'], status: 'True' | 'False'): string | null =>
    conditions.find(one => one.type === type && one.status === status)?.message ?? null
  const report = currentReport(rows, now)
  if (report?.applied.status === 'False')
    causes.push({
      kind: 'settings_not_applied',
      severity: 'warning',
      ...about,
      message: `host ${host.name} reverted its settings of generation ${report.applied.generation}: ${report.applied.why}`,
    })
  if (holds('DesiredStale', 'True') !== null)
    causes.push({
      kind: 'desired_stale',
      severity: 'warning',
      ...about,
      message: `host ${host.name} has had no fresh word about its wish for two hours: its broker may hold documents back`,
    })
  if (holds('CertificateExpiring', 'True') !== null)
    causes.push({
      kind: 'certificate_expiring',
      severity: 'warning',
      ...about,
      message: `the certificate of host ${host.name} ends at ${report?.certificateEndsAt}`,
    })
  const skewMs = skewOf(rows)
  if (skewMs !== null && Math.abs(skewMs) > skewMaxMs)
    causes.push({
      kind: 'clock_skewed',
      severity: 'warning',
      ...about,
      message: `the clock of host ${host.name} is off by more than ${skewMaxMs} ms`,
    })
  for (const message of report?.pair?.alarms ?? [])
    causes.push({
      kind: 'agent_alarm',
      severity: 'warning',
      ...about,
      message: cutTo(`${host.name}: ${message}`, messageMax),
    })
  return causes
}
