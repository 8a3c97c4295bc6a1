import { genOf } from './ballot.ts'
import type { HostState } from './state.ts'
import type { Incarnation, NodeId, Value, Voters, WalPosition } from './types.ts'

/** What follows from a host's state, read by every rule. No function here changes anything. */

const nodes: readonly NodeId[] = ['a', 'b', 'w']

export const acceptedValue = (s: HostState): Value | null => s.durable.acc?.value ?? null
export const knownValue = (s: HostState): Value | null => s.durable.known?.value ?? null
export const knownBallot = (s: HostState): number => s.durable.known?.ballot ?? 0

export const sameReign = (x: { gen: number; epoch: number }, y: { gen: number; epoch: number }): boolean =>
  x.gen === y.gen && x.epoch === y.epoch

/** (gen, epoch, version), compared in this order. */
export function isOlder(
  x: { gen: number; epoch: number; version: number },
  y: { gen: number; epoch: number; version: number },
): boolean {
  if (x.gen !== y.gen) return x.gen < y.gen
  if (x.epoch !== y.epoch) return x.epoch < y.epoch
  return x.version < y.version
}

/** From the known version, or from it and the very next one: a Shrink whose fate was not known here, see `shrinkInDoubt`. */
export function isResigned(s: HostState): boolean {
  const known = knownValue(s)
  const { resigned } = s.durable
  if (resigned === 0 || known === null || known.primary !== s.node) return false
  return resigned === known.version || resigned === known.version + 1
}

/** An own Shrink that may have been chosen. Nothing was done in its name: names are emptied once it is known committed. */
export function shrinkInDoubt(s: HostState): Value | null {
  const known = knownValue(s)
  const acc = acceptedValue(s)
  if (known === null || acc === null || !known.successor || acc.successor || acc.version !== known.version + 1)
    return null
  return sameReign(known, acc) && acc.primary === s.node && known.primary === s.node ? acc : null
}

/** Known and accepted value agree on gen and epoch, name this host, and its store is an admitted one. */
export function holdsOffice(s: HostState): boolean {
  const known = knownValue(s)
  const acc = acceptedValue(s)
  return (
    known !== null &&
    acc !== null &&
    known.primary === s.node &&
    acc.primary === s.node &&
    sameReign(known, acc) &&
    known.voters[s.node] === s.durable.inc
  )
}

/** Primary: in office and not resigned. */
export const isPrimary = (s: HostState): boolean => holdsOffice(s) && !isResigned(s)

/** Backup: the committed and the accepted value both name the other host. */
export const isBackup = (s: HostState): boolean =>
  knownValue(s)?.primary === s.peer && acceptedValue(s)?.primary === s.peer

/** The accepted value names the other host: nothing may serve here, whatever is known to be committed. */
export const otherIsNamed = (s: HostState): boolean => acceptedValue(s)?.primary === s.peer

export const confirmed = (s: HostState): boolean => s.boot !== '' && s.durable.confirmedBoot === s.boot

/** An own proposal may still be chosen. */
export const inDoubt = (s: HostState): boolean => s.durable.lastOwn > knownBallot(s)

/** The other host cannot win a Takeover: not in the committed value, not in the accepted one, not by an own open change. */
export function nobodyMaySucceed(s: HostState): boolean {
  return knownValue(s)?.successor === false && acceptedValue(s)?.successor === false && s.openGrow <= knownBallot(s)
}

export const holdsLease = (s: HostState, now: number): boolean => s.lease.leaseUntil > now

/** By what right this host may serve, as far as the register and the lease go. */
export function rightToServe(s: HostState, now: number): 'lease' | 'nobody may succeed' | null {
  if (!isPrimary(s) || isOverruled(s)) return null
  if (nobodyMaySucceed(s) && confirmed(s)) return 'nobody may succeed'
  return holdsLease(s, now) ? 'lease' : null
}

/** While the other host may succeed, no commit may be acknowledged and nothing shown that it has not got. */
export const syncRequired = (s: HostState): boolean => !nobodyMaySucceed(s)

/** Synchronous replication is proven in force, and the admitted backup has flushed everything from before. */
export const barrierPassed = (s: HostState): boolean =>
  s.database.barrier !== null && s.database.passedBy !== '' && s.database.passedBy === peerVoter(s)

/** The running cluster was started, or promoted, for the epoch in force. */
export const ownEpoch = (s: HostState): boolean => s.database.view.epoch === knownValue(s)?.epoch

/** Restarts in place are few: a database that keeps dying is better off on the other host. */
export const withinBudget = (s: HostState, now: number): boolean =>
  s.database.restartsAt.filter(at => now - at < s.timing.restartWindowMs).length < s.timing.restartBudget

export const databaseServes = (s: HostState): boolean =>
  s.database.view.process === 'primary' &&
  ownEpoch(s) &&
  (s.database.op === null || s.database.op.op.op === 'syncNames' || s.database.op.op.op === 'proveSync') &&
  (!syncRequired(s) || barrierPassed(s))

/** All that is needed for the gate to be open. */
export const mayOpen = (s: HostState, now: number): boolean =>
  rightToServe(s, now) !== null && s.vacate === null && databaseServes(s)

export const notBefore = (x: WalPosition, y: WalPosition): boolean =>
  x.timeline > y.timeline || (x.timeline === y.timeline && x.lsn >= y.lsn)

/** The log on disk, on the last acknowledged timeline or a later one, has all this host ever acknowledged. */
export const logIsWhole = (s: HostState): boolean => notBefore(s.database.view.end, s.durable.maxFlushed)

export const peerVoter = (s: HostState): Incarnation | null => knownValue(s)?.voters[s.peer] ?? null
export const witnessVoter = (s: HostState): Incarnation | null => knownValue(s)?.voters.w ?? null

/** The other host said that it goes, for a while or for good. */
export const peerIsLeaving = (s: HostState): boolean => s.lease.ack?.asks === 'leave' || s.lease.ack?.asks === 'depart'

/** This host asked to be no member any more, and is none. */
export const hasDeparted = (s: HostState): boolean =>
  s.duty.leaving === 'for good' && knownValue(s) !== null && knownValue(s)?.voters[s.node] !== s.durable.inc

/** The peer's newest answer comes from the store that was admitted. */
export const peerIsAdmitted = (s: HostState): boolean =>
  s.lease.ack !== null && peerVoter(s) !== null && s.lease.ack.inc === peerVoter(s)

/** For how long S has promised nothing, counted at P. */
export const silenceMs = (s: HostState, now: number): number => now - Math.max(s.lease.promisedAt, s.lease.primaryAt)

/**
 * After a forced takeover the other host may be let on: so many members of the value that was overruled hold the new gen, or
 * are gone, that those of the old one have no majority left. Whoever only followed knows it of itself: it is such a member.
 */
export function isSealed(s: HostState): boolean {
  const { overruled } = s.durable
  return overruled === null || overruled.gen !== knownValue(s)?.gen
}

/** Whether an answer of `node` with this store speaks for the place that it has among `voters`. */
export const votesIn = (voters: Voters, node: NodeId, inc: Incarnation | undefined): boolean =>
  inc !== undefined && voters[node] !== undefined && (node !== 'w' || voters.w === inc)

/** Whether those of `voters` that are not among `holders` are too few for a round in the old gen. */
export function isOutvoted(voters: Voters, holders: readonly NodeId[]): boolean {
  const members = nodes.filter(node => voters[node] !== undefined)
  return members.filter(node => !holders.includes(node)).length * 2 <= members.length
}

/**
 * A commit has waited for S for too long. No commit is quicker than the link: on a slow one the limit counts round trips,
 * as the newest answered heartbeat took, so that a lost segment which TCP sends again is not taken for a stuck backup.
 */
export const isStalled = (s: HostState): boolean => {
  const roundTripMs = Math.min(s.lease.ackAt - s.lease.ackSentAt, s.timing.leaseMs)
  return s.database.view.stalledMs >= s.timing.stallMs + stallRoundTrips * roundTripMs
}
/** One for the commit, two to four until TCP sends again what got lost (RFC 6298), and the same once more. */
const stallRoundTrips = 8

/**
 * The newest gen that this host has heard of, though perhaps of nothing that was decided in it: promised to another host, or
 * shown by an answer of W, which is asked every ten seconds.
 */
export function genHeard({ durable }: HostState): number {
  let gen = Math.max(durable.known?.value.gen ?? 0, durable.acc?.value.gen ?? 0, genOf(durable.promised))
  for (const inc in durable.wSeen) gen = Math.max(gen, genOf(durable.wSeen[inc] ?? 0))
  return gen
}

/**
 * A takeover was forced on the other host while this one was taken for off: it serves no more, and its database is dead, until
 * it has learned what was decided, or is forced itself. By its own word alone it would go on beside the other one for ever.
 */
export function isOverruled(s: HostState): boolean {
  const known = knownValue(s)
  return known !== null && genHeard(s) > known.gen
}

/** A takeover was forced elsewhere while this host had data of its own: an operator has to say that it may be given up. */
export function waitsForGiveUp(s: HostState): boolean {
  const known = knownValue(s)
  const { dataGen, gaveUpGen } = s.durable
  if (known === null || known.primary === s.node) return false
  return dataGen !== 0 && dataGen !== known.gen && gaveUpGen !== known.gen
}

export function quorumOf(voters: Voters, has: { [node in NodeId]?: Incarnation | undefined }): boolean {
  let size = 0
  let votes = 0
  for (const node of nodes) {
    if (voters[node] === undefined) continue
    size += 1
    if (has[node] === voters[node]) votes += 1
  }
  return size > 0 && votes * 2 > size
}

/**
 * What each witness has shown, one more noted. Those that are no voter and not wanted any more are replaced ones: of these the
 * newest few are kept, in case a configuration names one of them again.
 */
export function withSeen(s: HostState, inc: Incarnation, ballot: number): { [inc: string]: number } {
  const seen: { [inc: string]: number } = { ...s.durable.wSeen, [inc]: ballot }
  const used = [inc, witnessVoter(s), acceptedValue(s)?.voters.w, s.witness.wanted]
  const replaced = Object.keys(seen).filter(one => !used.includes(one))
  replaced.sort((x, y) => (seen[y] ?? 0) - (seen[x] ?? 0))
  for (const one of replaced.slice(witnessesKept)) delete seen[one]
  return seen
}
const witnessesKept = 8

/** W as this host sees it: an unanswered probe older than three seconds means no. */
export function witnessReach(s: HostState, now: number): 'yes' | 'no' | 'unknown' {
  if (s.witness.wanted === null) return 'no'
  if (s.witness.unansweredAt > 0 && now - s.witness.unansweredAt > witnessLateMs) return 'no'
  if (s.witness.answeredAt === 0) return 'unknown'
  return now - s.witness.answeredAt <= s.timing.witnessFreshMs ? 'yes' : 'no'
}
export const witnessLateMs = 3000
/** Between probes while W does not answer. */
export const witnessRetryMs = 1000
