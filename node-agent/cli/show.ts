import type { Decision } from '../decisions.ts'
import type { LinkPath } from '../ports.ts'
import type { CheckReport } from '../report/check-report.ts'
import type { StatusReport } from '../report/status-report.ts'
import { treeState } from './show-tree.ts'

/** Reports as a person reads them; one screen each. `now` is wall time in ms. */

export function showStatus(report: StatusReport, now: number): string {
  const { peer, witness, replication, gate, lease } = report
  const since = Date.parse(report.since)
  const rows: [string, string][] = [
    [
      'peer',
      `${peer.node} ${heard(peer.heardAgoMs)}, ${livePaths(peer.paths)} ${peer.paths.length === 1 ? 'works' : 'work'}${refusedWords(peer.refused)}${peer.why === '' ? '' : `; ${peer.why}`}`,
    ],
    ...peer.paths.map((path): [string, string] => ['path', pathLine(path)]),
    ['witness', witness === null ? 'none: no automatic takeover' : witnessLine(witness)],
    [
      'gate',
      gate.state === 'open'
        ? `open for ${gate.leftMs} ms more${lease.held ? `, lease for ${Math.round(lease.leftMs)} ms` : ', nobody may succeed'}`
        : gate.state,
    ],
    ['database', databaseLine(replication, report.role)],
    ...report.vips.map((vip): [string, string] => [
      'VIP',
      `${vip.address} on ${vip.interface}: ${vip.present ? 'here' : 'not here'}${vip.conflict === null ? '' : `, ALSO answered by ${vip.conflict}`}`,
    ]),
    ...(report.uplink.up ? [] : [['uplink', `down: ${report.uplink.why}`] as [string, string]]),
    ...report.services.map((service): [string, string] => [
      'service',
      `${service.name} ${service.state}${service.why === '' ? '' : `: ${service.why}`}${service.restarts > 0 ? `, restarted ${service.restarts} times` : ''}`,
    ]),
    ...report.sync.map((tree): [string, string] => ['files', `${tree.tree}: ${treeState(tree)}`]),
    ...report.workers
      .filter(worker => worker.state !== 'running')
      .map((worker): [string, string] => [
        'worker',
        `${worker.name} ${worker.state}${worker.why === '' ? '' : `: ${worker.why}`}`,
      ]),
    ...report.alarms.map((alarm): [string, string] => ['ALARM', alarm]),
  ]
  const primary = report.primary === null ? 'no primary known' : `${report.primary} is primary`
  return [
    `pair ${report.pair} · host ${report.node} · ${report.role} · ${primary} · epoch ${report.epoch} (gen ${report.gen}, version ${report.version})`,
    `${headline(report)} since ${clock(since)} (${span(now - since)}): ${report.why}`,
    ...report.blocking.filter(why => why !== report.why).map(why => `  no automatic takeover: ${why}`),
    ...(report.sealed || report.role !== 'primary'
      ? []
      : ['NOT SEALED: keep the other host off until another member holds the new generation']),
    ...(report.maintenanceUntil === null ? [] : [`maintenance until ${clock(Date.parse(report.maintenanceUntil))}`]),
    '',
    ...rows.map(([label, text]) => `${label.padEnd(10)}${text}`),
    '',
  ].join('\n')
}

/** A backup that does not serve is as it should be; whether it may take over is what one wants to know of it. */
function headline({ protection, role, blocking }: StatusReport): string {
  if (role !== 'backup') return protection.toUpperCase()
  return blocking.length === 0 ? 'STANDING BY, may take over,' : 'NOT SERVING, MAY NOT TAKE OVER,'
}

function livePaths(paths: readonly LinkPath[]): string {
  const live = paths.filter(isLive).length
  const word = paths.length === 1 ? 'path' : 'paths'
  return `${live} of ${paths.length} ${word}`
}

/** Reasons in the words of peer/link-report.ts: "unknownSession" becomes "unknown session". */
function refusedWords(refused: StatusReport['peer']['refused']): string {
  const reasons = Object.entries(refused)
    .filter(([, count]) => count > 0)
    .map(([why, count]) => `${count} ${why.replace(/[A-Z]/g, letter => ` ${letter.toLowerCase()}`)}`)
  return reasons.length === 0 ? '' : ` (packets refused: ${reasons.join(', ')})`
}
const isLive = ({ heardMs }: LinkPath): boolean => heardMs !== null && heardMs < pathLiveMs
function pathLine(path: LinkPath): string {
  const { local, peer, lossPercent, roundTripMs } = path
  const trip = roundTripMs === null ? '' : `, round trip ${roundTripMs.toFixed(1)} ms`
  const loss = lossPercent === null ? '' : `, ${Math.round(lossPercent)} % lost`
  return `${local} to ${peer}: ${isLive(path) ? `works${trip}${loss}` : `DOWN, ${heard(path.heardMs)}`}`
}

/** Heartbeats come ten times a lease; a path without any for this long is down whatever the profile. */
const pathLiveMs = 2000

const heard = (agoMs: number | null): string =>
  agoMs === null ? 'not heard since this agent started' : `heard ${(agoMs / 1000).toFixed(2)} s ago`

function witnessLine(witness: NonNullable<StatusReport['witness']>): string {
  const vote = witness.voteP99Ms === null ? '' : `, votes in ${Math.round(witness.voteP99Ms)} ms (p99)`
  const ago = witness.answeredAgoMs === null ? '' : ` ${Math.round(witness.answeredAgoMs / 1000)} s ago`
  const reach = {
    yes: `reached${ago}`,
    no: `NOT reached, last answered${ago || ' never'}`,
    unknown: 'not heard of yet',
  }[witness.reach]
  return `${reach}${vote}${witness.why === '' ? '' : `: ${witness.why}`}${alternateWords(witness.alternate)}`
}

function alternateWords(alternate: NonNullable<StatusReport['witness']>['alternate']): string {
  if (alternate === null) return ''
  if (alternate.isMember) return '; the alternate has taken its place'
  return `; alternate ${alternate.answeredAgoMs === null ? 'never answered' : `answered ${Math.round(alternate.answeredAgoMs / 1000)} s ago`}`
}

function databaseLine(replication: StatusReport['replication'], role: string): string {
  const at = replication.timeline === 0 ? '' : `, timeline ${replication.timeline} at ${replication.lsn}`
  const lag =
    role === 'primary'
      ? replication.lagBytes === null
        ? '; what the backup has is not known'
        : `; the backup is ${replication.lagBytes} bytes behind`
      : replication.streaming
        ? '; streams from the primary'
        : '; does not stream'
  const doing = replication.operation === null ? '' : `; now: ${replication.operation}`
  const error = replication.lastError === '' ? '' : `; last error: ${replication.lastError}`
  const standing = replication.standing === '' ? '' : `; ${replication.standing}`
  return `${replication.process}${at}${lag}${doing}${error}${standing}`
}

export interface WhyReport {
  node: string
  protection: string
  why: string
  peerMissing: string
  lines: (Decision & { host: string })[]
}

export function showWhy(report: WhyReport): string {
  const missing = report.peerMissing === '' ? [] : [`(lines of the other host are missing: ${report.peerMissing})`]
  return [
    ...report.lines.map(line => showDecision(line, line.host)),
    ...missing,
    `now, seen by ${report.node}: ${report.protection}: ${report.why}`,
    '',
  ].join('\n')
}

export function showDecision(line: Decision, host = ''): string {
  return `${day(line.wallMs)} ${clock(line.wallMs)} ${host === '' ? '' : `${host} `}epoch ${line.epoch}  ${line.why}`
}

export function showCheck(report: CheckReport): string {
  const { predicted, timing } = report
  const about = (ms: number | null): string =>
    ms === null ? 'none happens by itself' : `about ${(ms / 1000).toFixed(2)} s`
  return [
    report.takeover ? 'A takeover would succeed now.' : 'A takeover would NOT succeed now:',
    ...report.blocking.map(reason => `  - ${reason}`),
    ...(report.warnings.length === 0 ? [] : ['Warnings:', ...report.warnings.map(warning => `  - ${warning}`)]),
    '',
    'Predicted outage of writes:',
    `  power cut of the primary   ${about(predicted.powerCutOutageMs)}`,
    `  death of its database      ${about(predicted.databaseDeathOutageMs)}`,
    `  planned switchover         ${predicted.switchoverOutageMs === null ? 'not possible now' : about(predicted.switchoverOutageMs)}`,
    `Predicted loss: ${predicted.loss}`,
    `Profile ${timing.profile}: lease ${timing.leaseMs} ms; a Shrink needs ${timing.shrinkNeedsMs} of ${timing.leaseLeftMs} ms; the witness votes in ${timing.voteP99Ms === null ? 'a time not measured yet' : `${Math.round(timing.voteP99Ms)} ms`}, ${Math.round(timing.voteLimitMs)} ms are allowed`,
    '',
  ].join('\n')
}

const two = (value: number): string => String(value).padStart(2, '0')
/** Local time, since that is what the operator's other logs show. */
const clock = (ms: number): string => {
  const at = new Date(ms)
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`
}
const day = (ms: number): string => {
  const at = new Date(ms)
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`
}

export function span(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000))
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`
  return `${Math.floor(seconds / 86_400)} d`
}
