import { assert, unreachable } from '../assert.ts'
import { accept } from './acceptor.ts'
import { driveCandidacy, driveGreeting, onResign } from './backup.ts'
import { genOf, roundOf } from './ballot.ts'
import { driveDatabase, onDatabaseDone, onView } from './database.ts'
import { driveRegister } from './duties.ts'
import { freezeGate } from './effects.ts'
import {
  acceptedValue,
  holdsOffice,
  inDoubt,
  knownBallot,
  knownValue,
  nobodyMaySucceed,
  peerIsLeaving,
} from './facts.ts'
import { driveAddresses, driveGate, onGateReport } from './gatekeeper.ts'
import { checkInvariants } from './invariants.ts'
import {
  considerAbdication,
  driveHeartbeat,
  endAbdication,
  onAck,
  onHeartbeat,
  writeHung,
  yieldToHigherGen,
} from './lease.ts'
import { enforceAccepted } from './obedience.ts'
import { onOperator } from './operator.ts'
import { driveRound, endOutbidRound, endRound, learn, onReply } from './proposer.ts'
import type { HostState } from './state.ts'
import { beginTurn, persist, say, send, type Turn } from './turn.ts'
import type { Event, Message, NodeId, RegisterRequest, StepResult, Value } from './types.ts'
import { considerFailure, driveResignation, driveVacating, onAsked } from './vacating.ts'
import { considerUnpin, driveWitness, onWitnessAnswer } from './witness-link.ts'

export { newHost } from './state.ts'

/**
 * One step of a data host: take the event in, then do what follows from the state. Pure: the same state and event give
 * the same result, and neither is changed.
 */
export function step(state: HostState, event: Event): StepResult<HostState> {
  const turn = beginTurn(state, event)
  if (event.event === 'start') start(turn, event)
  else if (!state.started) return { state, effects: [], why: [] }
  else take(turn, event)
  decide(turn)
  checkInvariants(state, turn)
  return { state: turn.s, effects: turn.effects, why: turn.why }
}

/** What follows from the state, whichever event brought it about. The order is that of urgency: shut first, open last. */
function decide(turn: Turn): void {
  followOffice(turn)
  considerFailure(turn)
  driveVacating(turn)
  driveRound(turn)
  considerUnpin(turn)
  driveGreeting(turn)
  driveCandidacy(turn)
  driveRegister(turn)
  considerAbdication(turn)
  driveDatabase(turn)
  driveGate(turn)
  driveAddresses(turn)
  driveHeartbeat(turn)
  driveResignation(turn)
  driveWitness(turn)
  driveStore(turn)
}

/**
 * A register that is not written for a while is written as it is: a disk that died or hangs shows before it is needed.
 * Promises of an earlier profile with longer leases are over when the wait of this start is.
 */
function driveStore(turn: Turn): void {
  const { s, now } = turn
  if (s.durable.acc === null || s.persist.pending.length > 0) return
  if (s.durable.leaseMs > s.timing.leaseMs && now >= s.backup.quarantineUntil)
    persist(turn, { leaseMs: s.timing.leaseMs })
  else if (now - s.persist.newestAt >= s.timing.storeProbeMs) persist(turn, {})
}

function take(turn: Turn, event: Event): void {
  const { s, now } = turn
  switch (event.event) {
    case 'tick':
      return
    case 'message':
      onMessage(turn, event.from, event.message)
      return
    case 'persisted': {
      const done = Math.max(s.persist.done, event.seq)
      const hung = writeHung(s, now)
      s.persist = { ...s.persist, done, pending: s.persist.pending.filter(one => one.seq > done), hung }
      // Tried at once with the same content: only a write that ends in time shows that this host can go on.
      if (hung && s.persist.pending.length === 0) persist(turn, {})
      return
    }
    case 'view':
      onView(turn, event.view)
      return
    case 'databaseDone':
      onDatabaseDone(turn, event.id, event.result)
      return
    case 'gate':
      onGateReport(turn, event.seq, event.report)
      return
    case 'clockJump':
      onClockJump(turn, event.nonce)
      return
    case 'witness':
      s.witness = {
        ...s.witness,
        wanted: event.inc,
        probeAt: now,
        probeReq: 0,
        unansweredAt: 0,
        answeredAt: 0,
        backAt: 0,
      }
      return
    case 'uplink':
      s.uplink = event.up
      return
    case 'operator':
      onOperator(turn, event.command, event.ask ?? 0)
      return
    case 'start':
      return
    default:
      unreachable(event)
  }
}

function start(turn: Turn, event: Event & { event: 'start' }): void {
  const { s, now } = turn
  assert(!s.started, 'a host starts once')
  s.started = true
  s.startedAt = now
  s.boot = event.boot
  s.nonce = event.nonce
  s.durable = { ...event.durable, leaseMs: Math.max(event.durable.leaseMs, s.timing.leaseMs) }
  s.nSeen = Math.max(roundOf(event.durable.promised), roundOf(event.durable.lastOwn))
  // What was promised before counts as long as it may have been promised for.
  s.backup = { ...s.backup, quarantineUntil: now + s.durable.leaseMs }
  s.gate = { ...s.gate, report: event.gate, grantUntil: event.gate.expiresUntil, set: 'untouched' }
  s.vip = { up: 'unknown', downAt: 0 }
  s.database = { ...s.database, view: event.view, ran: event.view.process === 'primary' }
  s.witness = { ...s.witness, wanted: event.witness }
  s.duty = { ...s.duty, resignedAt: now }
  s.lease = { ...s.lease, primaryAt: now, progressAt: now, nextBeatAt: now }
  s.openGrow = inDoubt(s) ? s.durable.lastOwn : 0
  if (inDoubt(s) && knownValue(s)?.primary === s.peer) {
    // It may have stood when it stopped: nothing is acknowledged until that is settled.
    s.backup = { ...s.backup, candidacy: true }
  }
  say(
    turn,
    `started in boot ${event.boot}: ${knownValue(s) === null ? 'nothing is known of the register' : `the register was last known at version ${knownValue(s)?.version}, epoch ${knownValue(s)?.epoch}, primary ${knownValue(s)?.primary}`}`,
  )
  // Not the primary: nothing that was left open stays so. Otherwise a found grant is left alone until all is proven.
  if (!holdsOffice(s)) freezeGate(turn, 'the role is unknown until the register is read')
  // Nor over a database that is not the one that served: started anew it shows and acknowledges what the backup has not got.
  else if (event.view.process !== 'primary') freezeGate(turn, `the database is ${event.view.process}`)
  const accepted = acceptedValue(s)
  if (accepted !== null) enforceAccepted(turn, accepted)
  // A write of the same content: until it has ended well this host binds nobody, see `hasWritten`.
  persist(turn, {})
}

/** The host was suspended or paused: as after a boot, in one step. Answers from before the pause must confirm nothing. */
function onClockJump(turn: Turn, nonce: number): void {
  const { s, now } = turn
  freezeGate(turn, 'the clocks show that this host stood still')
  if (s.round !== null) endRound(turn, 'the clocks jumped')
  s.nonce = nonce
  s.lease = {
    ...s.lease,
    leaseUntil: 0,
    beats: [],
    ack: null,
    ackAt: 0,
    ackSentAt: 0,
    promisedAt: 0,
    primaryAt: now,
    progressAt: now,
  }
  // As at the start: a promise under an earlier profile may still run.
  s.backup = { ...s.backup, quarantineUntil: now + s.durable.leaseMs }
  s.roundAfterAt = now
  persist(turn, { confirmedBoot: '' })
}

function onMessage(turn: Turn, from: NodeId, message: Message): void {
  const { s } = turn
  if (from === s.node) return
  if (from === s.peer) endAbdication(turn, 'the other host is heard')
  switch (message.kind) {
    case 'prepare':
    case 'accept':
    case 'cas':
    case 'read':
      onRequest(turn, from, message)
      return
    case 'promise':
    case 'accepted':
    case 'nack':
    case 'state': {
      const admitted = admittedInc(s, from)
      if (
        from === 'w'
          ? message.inc !== admitted && message.inc !== s.witness.wanted
          : message.inc !== admitted && !isBeingAdded(s, from, message.inc)
      )
        return
      if (message.kind === 'nack' && genOf(message.promised) > genOf(s.durable.promised))
        yieldToHigherGen(turn, genOf(message.promised))
      if (from === 'w' && !onWitnessAnswer(turn, message)) return
      onReply(turn, from, message)
      return
    }
    case 'learn':
      learn(turn, message.ballot, message.value)
      return
    case 'heartbeat':
      onHeartbeat(turn, message)
      return
    case 'ack':
      if (onAck(turn, message) && message.asks === 'switchover') onAsked(turn)
      return
    case 'resign':
      onResign(turn, message)
      return
    default:
      unreachable(message)
  }
}

const admittedInc = (s: HostState, node: NodeId): string | undefined =>
  s.durable.acc?.value.voters[node] ?? s.durable.known?.value.voters[node]

const isBeingAdded = (s: HostState, node: NodeId, inc: string): boolean =>
  s.round?.value?.voters[node] === inc || s.round?.best?.value.voters[node] === inc

/** This host's own acceptor. What the value demands is done, and the answer is durable, before the answer leaves. */
function onRequest(turn: Turn, from: NodeId, request: RegisterRequest): void {
  const { s } = turn
  const before = s.durable
  const result = accept(before, request)
  if (result.reply === null) return
  s.nSeen = Math.max(s.nSeen, 'ballot' in request ? roundOf(request.ballot) : 0)
  if (result.changed) {
    const { promised, acc } = result.state
    if (request.kind === 'accept' && acc !== null) {
      enforceAccepted(turn, acc.value)
      const known = chosenByUs(s, before.acc?.value ?? null, acc.value) ? { known: acc } : {}
      s.acceptedAt = turn.now
      persist(turn, { promised, acc, ...known })
    } else persist(turn, { promised, acc })
    if (s.round !== null && promised > s.round.ballot) endOutbidRound(turn, `${from} has a higher ballot`)
  }
  send(turn, from, result.reply)
}

/**
 * A Handover accepted from the primary is chosen: the proposer had accepted it durably before it sent it, this host
 * accepts it now, and two of the same members are a majority. One trip less before the promotion.
 */
function chosenByUs(s: HostState, before: Value | null, value: Value): boolean {
  if (value.primary !== s.node || before?.primary !== s.peer) return false
  const members = ['a', 'b', 'w'] as const
  return (
    value.voters[s.node] === s.durable.inc &&
    value.voters[s.peer] !== undefined &&
    members.every(node => value.voters[node] === before.voters[node])
  )
}

/** A change of office resets what belonged to the old one. */
function followOffice(turn: Turn): void {
  const { s, now } = turn
  const known = knownValue(s)
  const office = holdsOffice(s) && known !== null ? `${known.gen}.${known.epoch}` : ''
  if ((s.duty.said.office ?? '') !== office) {
    s.duty = { ...s.duty, said: { ...s.duty.said, office }, asksSwitchoverUntil: 0, regrowMs: 0, regrowAt: 0 }
    s.lease = {
      ...s.lease,
      primaryAt: now,
      progressAt: now,
      abdicated: false,
      leaseUntil: 0,
      promisedAt: 0,
      ack: null,
      nextBeatAt: now,
      replicaGoneAt: 0,
    }
    s.backup = { ...s.backup, heartbeat: null, resignHeard: 0 }
    // Whoever has just left office gives the new primary the time of a lease to be heard.
    s.backup = {
      ...s.backup,
      quarantineUntil: Math.max(s.backup.quarantineUntil, office === '' ? now + s.timing.leaseMs : 0),
    }
    // What it had put off as a backup, most of all to follow the other host in vain, must not hold its own start up.
    if (office !== '') s.database = { ...s.database, retryAt: 0, failures: 0 }
    if (office !== '') say(turn, `in office: primary of epoch ${known?.epoch}, gen ${known?.gen}`)
  }
  if (s.openGrow !== 0 && s.openGrow <= knownBallot(s)) s.openGrow = 0
  followSuccessor(turn)
}

/**
 * A lost backup has to stay for a while before it is made eligible again, longer each time it is lost soon after. One that
 * said that it goes, or that was made ineligible for maintenance or for want of the witness, was not lost.
 */
function followSuccessor(turn: Turn): void {
  const { s, now } = turn
  const known = knownValue(s)
  if (known === null || !holdsOffice(s)) return
  const key = `${known.version}.${known.successor}`
  const before = s.duty.said.successor ?? ''
  if (before === key) return
  const planned = peerIsLeaving(s) || s.duty.maintenanceUntil > now || s.witness.pinned
  const lost = before.endsWith('true') && nobodyMaySucceed(s) && !planned
  const calm = now - s.duty.shrunkAt > s.timing.regrowForgetMs
  const regrowMs = !lost
    ? s.duty.regrowMs
    : calm || s.duty.regrowMs === 0
      ? s.timing.regrowAfterMs
      : Math.min(s.duty.regrowMs * 2, s.timing.regrowMaxMs)
  s.duty = {
    ...s.duty,
    regrowMs,
    shrunkAt: lost ? now : s.duty.shrunkAt,
    regrowAt: lost ? now + regrowMs : s.duty.regrowAt,
    said: { ...s.duty.said, successor: key },
  }
}
