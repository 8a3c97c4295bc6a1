import type { z } from 'zod'
import type { condition, host as hostSchema } from '../../../shared/contract/api/hosts.ts'
import type { HostSummary } from '../../../shared/contract/host-summary.ts'
import type { HostReport } from '../../../shared/contract/report.ts'
import type { host, hostReported, hostSeen } from '../../db/schema/index.ts'

/** A host's rows as they lie in the database; all but the first may be missing. */
export interface HostRows {
  host: typeof host.$inferSelect
  reported: typeof hostReported.$inferSelect | null
  seen: typeof hostSeen.$inferSelect | null
  /** What it last told of its networks and storage, as far as two hosts are compared. */
  summary: HostSummary | null
  generation: number
  pair: { id: string; slot: 'a' | 'b' } | null
}

/** Three heartbeats; what is older says nothing about now. */
export const silentAfterMs = 30_000
/** Re-issued hourly; a host that holds an older word may be held back by its broker. */
export const staleAfterMs = 2 * 3_600_000
export const skewMaxMs = 2_000
/** It lives 72 h and is renewed at half of it: with less than a third left, renewing fails. */
export const certificateWarningMs = 24 * 3_600_000

export type Verdict = 'yes' | 'no' | 'unknown'

/** When the host was last heard, on whichever way. */
export function lastHeard({ reported, seen }: Pick<HostRows, 'reported' | 'seen'>): Date | null {
  const times = [reported?.receivedAt, seen?.receivedAt].filter(one => one !== undefined)
  return times.length === 0 ? null : new Date(Math.max(...times.map(one => one.getTime())))
}

/** Silence is no proof of death: a host that is not heard is unknown, never down. */
export function isConnected(rows: Pick<HostRows, 'reported' | 'seen'>, now: Date): Verdict {
  const heard = lastHeard(rows)
  return heard !== null && now.getTime() - heard.getTime() <= silentAfterMs ? 'yes' : 'unknown'
}

/** The report, if it still says something about now. */
export const currentReport = (rows: HostRows, now: Date): HostReport | null =>
  isConnected(rows, now) === 'yes' ? (rows.reported?.body ?? null) : null

export function hostView(rows: HostRows, now: Date): z.input<typeof hostSchema> {
  const { host: row, reported } = rows
  return {
    id: row.id,
    name: row.name,
    state: row.state,
    pair: rows.pair,
    facts: row.facts ?? null,
    agentVersion: reported?.body.agent.version ?? row.agentVersion,
    publicKey: row.publicKey,
    connected: isConnected(rows, now),
    lastSeenAt: lastHeard(rows)?.toISOString() ?? null,
    generation: rows.generation,
    observedGeneration: reported?.observedGeneration ?? 0,
    conditions: conditionsOf(rows, now),
    enrolledAt: row.enrolledAt.toISOString(),
    retiredAt: row.retiredAt?.toISOString() ?? null,
    replaces: row.replaces,
  }
}

type Condition = z.input<typeof condition>

export function conditionsOf(rows: HostRows, now: Date): Condition[] {
  const report = currentReport(rows, now)
  const observedGeneration = rows.reported?.observedGeneration ?? 0
  const heard = lastHeard(rows)
  const silent = heard === null ? 'the host was never heard' : `the host was last heard at ${heard.toISOString()}`
  const one = (type: Condition['type'], holds: boolean | null, reason: string, message: string): Condition => ({
    type,
    status: holds === null ? 'Unknown' : holds ? 'True' : 'False',
    reason: holds === null ? 'NotHeard' : reason,
    message: holds === null ? silent : message,
    observedGeneration,
  })
  if (report === null) {
    const types = ['Connected', 'Applied', 'DesiredStale', 'ClockSkewed', 'CertificateExpiring', 'Ready'] as const
    return types.map(type => one(type, null, '', ''))
  }
  const skewMs = skewOf(rows)
  const freshAgeMs = report.freshAt === null ? null : now.getTime() - Date.parse(report.freshAt)
  const endsInMs = report.certificateEndsAt === null ? null : Date.parse(report.certificateEndsAt) - now.getTime()
  const ready = report.pair?.check?.takeover ?? null
  const applied = appliedOf(rows, report)
  return [
    one('Connected', true, 'Heard', `last heard at ${heard?.toISOString()}`),
    one('Applied', applied.holds, applied.reason, applied.message),
    one(
      'DesiredStale',
      freshAgeMs === null ? null : freshAgeMs > staleAfterMs,
      'Freshness',
      `its newest word about its wish is of ${report.freshAt}`,
    ),
    one(
      'ClockSkewed',
      skewMs === null ? null : Math.abs(skewMs) > skewMaxMs,
      'Measured',
      `its clock differs by about ${skewMs} ms`,
    ),
    one(
      'CertificateExpiring',
      endsInMs === null ? null : endsInMs < certificateWarningMs,
      'Validity',
      `its certificate ends at ${report.certificateEndsAt}`,
    ),
    one('Ready', ready, 'Check', report.pair?.check?.blocking.join('; ') ?? ''),
  ]
}

/** From the host's wall time in its report and ours as it came in; the way between them is part of it. */
export function skewOf({ reported }: Pick<HostRows, 'reported'>): number | null {
  if (reported === null) return null
  return Date.parse(reported.body.sentAt) - reported.receivedAt.getTime()
}

function appliedOf(rows: HostRows, report: HostReport): { holds: boolean | null; reason: string; message: string } {
  const { generation } = rows
  if (generation === 0) return { holds: true, reason: 'NothingWanted', message: 'nothing is wanted of this host yet' }
  if (report.applied.status === 'False')
    return {
      holds: false,
      reason: 'Reverted',
      message: `generation ${report.applied.generation}: ${report.applied.why}`,
    }
  if (report.observedGeneration < generation)
    return {
      holds: false,
      reason: 'Behind',
      message: `generation ${report.observedGeneration} of ${generation} is applied`,
    }
  return { holds: true, reason: 'Applied', message: `generation ${generation} is applied` }
}
