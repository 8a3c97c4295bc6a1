import {
  barrierPassed,
  confirmed,
  holdsLease,
  inDoubt,
  isPrimary,
  knownBallot,
  knownValue,
  mayOpen,
  notBefore,
  peerIsAdmitted,
  peerIsLeaving,
  peerVoter,
  silenceMs,
  witnessReach,
  witnessVoter,
} from './facts.ts'
import type { HostState } from './state.ts'
import type { Value } from './types.ts'

export const suspendedWhy = 'maintenance: no automatic takeover'
export const silentWhy = 'the database does not answer'

/** What stands in the way of making S the successor, as a sentence, or null. Also shown to people: it is why a pair is unprotected. */
export function readyToGrow(s: HostState, now: number): string | null {
  const obstacle = growObstacle(s, now)
  if (obstacle !== null) return obstacle
  return s.gate.grantUntil > s.lease.leaseUntil ? 'the gate is open for longer than the lease' : null
}

/** The same without the gate's grant, which is cut to the lease only once all else is ready. */
export function growObstacle(s: HostState, now: number): string | null {
  const known = knownValue(s)
  if (known === null || !isPrimary(s)) return 'this host is not the primary'
  if (known.successor) return 'the backup is the successor already'
  const healthy = backupIsHealthy(s, now)
  if (healthy !== null) return healthy
  if (s.duty.maintenanceUntil > now) return suspendedWhy
  if (s.vacate !== null) return 'the primary is giving its place up'
  if (s.database.view.hanging) return silentWhy
  if (witnessVoter(s) === null) return 'the pair has no witness, and without one there is no automatic takeover'
  if (s.witness.pinned) return 'the witness was away and has not been back for long enough'
  if (witnessReach(s, now) !== 'yes') return 'the primary does not reach the witness'
  if (s.lease.ack?.witness !== 'yes') return 'the backup does not reach the witness'
  if (now < s.duty.regrowAt) return 'the backup was lost a moment ago; it has to stay for a while first'
  if (!mayOpen(s, now) || !holdsLease(s, now)) return 'the primary is not serving under a lease'
  if (!barrierPassed(s)) return 'synchronous replication is not proven in force'
  if (s.lease.ack?.confirmed !== true) return 'the backup has not confirmed the register since it booted'
  return null
}

/** The backup answers, from the admitted store, and its log follows ours. A sentence, or null. */
export function backupIsHealthy(s: HostState, now: number): string | null {
  const { ack } = s.lease
  if (peerVoter(s) === null && (ack === null || silenceMs(s, now) >= s.timing.silenceMs) && !ack?.streaming)
    return `no other host is a member of this pair; \`understudy pair join\` on ${s.peer} makes it one`
  if (ack === null || silenceMs(s, now) >= s.timing.silenceMs)
    return ack?.why ? `the backup: ${ack.why}` : 'the backup is silent'
  if (!peerIsAdmitted(s)) return 'the backup answers with a store that is not admitted'
  if (peerIsLeaving(s)) return 'the backup is about to leave'
  if (!ack.streaming || s.database.view.sender === null) return 'the backup does not stream'
  if (
    ack.flushed.timeline !== s.database.view.end.timeline ||
    s.database.view.sender.timeline !== ack.flushed.timeline
  ) {
    return `the backup is on timeline ${ack.flushed.timeline}, the primary on ${s.database.view.end.timeline}`
  }
  return null
}

/**
 * Handover: the database is dead, the gate shut, and S, from the admitted store and after the kill, answered: with a
 * successor that is enough (it has every acknowledged write); pinned, that one answer must carry the end of our log.
 */
export function readyToHandOver(s: HostState, v: Value, now: number): boolean {
  const { vacate, lease } = s
  if (vacate === null || vacate.end === null || s.gate.set === 'open' || s.gate.set === 'untouched') return false
  const { ack } = lease
  if (ack === null || !ack.promise || !ack.confirmed || ack.inc !== v.voters[s.peer]) return false
  if (ack.seq <= vacate.killedSeq || (s.openGrow > Math.max(knownBallot(s), 0) && !v.successor)) return false
  const hasAll = ack.flushed.timeline === vacate.end.timeline && notBefore(ack.flushed, vacate.end)
  if (hasAll) return true
  // A planned one waits a moment for the tail, so that the old primary follows without a rewind.
  return v.successor && (vacate.kind === 'failure' || now - vacate.killedAt > s.timing.drainMs)
}

/**
 * A planned hand-over to a backup that was silent for D can't be done before it promises again, and its lease may end first: a
 * round of this host would have the higher ballot and outbid its takeover, though the database here has ended. Where it is no
 * successor it cannot win, and leaves the register alone for up to a minute: then what is in doubt is read here.
 */
export const mayStandAlone = (s: HostState, now: number): boolean =>
  s.vacate?.kind === 'planned' &&
  s.vacate.end !== null &&
  knownValue(s)?.successor === true &&
  silenceMs(s, now) >= s.timing.silenceMs

/** Would a planned switchover be safe and short now? A sentence that says why not, or null. */
export function readyToSwitch(s: HostState, now: number): string | null {
  if (!isPrimary(s)) return 'this host is not the primary'
  if (s.vacate !== null) return 'a hand-over is under way already'
  if (inDoubt(s)) return 'a change of the register is still in doubt'
  const healthy = backupIsHealthy(s, now)
  if (healthy !== null) return healthy
  if (s.database.view.process !== 'primary') return 'the database does not run'
  if (s.lease.ack?.confirmed !== true) return 'the backup has not confirmed the register since it booted'
  if (!confirmed(s)) return 'the primary has not confirmed the register since it booted'
  const lagBytes = s.database.view.end.lsn - (s.lease.ack?.flushed.lsn ?? 0)
  if (lagBytes > switchLagMaxBytes)
    return `the backup is ${lagBytes} bytes behind, a switchover wants ${switchLagMaxBytes} at most`
  return null
}

/** More than this is not drained within the switchover's pause. */
export const switchLagMaxBytes = 16 * 1024 * 1024
