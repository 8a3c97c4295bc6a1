import {
  acceptedValue,
  barrierPassed,
  confirmed,
  holdsLease,
  inDoubt,
  isBackup,
  isPrimary,
  isSealed,
  isStalled,
  knownBallot,
  knownValue,
  mayOpen,
  peerVoter,
  witnessVoter,
} from './facts.ts'
import { grantIsWhole } from './gatekeeper.ts'
import type { HostState } from './state.ts'

/**
 * How long nothing but an event can change anything: until the time returned, on CLOCK_BOOTTIME in ms, a tick has no
 * effect, says nothing and leaves the state as it is. 0: not at rest, tick as finely as the profile asks.
 *
 * A protected pair in calm is all this is about, one that serves and one that follows; whatever is under way, missing or
 * in doubt is no rest. The simulation takes every tick all the same in each fourth run and checks that those within a
 * rest do nothing.
 */
export function restsUntil(s: HostState, now: number): number {
  if (!isSettled(s, now)) return 0
  const until = isPrimary(s) ? primaryRestsUntil(s, now) : isBackup(s) ? backupRestsUntil(s) : 0
  const written = Math.min(until, s.persist.newestAt + s.timing.storeProbeMs)
  const probe = s.witness.wanted === null ? written : Math.min(written, s.witness.probeAt)
  return probe > now ? probe : 0
}

/** No round, no operation, no write and no doubt; nothing an operator asked for. */
function isSettled(s: HostState, now: number): boolean {
  const { acc } = s.durable
  return (
    s.started &&
    s.round === null &&
    s.vacate === null &&
    s.database.op === null &&
    s.persist.pending.length === 0 &&
    acc !== null &&
    acc.value.voters[s.node] === s.durable.inc &&
    acc.ballot <= knownBallot(s) &&
    !inDoubt(s) &&
    confirmed(s) &&
    s.durable.leaseMs === s.timing.leaseMs &&
    s.openGrow === 0 &&
    !s.lease.abdicated &&
    !s.witness.pinned &&
    s.duty.leaving === 'no' &&
    s.uplink &&
    s.duty.maintenanceUntil <= now &&
    now >= s.roundAfterAt
  )
}

function primaryRestsUntil(s: HostState, now: number): number {
  const { lease, gate, timing } = s
  const calm =
    knownValue(s)?.successor === true &&
    isSealed(s) &&
    mayOpen(s, now) &&
    holdsLease(s, now) &&
    barrierPassed(s) &&
    s.database.view.syncNames === 'set' &&
    !isStalled(s) &&
    lease.replicaGoneAt === 0 &&
    lease.ack?.asks === 'nothing' &&
    lease.ack.inc === peerVoter(s) &&
    witnessVoter(s) === s.witness.wanted &&
    s.witness.unansweredAt === 0
  // The newest grant was applied in full and reaches as far as the lease lets it.
  const granted =
    gate.set === 'open' &&
    gate.reported === gate.seq &&
    gate.report.state === 'open' &&
    gate.grantUntil <= lease.leaseUntil &&
    grantIsWhole(s) &&
    lease.leaseUntil - gate.askedUntil < timing.renewEveryMs / 2
  if (!calm || !granted || s.vip.up !== true || s.vip.downAt !== 0 || !s.servicesRunning) return 0
  const silent = Math.max(lease.promisedAt, lease.primaryAt) + timing.prepareAfterMs
  return Math.min(lease.nextBeatAt, silent, lease.leaseUntil, gate.report.expiresUntil)
}

function backupRestsUntil(s: HostState): number {
  const { backup, timing } = s
  const { view } = s.database
  const calm =
    acceptedValue(s)?.successor === true &&
    !backup.candidacy &&
    backup.resignHeard === 0 &&
    backup.astrayAt === 0 &&
    backup.heartbeat !== null &&
    view.process === 'standby' &&
    view.streaming &&
    view.end.timeline === backup.heartbeat.timeline &&
    s.gate.set === 'closed' &&
    s.vip.up === false &&
    !s.servicesRunning
  return calm ? Math.min(backup.promiseUntil, backup.heardAt + timing.leaseMs) : 0
}
