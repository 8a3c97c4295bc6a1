import type { z } from 'zod'
import type { getReadiness } from '../../../shared/contract/api/pairs.ts'
import { otherNode } from '../../../shared/protocol/nodes.ts'
import { isConnected, lastHeard, skewMaxMs, skewOf } from '../host/host-view.ts'
import { leadingReport, reportsOf } from './pair-view.ts'
import type { PairRows } from './read-pairs.ts'

type Readiness = z.input<typeof getReadiness.reply>

/** Would a takeover succeed now? The hosts judge it, each for itself; here their verdicts are put together. */
export function readinessOf(rows: PairRows, now: Date): Readiness {
  const reports = reportsOf(rows, now)
  const leading = leadingReport(rows, now)
  const obstacles: Readiness['obstacles'] = []
  const add = (blocks: 'takeover' | 'switchover' | 'both', why: string): void => {
    if (!obstacles.some(one => one.why === why)) obstacles.push({ blocks, why })
  }
  for (const slot of ['a', 'b'] as const) {
    const report = reports[slot]
    const { name } = rows.hosts[slot].host
    if (report === null) {
      const heard = lastHeard(rows.hosts[slot])
      add(
        'both',
        `host ${name} ${heard === null ? 'was never heard' : `was last heard at ${heard.toISOString()}`}; its state is unknown`,
      )
    } else if (report.check === null) add('both', `host ${name} reports no verdict of its own`)
    else for (const why of report.check.blocking) add('both', `${name}: ${why}`)
  }
  const unknown = reports.a === null || reports.b === null
  for (const why of leading === null ? [] : switchoverObstacles(rows, now)) add('switchover', why)
  const takeover = verdictOf(unknown, reports.a?.check?.takeover === true && reports.b?.check?.takeover === true)
  const primary = leading?.primary ?? null
  const predicted = primary === null ? null : (reports[primary]?.check?.predicted ?? null)
  return {
    takeover,
    switchover: verdictOf(
      unknown,
      obstacles.every(one => one.blocks === 'takeover'),
    ),
    predicted: predicted ?? {
      powerCutOutageMs: null,
      databaseDeathOutageMs: null,
      switchoverOutageMs: null,
      loss: 'unknown: the primary has not reported lately',
    },
    obstacles,
    warnings: warningsOf(rows, now),
    asOf: lastHeardOfAny(rows),
  }
}

const verdictOf = (unknown: boolean, holds: boolean): 'yes' | 'no' | 'unknown' =>
  unknown ? 'unknown' : holds ? 'yes' : 'no'

/**
 * The guards of a planned switchover, each a reason to refuse it: the backup must be heard, healthy and caught up, and
 * nothing else may be under way. A host judges again when the command arrives; this is so that a caller hears it first.
 */
export function switchoverObstacles(rows: PairRows, now: Date): string[] {
  const reports = reportsOf(rows, now)
  const leading = leadingReport(rows, now)
  if (leading === null) return ['neither host was heard within 30 s: who is primary is not known']
  const { primary } = leading
  if (primary === null) return ['the register names no primary']
  const backup = otherNode(primary)
  const name = rows.hosts[backup].host.name
  const found: string[] = []
  const from = reports[primary]
  const to = reports[backup]
  if (from === null) found.push(`the primary ${rows.hosts[primary].host.name} was not heard within 30 s`)
  if (to === null) found.push(`the backup ${name} was not heard within 30 s: it may be abnormal`)
  if (from !== null) {
    if (!from.serving) found.push(`the primary does not serve: ${from.why}`)
    if (!from.peer.admitted) found.push(`the backup ${name} is no admitted member of the register`)
    if (from.replication.operation !== null)
      found.push(`synchronisation is running (${from.replication.operation}); wait for its end`)
    if (!from.replication.streaming) found.push(`synchronisation is broken: ${name} receives nothing from the primary`)
    if (from.check?.switchover === false)
      found.push(
        ...(from.check.blocking.length > 0 ? from.check.blocking : ['the primary judges that it cannot hand over now']),
      )
  }
  if (to !== null) {
    if (to.role !== 'backup') found.push(`${name} is ${to.role}, not backup`)
    if (to.replication.operation !== null) found.push(`${name} is at work on its data (${to.replication.operation})`)
    if (to.replication.lastError !== '') found.push(`the database of ${name}: ${to.replication.lastError}`)
  }
  return [...new Set(found)]
}

function warningsOf(rows: PairRows, now: Date): string[] {
  const reports = reportsOf(rows, now)
  return (['a', 'b'] as const).flatMap(slot => {
    const { host } = rows.hosts[slot]
    const skewMs = isConnected(rows.hosts[slot], now) === 'yes' ? skewOf(rows.hosts[slot]) : null
    const own = (reports[slot]?.check?.warnings ?? []).map(one => `${host.name}: ${one}`)
    return skewMs !== null && Math.abs(skewMs) > skewMaxMs
      ? [...own, `${host.name}: its clock differs by about ${skewMs} ms from the control plane’s`]
      : own
  })
}

function lastHeardOfAny(rows: PairRows): string | null {
  const times = [lastHeard(rows.hosts.a), lastHeard(rows.hosts.b)].filter(one => one !== null).map(one => one.getTime())
  return times.length === 0 ? null : new Date(Math.max(...times)).toISOString()
}
