import {
  confirmed,
  holdsOffice,
  inDoubt,
  isPrimary,
  isResigned,
  isSealed,
  isStalled,
  knownBallot,
  knownValue,
  peerIsLeaving,
  peerVoter,
  rightToServe,
  silenceMs,
  votesIn,
  witnessVoter,
} from './facts.ts'
import { backupIsHealthy, mayStandAlone, readyToGrow } from './primary-conditions.ts'
import { beginRound, type Proposal } from './proposer.ts'
import type { Ground, HostState } from './state.ts'
import type { Turn } from './turn.ts'
import type { Voters } from './types.ts'
import { witnessIsAway } from './witness-link.ts'

/**
 * Which change of the register this host wants next, read from the state alone, most urgent first. At most one round
 * is open at a time; what is refused or fails is wanted again after a random back-off.
 */
export function driveRegister(turn: Turn): void {
  const { s, now } = turn
  if (s.round !== null || now < s.roundAfterAt || s.lease.abdicated || s.durable.acc === null) return
  const proposal = wantedChange(turn)
  if (proposal !== null) beginRound(turn, proposal)
}

function wantedChange(turn: Turn): Proposal | null {
  const { s, now } = turn
  const { acc } = s.durable
  if (acc === null) return null
  if (leavesTheRegister(s, now) || mayStandAlone(s, now)) return null
  // An unresolved own proposal is never left lying, nor by a host that was removed meanwhile: it would follow nobody for ever.
  // A candidate that may stand has begun its round before this; one that hears the primary reads what became of its
  // proposal, else it would acknowledge nothing for ever.
  if (inDoubt(s)) return { change: 'confirm', ground: 'doubt' }
  if (acc.value.voters[s.node] !== s.durable.inc) return null
  // The proposer of an accepted value was not heard of again: read whether it was chosen.
  if (acc.ballot > knownBallot(s) && now - s.acceptedAt > s.timing.resendMs * 2)
    return { change: 'confirm', ground: 'doubt' }
  if (!confirmed(s) && mayRead(s, now)) return { change: 'confirm', ground: 'boot' }
  if (!holdsOffice(s)) return null
  return officeWants(s, turn)
}

/**
 * Resigned a moment ago: the backup stands now, and reads what is in doubt as it does. A round of this host would have the
 * higher ballot, stand in its way, and change nothing that could be served here.
 */
const leavesTheRegister = (s: HostState, now: number): boolean =>
  isResigned(s) && now - s.duty.resignedAt <= s.timing.abdicateAfterMs

/**
 * After a boot or a pause the backup reads the register as soon as it hears the primary and has no change of it before
 * itself: until then it can be neither made the successor nor handed the place. With nobody heard it waits out its start:
 * a primary that starts too needs its own read first, and the higher ballot would win.
 */
const mayRead = (s: HostState, now: number): boolean =>
  holdsOffice(s) ||
  now >= s.backup.quarantineUntil ||
  (hearsPrimary(s, now) && s.durable.acc?.ballot === knownBallot(s))

const hearsPrimary = (s: HostState, now: number): boolean =>
  s.backup.heardAt > 0 && now - s.backup.heardAt < s.timing.silenceMs

/** A voter whose answer would seal a forced takeover. A store of the other host that is gone answers nothing: it is removed first. */
const canBeSealed = (s: HostState, voters: Voters): boolean => {
  const overruled = s.durable.overruled?.voters
  if (overruled === undefined || isSealed(s) || wrongPeer(s) !== null) return false
  return ([s.peer, 'w'] as const).some(node => votesIn(overruled, node, voters[node]))
}

function officeWants(s: HostState, turn: Turn): Proposal | null {
  const { now } = turn
  const known = knownValue(s)
  if (known === null) return null
  // Nobody took over: take the eligibility back, then the database may be started in place.
  if (isResigned(s)) return { change: 'shrink', ground: 'resigned' }
  if (canBeSealed(s, known.voters)) return { change: 'confirm', ground: 'seal' }
  if (s.vacate !== null) return { change: 'handover', ground: 'released' }
  if (known.successor) {
    const ground = shrinkGround(turn)
    return ground === null ? null : { change: 'shrink', ground }
  }
  return memberWish(s, now) ?? (readyToGrow(s, now) === null ? { change: 'grow', ground: 'ready' } : null)
}

/** Why S must not succeed any longer, or null. */
function shrinkGround(turn: Turn): Ground | null {
  const { s, now } = turn
  const { duty, lease } = s
  if (silenceMs(s, now) >= s.timing.prepareAfterMs) return 'silent'
  if (isStalled(s)) return 'stalled'
  if (lease.replicaGoneAt > 0 && now - lease.replicaGoneAt >= s.timing.silenceMs) return 'replica gone'
  if (duty.maintenanceUntil > now) return 'maintenance'
  if (peerIsLeaving(s)) return 'leave'
  if (witnessIsAway(turn)) return 'witness away'
  return memberWish(s, now) !== null || unwantedMember(s) ? 'member change' : null
}

/** A member whose store was lost, or a witness that is no longer the wanted one. */
const unwantedMember = (s: HostState): boolean => wrongPeer(s) !== null || wrongWitness(s) !== null

const wrongPeer = (s: HostState): string | null => {
  const admitted = peerVoter(s)
  const shown = s.lease.ack?.inc
  return admitted !== null && shown !== undefined && shown !== admitted ? admitted : null
}
const wrongWitness = (s: HostState): string | null => {
  const admitted = witnessVoter(s)
  return admitted !== null && admitted !== s.witness.wanted ? admitted : null
}

/** Members change one at a time, under a primary that serves by its own right. */
function memberWish(s: HostState, now: number): Proposal | null {
  const known = knownValue(s)
  if (known === null || known.successor || rightToServe(s, now) === null) return null
  const change = (kind: 'add' | 'remove', node: 'w' | 'a' | 'b', inc: string): Proposal => ({
    change: kind,
    ground: 'member change',
    member: { node, inc },
  })
  const oldPeer = wrongPeer(s)
  if (oldPeer !== null) return change('remove', s.peer, oldPeer)
  const departs = s.lease.ack?.asks === 'depart'
  const member = peerVoter(s)
  if (departs && member !== null) return change('remove', s.peer, member)
  const oldWitness = wrongWitness(s)
  if (oldWitness !== null) return change('remove', 'w', oldWitness)
  if (known.voters.w === undefined && s.witness.wanted !== null) return change('add', 'w', s.witness.wanted)
  const { ack } = s.lease
  if (known.voters[s.peer] !== undefined || departs) return null
  if (ack?.streaming && now - s.lease.ackAt < s.timing.silenceMs) {
    const onTimeline = ack.flushed.timeline === s.database.view.end.timeline && s.database.view.sender !== null
    if (onTimeline) return change('add', s.peer, ack.inc)
  }
  return null
}

/** What stands between this pair and protection, for people: the register's or the backup's obstacle. */
export function obstacleToProtection(s: HostState, now: number): string | null {
  if (!isPrimary(s)) return null
  return knownValue(s)?.successor === true ? backupIsHealthy(s, now) : readyToGrow(s, now)
}
