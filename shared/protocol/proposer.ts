import { assert } from '../assert.ts'
import { ballotOf, genOf, roundOf, showBallot } from './ballot.ts'
import { readiness, takeover } from './changes.ts'
import {
  acceptedValue,
  isOlder,
  isOutvoted,
  isSealed,
  knownBallot,
  knownValue,
  quorumOf,
  votesIn,
  withSeen,
  witnessReach,
} from './facts.ts'
import { otherNode } from './nodes.ts'
import { enforceAccepted } from './obedience.ts'
import type { Change, Ground, HostState, Round } from './state.ts'
import { backoff, persist, say, send, type Turn } from './turn.ts'
import type { Accepted, Ballot, Incarnation, NodeId, RegisterReply, Value, Voters } from './types.ts'

/**
 * The proposer of a data host: one round at a time, each with a time limit, always with a new ballot.
 * Phase 1 asks the other voters; an own promise counts, the answer of a foreign incarnation does not. Phase 2 accepts
 * and persists locally first. The one-trip form through W's compare-and-set serves a Takeover only: there W first.
 */
export interface Proposal {
  change: Change
  ground: Ground
  member?: { node: NodeId; inc: Incarnation }
  resigned?: number
}

export function beginRound(turn: Turn, proposal: Proposal): void {
  const { s, now } = turn
  const acc = s.durable.acc
  assert(acc !== null, 'a round needs an accepted value to start from')
  assert(s.round === null, 'one round at a time')
  const gen = genOf(Math.max(acc.ballot, s.durable.promised))
  const n = 1 + Math.max(s.nSeen, roundOf(s.durable.promised), roundOf(acc.ballot), roundOf(s.durable.lastOwn))
  const ballot = ballotOf({ gen, n, node: s.node })
  s.nSeen = n
  s.req += 1
  s.round = {
    ballot,
    change: proposal.change,
    ground: proposal.ground,
    phase: 'prepare',
    startedAt: now,
    sentAt: now,
    req: s.req,
    promises: { [s.node]: { inc: s.durable.inc, acc } },
    best: null,
    value: null,
    accepts: {},
    member: proposal.member ?? null,
    resigned: proposal.resigned ?? 0,
  }
  persist(turn, { promised: ballot, lastOwn: ballot })
  say(turn, `began a round to ${proposal.change} (${proposal.ground}) with ballot ${showBallot(ballot)}`)
  if (proposal.change === 'takeover') tryOneTrip(turn, acc)
  sendRequests(turn)
  considerPromises(turn)
}

/** Takeover where this host's own accepted value already allows it and W is at hand: prepare and accept in one trip. */
function tryOneTrip(turn: Turn, acc: Accepted): void {
  const { s } = turn
  const round = s.round
  assert(round !== null, 'a round is open')
  const { w } = acc.value.voters
  if (w === undefined || witnessReach(s, turn.now) === 'no') return
  // W has answered higher before: its value is another one, or it was set back, which only its answer to phase 1 shows.
  if (acc.ballot < (s.durable.wSeen[w] ?? 0)) return
  const ready = takeover(s, round, acc.value)
  if (ready.at !== 'go') return
  s.round = { ...round, phase: 'cas', best: acc, value: ready.value }
}

/** Every step while a round is open: send again what is unanswered, go on when the change is ready, end what takes too long. */
export function driveRound(turn: Turn): void {
  const { s, now } = turn
  if (s.round === null) return
  if (now - s.round.startedAt > s.timing.roundLimitMs) {
    endRound(turn, `no quorum within ${s.timing.roundLimitMs} ms`)
    return
  }
  considerReady(turn)
  if (s.round !== null && now - s.round.sentAt >= s.timing.resendMs) {
    s.round = { ...s.round, sentAt: now }
    sendRequests(turn)
  }
}

export function endRound(turn: Turn, why: string): void {
  const { s } = turn
  if (s.round === null) return
  say(turn, `the round to ${s.round.change} with ballot ${showBallot(s.round.ballot)} ended: ${why}`)
  s.round = null
  s.roundAfterAt = backoff(turn, s.timing.backoffMs)
}

/** A higher ballot is known, and with it how far to go: the next try needs no long wait, only a random one. */
export function endOutbidRound(turn: Turn, why: string): void {
  endRound(turn, why)
  turn.s.roundAfterAt = backoff(turn, turn.s.timing.resendMs)
}

function sendRequests(turn: Turn): void {
  const { round, durable, node } = turn.s
  if (round === null) return
  const { ballot, req } = round
  if (round.phase === 'cas') {
    assert(round.best !== null && round.value !== null, 'one trip has its value from the start')
    const inc = round.best.value.voters.w
    if (inc !== undefined)
      send(turn, 'w', { kind: 'cas', req, inc, ballot, expect: round.best.ballot, value: round.value })
    return
  }
  if (round.phase === 'ready') return
  const targets: Voters =
    round.phase === 'accept'
      ? { ...round.best?.value.voters, ...round.value?.voters }
      : { ...durable.known?.value.voters, ...durable.acc?.value.voters }
  for (const to of ['a', 'b', 'w'] as const) {
    const inc = targets[to]
    if (to === node || inc === undefined) continue
    if (round.phase === 'prepare') {
      if (round.promises[to] === undefined) send(turn, to, { kind: 'prepare', req, inc, ballot })
    } else if (round.accepts[to] !== inc) {
      assert(round.value !== null, 'phase 2 has a value')
      send(turn, to, { kind: 'accept', req, inc, ballot, value: round.value })
    }
  }
}

/** An answer of an acceptor to the open round. Answers to older rounds still teach how far ballots have gone. */
export function onReply(turn: Turn, from: NodeId, reply: RegisterReply): void {
  const { s } = turn
  if (reply.kind === 'accepted') considerSeal(turn, from, reply)
  if (reply.kind === 'nack') {
    s.nSeen = Math.max(s.nSeen, roundOf(reply.promised))
    if (s.round === null || reply.ballot !== s.round.ballot) return
    endOutbidRound(turn, `${from} has promised ${showBallot(reply.promised)}`)
    return
  }
  if (reply.kind === 'state') return
  const round = s.round
  if (round === null || reply.ballot !== round.ballot) return
  if (reply.kind === 'promise') {
    if (round.phase === 'accept') return
    if (round.phase === 'cas') {
      // W promised, but holds another value than this host expected: what it answered is its answer to phase 1.
      s.round = { ...round, phase: 'prepare', best: null, value: null, promises: { ...round.promises, [from]: reply } }
      sendRequests(turn)
    } else {
      s.round = { ...round, promises: { ...round.promises, [from]: { inc: reply.inc, acc: reply.acc } } }
    }
    considerPromises(turn)
    return
  }
  if (round.phase === 'cas') acceptAfterWitness(turn, reply.inc)
  else if (round.phase === 'accept') {
    s.round = { ...round, accepts: { ...round.accepts, [from]: reply.inc } }
    considerCommit(turn)
  }
}

/**
 * A member that has accepted a value of a forced gen helps no older value to a majority any more; nor does a store of the
 * other host that was replaced since. (A replaced row of W may still be there, and does.) Accepted, not promised: a promise
 * in the new gen's ballots is given to a proposer of the old one too. One such answer is always enough, see isOutvoted.
 */
function considerSeal(turn: Turn, from: NodeId, reply: { inc: Incarnation; ballot: Ballot }): void {
  const { s } = turn
  const { overruled, inc, known } = s.durable
  if (overruled === null || isSealed(s)) return
  const answered = [s.round, known].find(one => one?.ballot === reply.ballot)
  if (answered?.value?.gen !== overruled.gen || !votesIn(overruled.voters, from, reply.inc)) return
  if (!isOutvoted(overruled.voters, overruled.voters[s.node] === inc ? [s.node, from] : [from])) return
  persist(turn, { overruled: null })
  say(turn, `gen ${overruled.gen} is sealed: ${from} helps no older one any more`)
}

/** One trip: W has it; accepted locally only if nothing overtook the ballot meanwhile. */
function acceptAfterWitness(turn: Turn, witnessInc: Incarnation): void {
  const { s } = turn
  const round = s.round
  assert(round !== null && round.value !== null, 'one trip has its value from the start')
  if (s.durable.promised !== round.ballot) {
    endRound(turn, `this host has promised ${showBallot(s.durable.promised)} meanwhile`)
    return
  }
  s.round = { ...round, phase: 'accept', accepts: { w: witnessInc } }
  acceptLocally(turn, round.ballot, round.value)
}

function considerPromises(turn: Turn): void {
  const { s } = turn
  const round = s.round
  if (round === null || round.phase !== 'prepare') return
  let best: Accepted | null = null
  for (const promise of Object.values(round.promises)) {
    if (promise.acc !== null && (best === null || promise.acc.ballot > best.ballot)) best = promise.acc
  }
  assert(best !== null, 'an own promise carries a value')
  if (!hasPromisesFor(s, round, best)) return
  s.round = { ...round, phase: 'ready', best }
  considerReady(turn)
}

/**
 * A majority of the best value's voters; or of the known value's, where the best one is its very next version: two
 * member sets that differ by one member have no two majorities apart. Without this an Add whose Accept was lost could
 * never be driven again: the new member has accepted nothing yet, so it answers no Prepare.
 */
function hasPromisesFor(s: HostState, round: Round, best: Accepted): boolean {
  const incs = incsOf(round)
  if (quorumOf(best.value.voters, incs)) return true
  const known = knownValue(s)
  return (
    known !== null &&
    known.gen === best.value.gen &&
    best.value.version === known.version + 1 &&
    quorumOf(known.voters, incs)
  )
}

const incsOf = (round: Round): Voters => ({
  ...(round.promises.a && { a: round.promises.a.inc }),
  ...(round.promises.b && { b: round.promises.b.inc }),
  ...(round.promises.w && { w: round.promises.w.inc }),
})

/** Phase 1 is done: commit the change, wait for it to become allowed, or commit the best value as it is. */
function considerReady(turn: Turn): void {
  const { s, now } = turn
  const round = s.round
  if (round === null || round.phase !== 'ready') return
  assert(round.best !== null, 'phase 1 is done')
  if (s.durable.promised !== round.ballot) {
    endRound(turn, `this host has promised ${showBallot(s.durable.promised)} meanwhile`)
    return
  }
  const ready = readiness(s, round, round.best, now)
  if (ready.at === 'wait') return
  if (ready.at === 'refused') {
    say(turn, `did not ${round.change}: ${ready.why}`)
    // A quorum has promised this ballot, so no older Grow can be chosen any more; and for a new one the primary needs an
    // answer of this host to a heartbeat, which ends the pause. Asked each lease, W would be written for hours for nothing.
    if (round.change === 'takeover' && !round.best.value.successor)
      s.backup = { ...s.backup, candidacyAfterAt: backoff(turn, s.timing.refusedPauseMs) }
  }
  const value = ready.at === 'go' ? ready.value : round.best.value
  s.round = { ...round, phase: 'accept', value, sentAt: now, change: ready.at === 'go' ? round.change : 'confirm' }
  if (s.round.change === 'grow' || (value.successor && value.primary === s.node)) {
    // From the moment the Accept leaves, a Grow (or one that is driven again) can be chosen.
    s.openGrow = round.ballot
  }
  acceptLocally(turn, round.ballot, value)
  sendRequests(turn)
}

/** The own vote, first and durable. A value that names the other host shuts the gate and kills the database before anything is sent. */
function acceptLocally(turn: Turn, ballot: Ballot, value: Value): void {
  const { s } = turn
  const round = s.round
  assert(round !== null, 'a round is open')
  s.round = { ...round, accepts: { ...round.accepts, [s.node]: s.durable.inc } }
  const wInc = round.accepts.w
  const wSeen = wInc === undefined ? s.durable.wSeen : withSeen(s, wInc, ballot)
  enforceAccepted(turn, value)
  persist(turn, { acc: { ballot, value }, wSeen })
  considerCommit(turn)
}

function considerCommit(turn: Turn): void {
  const { s } = turn
  const round = s.round
  if (round === null || round.phase !== 'accept' || round.value === null || round.best === null) return
  if (!quorumOf(round.best.value.voters, round.accepts) || !quorumOf(round.value.voters, round.accepts)) return
  const { ballot, value, change } = round
  const wInc = round.accepts.w
  const wSeen = wInc === undefined ? s.durable.wSeen : withSeen(s, wInc, ballot)
  s.round = null
  // Committed, but not by the member whose answer would seal a forced takeover: it is asked again, without haste.
  s.roundAfterAt = round.ground === 'seal' && !isSealed(s) ? backoff(turn, s.timing.backoffMs) : 0
  s.lease = { ...s.lease, progressAt: turn.now }
  if (change === 'shrink' && round.ground === 'witness away')
    s.witness = { ...s.witness, pinned: true, backAt: turn.now }
  say(turn, `committed ${change}: ${describe(value)} with ballot ${showBallot(ballot)}`)
  const known = ballot > knownBallot(s) ? { ballot, value } : s.durable.known
  persist(turn, { known, confirmedBoot: s.boot, wSeen })
  tellCommitted(turn)
}

/** Everybody else who votes, or did, hears of it; a lost message is made good whenever a member shows an older value. */
export function tellCommitted(turn: Turn): void {
  const { durable, node } = turn.s
  if (durable.known === null) return
  const { ballot, value } = durable.known
  const peer = otherNode(node)
  send(turn, peer, { kind: 'learn', ballot, value })
}

export const describe = (v: Value): string =>
  `version ${v.version}, epoch ${v.epoch}, gen ${v.gen}, primary ${v.primary}, ${v.successor ? 'with' : 'without'} a successor, voters ${Object.keys(v.voters).join(' ')}`

/** A committed value heard of: raises known and, if newer, acc. It never confirms a boot and never admits a store. */
export function learn(turn: Turn, ballot: Ballot, value: Value): void {
  const { s } = turn
  const known = knownValue(s)
  s.nSeen = Math.max(s.nSeen, roundOf(ballot))
  if (ballot <= knownBallot(s)) return
  assert(
    known === null || !isOlder(value, known),
    `a later ballot was committed with an older value: ${describe(value)}`,
  )
  if (s.durable.acc === null && value.voters[s.node] !== s.durable.inc) return
  const newer = ballot > (s.durable.acc?.ballot ?? 0)
  if (newer) enforceAccepted(turn, value)
  say(turn, `learned ${describe(value)}`)
  persist(turn, { known: { ballot, value }, ...(newer && { acc: { ballot, value } }) })
  if (s.round !== null && ballot >= s.round.ballot) endRound(turn, 'a later value is committed')
}

/** True while this host's store holds anything at all. */
export const hasVoice = (s: HostState): boolean => acceptedValue(s) !== null
