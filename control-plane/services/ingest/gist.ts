import type { HostReport } from '../../../shared/contract/report.ts'
import { lagMaxBytes } from '../alarm/causes.ts'
import { certificateWarningMs, skewMaxMs, staleAfterMs } from '../host/host-view.ts'

/** Time alone brings news as well (a maintenance that is over): so often a pair is looked at without a change. */
const lookAgainMs = 5 * 60_000

/**
 * Everything in a report that alarms, role changes and operations are judged by, without what differs in each report.
 * Two reports of one gist mean the same look at the pair: ten thousand hosts that all say "as before" cost no looks.
 */
export function gistOf(report: HostReport, receivedAt: Date): string {
  const now = receivedAt.getTime()
  const { pair, applied, freshAt, certificateEndsAt } = report
  return JSON.stringify([
    // Not everybody's at the same moment.
    Math.floor((now + Date.parse(report.agent.startedAt)) / lookAgainMs),
    report.boot,
    report.observedGeneration,
    applied.status,
    applied.generation,
    applied.why,
    Math.abs(Date.parse(report.sentAt) - now) > skewMaxMs,
    freshAt !== null && now - Date.parse(freshAt) > staleAfterMs,
    certificateEndsAt !== null && Date.parse(certificateEndsAt) - now < certificateWarningMs,
    pair === null
      ? null
      : [
          ...[pair.role, pair.gen, pair.epoch, pair.version, pair.serving, pair.primary, pair.successor],
          ...[pair.protection, pair.why, pair.sealed, pair.maintenance, pair.peer.admitted, pair.witness?.reach],
          ...[pair.replication.streaming, pair.replication.operation, pair.replication.lastError],
          (pair.replication.lagBytes ?? 0) > lagMaxBytes,
          pair.vips.map(vip => [vip.address, vip.present, vip.conflict]),
          pair.alarms,
          pair.check?.takeover,
          pair.check?.switchover,
        ],
  ])
}
