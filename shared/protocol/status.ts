import { obstacleToProtection } from './duties.ts'
import {
  acceptedValue,
  genHeard,
  hasDeparted,
  holdsLease,
  holdsOffice,
  isBackup,
  isPrimary,
  isResigned,
  isSealed,
  knownValue,
  rightToServe,
  silenceMs,
  witnessReach,
} from './facts.ts'
import { backupIsHealthy, silentWhy } from './primary-conditions.ts'
import type { HostState } from './state.ts'
import type { DataNode, Reach } from './types.ts'

/** The verdict in the user's words. It is never better than the truth: what is not known is not shown as good. */
export type Protection = 'protected' | 'serving but unprotected' | 'not serving'
export type Role = 'primary' | 'backup' | 'not a member' | 'unsettled'

export interface Status {
  node: DataNode
  role: Role
  gen: number
  /** Above gen: forced on the other host, and what was decided in it is not known here. */
  genHeard: number
  epoch: number
  version: number
  primary: DataNode | null
  successor: boolean
  serving: boolean
  protection: Protection
  why: string
  lease: { held: boolean; leftMs: number }
  witness: Reach
  peer: { heardAgoMs: number | null; why: string; admitted: boolean }
  database: {
    process: string
    timeline: number
    lsn: number
    lagBytes: number | null
    operation: string | null
    lastError: string
  }
  sealed: boolean
  maintenance: boolean
}

export function statusOf(s: HostState, now: number): Status {
  const known = knownValue(s)
  const serving = isServing(s, now)
  const { view, op, lastError } = s.database
  const verdict = protectionOf(s, now)
  return {
    node: s.node,
    role: roleOf(s),
    gen: known?.gen ?? 0,
    genHeard: genHeard(s),
    epoch: known?.epoch ?? 0,
    version: known?.version ?? 0,
    primary: known?.primary ?? null,
    successor: known?.successor ?? false,
    serving,
    ...verdict,
    lease: { held: holdsLease(s, now), leftMs: Math.max(0, s.lease.leaseUntil - now) },
    witness: witnessReach(s, now),
    peer: peerOf(s, now),
    database: {
      process: view.process,
      timeline: view.end.timeline,
      lsn: view.end.lsn,
      // What the backup said last may be newer than the own look.
      lagBytes:
        isPrimary(s) && s.lease.ack?.flushed.timeline === view.end.timeline
          ? Math.max(0, view.end.lsn - s.lease.ack.flushed.lsn)
          : null,
      operation: op?.op.op ?? null,
      lastError,
    },
    sealed: isSealed(s),
    maintenance: s.duty.maintenanceUntil > now,
  }
}

/** The gate is open as far as the kernel has said, its grant is not over, and clients get answers. */
export const isServing = (s: HostState, now: number): boolean =>
  s.gate.set === 'open' &&
  s.gate.report.state === 'open' &&
  s.gate.report.expiresUntil > now &&
  !s.database.view.hanging

function roleOf(s: HostState): Role {
  const known = knownValue(s)
  if (known === null || known.voters[s.node] !== s.durable.inc) return 'not a member'
  if (holdsOffice(s)) return 'primary'
  return isBackup(s) ? 'backup' : 'unsettled'
}

function protectionOf(s: HostState, now: number): { protection: Protection; why: string } {
  if (!isServing(s, now)) return { protection: 'not serving', why: whyNotServing(s, now) }
  const successor = knownValue(s)?.successor === true && acceptedValue(s)?.successor === true
  const obstacle = obstacleToProtection(s, now)
  // The backup's newest promise must be fresh: what happened since is not known.
  const fresh = silenceMs(s, now) < s.timing.prepareAfterMs
  // A takeover is voted by the backup and the witness: it is the backup's own word that counts.
  const backupReachesWitness = s.lease.ack?.witness === 'yes'
  const votes = backupReachesWitness && witnessReach(s, now) === 'yes'
  if (successor && obstacle === null && fresh && holdsLease(s, now) && votes) {
    return { protection: 'protected', why: `${s.peer} has every acknowledged write and may take over` }
  }
  if (obstacle !== null) return { protection: 'serving but unprotected', why: obstacle }
  if (witnessReach(s, now) !== 'yes')
    return { protection: 'serving but unprotected', why: 'the witness is not reached: a takeover would find no vote' }
  if (!backupReachesWitness)
    return {
      protection: 'serving but unprotected',
      why: `${s.peer} does not reach the witness: its takeover would find no vote`,
    }
  return {
    protection: 'serving but unprotected',
    why: fresh ? 'the register names no successor yet' : 'the backup is silent',
  }
}

function whyNotServing(s: HostState, now: number): string {
  const known = knownValue(s)
  if (known === null) return 'this host belongs to no pair yet'
  if (hasDeparted(s)) return 'this host left the pair; `understudy pair join` makes it a member again'
  if (isBackup(s)) return `${s.peer} is the primary of epoch ${known.epoch}`
  if (isResigned(s)) return `this host resigned from version ${s.durable.resigned}; ${s.peer} is asked to take over`
  if (!holdsOffice(s)) return 'the register is being read'
  if (s.vacate !== null) return `giving the place up: ${s.vacate.why}`
  if (rightToServe(s, now) === null)
    return `the lease is over and ${s.peer} may have taken over; waiting for an answer of ${s.peer} or of the witness`
  if (s.database.view.hanging) return `${silentWhy}, and is given time: nobody else could go on now`
  if (s.database.view.process !== 'primary')
    return `the database is ${s.database.view.process}${s.database.lastError ? `: ${s.database.lastError}` : ''}`
  return `clients wait until ${s.peer} has everything they could read`
}

function peerOf(s: HostState, now: number): Status['peer'] {
  if (holdsOffice(s)) {
    const heard = s.lease.ackAt > 0 ? now - s.lease.ackAt : null
    return {
      heardAgoMs: heard,
      why: backupIsHealthy(s, now) ?? '',
      admitted: s.lease.ack !== null && s.lease.ack.inc === knownValue(s)?.voters[s.peer],
    }
  }
  const heard = s.backup.heardAt > 0 ? now - s.backup.heardAt : null
  return { heardAgoMs: heard, why: heard === null ? `${s.peer} was not heard yet` : '', admitted: true }
}
