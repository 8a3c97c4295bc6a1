import { genOf } from './ballot.ts'
import { closeGate, killDatabase } from './effects.ts'
import {
  acceptedValue,
  holdsLease,
  isOlder,
  isPrimary,
  knownValue,
  logIsWhole,
  peerVoter,
  rightToServe,
  sameReign,
  witnessReach,
} from './facts.ts'
import { tellCommitted } from './proposer.ts'
import type { HostState } from './state.ts'
import { persist, say, send, type Turn } from './turn.ts'
import type { Ack, Heartbeat, HeartbeatNote, PeerWish } from './types.ts'

/**
 * The lease between the two hosts, on monotonic clocks: P counts from when it *sent* a heartbeat, S promises from when
 * it *answered*. Heartbeats go on while there is no successor, so that a Grow leaves no gap.
 */
const beatsKept = 64

/** P: a heartbeat when one is due; after one missed ack five times as often until answered. */
export function driveHeartbeat(turn: Turn): void {
  if (turn.now >= turn.s.lease.nextBeatAt) beat(turn)
}

/** No heartbeat after a Resign, while abdicated, or while the own disk or database keeps this host from going on. */
const mayBeat = (s: HostState, now: number): boolean =>
  isPrimary(s) && !s.lease.abdicated && hasWritten(s) && !bindsInVain(s, now)

/** The other host would wait for one that cannot go on: its disk takes no write, or none in time since the last that hung. */
const bindsInVain = (s: HostState, now: number): boolean =>
  diskHangs(s, now) || s.persist.hung || handoverIsLate(s, now)

/**
 * The place is given up, but not handed over in time: the database's processes can't be proven dead, as they hang in a disk
 * that does not answer, or the disk is too slow for the writes that the rounds take. The gate is shut, and the other host,
 * if it is the successor, is left to take over when its promise ends.
 */
function handoverIsLate(s: HostState, now: number): boolean {
  const { vacate } = s
  if (vacate === null) return false
  if (vacate.end === null) return now - vacate.startedAt > s.timing.drainMs + s.timing.heartbeatMs
  return knownValue(s)?.successor === true && now - vacate.killedAt > s.timing.silenceMs
}

/**
 * This start has written its register once. An agent whose disk fails dies with each write and is started again: without
 * this each of its short lives would bind the other host for another lease, and nobody would ever serve.
 */
const hasWritten = (s: HostState): boolean => s.persist.done > 0

/** A durable write has been under way for too long: this host must not bind the other one any longer. */
export const diskHangs = (s: HostState, now: number): boolean =>
  now - (s.persist.pending[0]?.askedAt ?? now) > s.timing.persistLimitMs

/** Whether the write that ends now took too long; after one that did, only a quick one shows that the disk is well again. */
export function writeHung(s: HostState, now: number): boolean {
  const { pending, hung } = s.persist
  const limitMs = hung ? s.timing.persistLimitMs / 4 : s.timing.persistLimitMs
  return now - (pending[0]?.askedAt ?? now) > limitMs
}

/** A heartbeat now, where one is allowed. */
export function beat(turn: Turn): void {
  const { s, now } = turn
  const known = knownValue(s)
  if (known === null || !mayBeat(s, now)) return
  const seq = s.lease.seq + 1
  const silentMs = now - Math.max(s.lease.ackAt, s.lease.primaryAt)
  // A backup that has been away for long is not missed by a heartbeat, and is found by the next one.
  const unanswered =
    s.lease.beats.length > 0 && silentMs > s.timing.heartbeatMs * 1.5 && silentMs < s.timing.abdicateAfterMs
  const hurry = unanswered || s.vacate !== null
  s.lease = {
    ...s.lease,
    seq,
    // The send time is noted before sending.
    beats: [...s.lease.beats.slice(1 - beatsKept), { seq, sentAt: now }],
    nextBeatAt: now + (hurry ? s.timing.heartbeatRetryMs : s.timing.heartbeatMs),
  }
  const message: Heartbeat = {
    kind: 'heartbeat',
    gen: known.gen,
    epoch: known.epoch,
    version: known.version,
    inc: s.durable.inc,
    nonce: s.nonce,
    seq,
    timeline: s.database.view.end.timeline,
    databaseUp: s.database.view.process === 'primary' && s.vacate === null,
    serving: s.gate.set === 'open',
    holdsLease: holdsLease(s, now),
    leaseMs: s.timing.leaseMs,
    note: noteOf(s, now),
  }
  send(turn, s.peer, message)
}

function noteOf(s: HostState, now: number): HeartbeatNote {
  if (s.vacate !== null) return 'switching'
  if (s.duty.leaving !== 'no') return 'stopping'
  return s.duty.maintenanceUntil > now ? 'maintenance' : 'steady'
}

/**
 * P: an answer of S. Only a promise of the admitted store, in this nonce and reign, extends the lease.
 * @returns whether it is the newest, so that what S asks for in it stands.
 */
export function onAck(turn: Turn, ack: Ack): boolean {
  const { s, now } = turn
  const known = knownValue(s)
  if (known !== null && isOlder(ack, known)) tellCommitted(turn)
  if (ack.nonce !== s.nonce || !isPrimary(s) || known === null) return false
  const sent = s.lease.beats.find(one => one.seq === ack.seq)
  if (sent === undefined || sent.sentAt < s.lease.ackSentAt) return false
  s.lease = { ...s.lease, ack, ackSentAt: sent.sentAt, ackAt: now }
  countPromise(turn, ack, sent.sentAt)
  return true
}

function countPromise(turn: Turn, ack: Ack, sentAt: number): void {
  const { s, now } = turn
  const known = knownValue(s)
  if (known === null) return
  if (!ack.promise || ack.inc !== peerVoter(s) || !sameReign(ack, known)) return
  const leaseUntil = Math.max(s.lease.leaseUntil, sentAt + s.timing.leaseHeldMs)
  s.lease = { ...s.lease, leaseUntil, promisedAt: now, progressAt: Math.max(s.lease.progressAt, now) }
}

/** S: a heartbeat. It is answered always, with a promise only where this host may stand by for that primary. */
export function onHeartbeat(turn: Turn, beat: Heartbeat): void {
  const { s, now } = turn
  const known = knownValue(s)
  const acc = acceptedValue(s)
  if (known !== null && isOlder(beat, known)) tellCommitted(turn)
  if (acc !== null && beat.gen > acc.gen) yieldToHigherGen(turn, beat.gen)
  const current = acc === null || (sameReign(beat, acc) && acc.primary === s.peer)
  if (!current) {
    if (known === null || isOlder(known, beat)) answer(turn, beat, `knows nothing of epoch ${beat.epoch} yet`)
    return
  }
  const before = s.backup.heartbeat
  s.backup = { ...s.backup, heartbeat: beat, heardAt: now, resignHeard: 0, candidacyAfterAt: 0 }
  const why = whyNoPromise(s, beat, now)
  if (why === '') {
    s.backup = { ...s.backup, promiseUntil: now + s.timing.leaseMs }
    keepFlushed(turn)
  }
  if (beat.note === 'switching') turn.effects.push({ do: 'look' })
  if (beat.note === 'switching' || missedBeats(s, before, beat)) s.duty = { ...s.duty, asksSwitchoverUntil: 0 }
  answer(turn, beat, why)
}

/**
 * What became of a wish to switch over may have been said meanwhile, and the primary must not take it for a second one: it was
 * started again, or this host stood still with its clock, so that by that clock the wish is as young as it was.
 */
const missedBeats = (s: HostState, before: Heartbeat | null, beat: Heartbeat): boolean =>
  before !== null &&
  (beat.nonce !== before.nonce || beat.seq - before.seq > Math.ceil(s.timing.switchAskMs / s.timing.heartbeatMs))

/** A forced takeover happened elsewhere: nothing of this host may serve until it has read the register. */
export function yieldToHigherGen(turn: Turn, gen: number): void {
  const { s } = turn
  // A gate that is shut stays as it is shut: each heartbeat of the other host comes by here until the register is read.
  if (s.gate.set === 'open' || s.gate.set === 'untouched')
    closeGate(turn, `gen ${gen} is in force, this host knows gen ${genOf(s.durable.acc?.ballot ?? 0)}`)
  const { process } = s.database.view
  if (process === 'primary' || process === 'dead') {
    say(turn, `kills the database: a forced takeover made gen ${gen}`)
    killDatabase(turn)
  }
}

function whyNoPromise(s: HostState, beat: Heartbeat, now: number): string {
  const acc = acceptedValue(s)
  const { view } = s.database
  if (!hasWritten(s)) return 'its store has not taken a write since it started'
  if (diskHangs(s, now)) return `its store has taken no write for more than ${s.timing.persistLimitMs} ms`
  // P would count it for longer than this host waits.
  if (beat.leaseMs !== s.timing.leaseMs)
    return `its profile has leases of ${s.timing.leaseMs} ms, the primary's of ${beat.leaseMs} ms: give both hosts the same profile`
  if (acc === null) return 'its store is new and not admitted yet'
  if (acc.voters[s.node] !== s.durable.inc) return 'its store is not the admitted one'
  if (s.backup.candidacy) return 'a candidacy of its own is open'
  if (view.process !== 'standby') return `its database is ${view.process}`
  if (beat.timeline === 0 || view.end.timeline !== beat.timeline) {
    return `its database is on timeline ${view.end.timeline}, the primary's on ${beat.timeline}`
  }
  if (!logIsWhole(s)) {
    return `its log ends at ${view.end.lsn} although it acknowledged ${s.durable.maxFlushed.lsn}: it lost its tail`
  }
  return ''
}

/** The flushed position that is about to be acknowledged, durable at least once a second: a later start compares with it. */
function keepFlushed(turn: Turn): void {
  const { s, now } = turn
  const { end } = s.database.view
  const had = s.durable.maxFlushed
  if (end.timeline === had.timeline && end.lsn <= had.lsn) return
  if (end.timeline === had.timeline && now - s.backup.flushedPersistAt < s.timing.maxFlushedEveryMs) return
  s.backup = { ...s.backup, flushedPersistAt: now }
  persist(turn, { maxFlushed: end })
}

function wishOf(s: HostState, now: number): PeerWish {
  if (s.duty.leaving === 'for good') return 'depart'
  if (s.duty.leaving === 'for now') return 'leave'
  return s.duty.asksSwitchoverUntil > now ? 'switchover' : 'nothing'
}

function answer(turn: Turn, beat: Heartbeat, why: string): void {
  const { s, now } = turn
  const known = knownValue(s)
  const ack: Ack = {
    kind: 'ack',
    gen: known?.gen ?? 0,
    epoch: known?.epoch ?? 0,
    version: known?.version ?? 0,
    inc: s.durable.inc,
    nonce: beat.nonce,
    seq: beat.seq,
    promise: why === '',
    why,
    flushed: s.database.view.end,
    streaming: s.database.view.process === 'standby' && s.database.view.streaming,
    confirmed: s.boot !== '' && s.durable.confirmedBoot === s.boot,
    witness: witnessReach(s, now),
    uplink: s.uplink,
    asks: wishOf(s, now),
  }
  send(turn, s.peer, ack)
}

/**
 * P heard nobody for three leases: it falls silent, so that S, which may hear it without being heard, is free to take
 * over. Any message of the peer, or W's answer to a plain read, ends that.
 */
export function considerAbdication(turn: Turn): void {
  const { s, now } = turn
  if (!isPrimary(s) || s.lease.abdicated || rightToServe(s, now) !== null) return
  // Without another data host as a member there is nobody to make room for, and nobody whose word would end it.
  if (peerVoter(s) === null && acceptedValue(s)?.voters[s.peer] === undefined) return
  const since = Math.max(s.lease.progressAt, s.lease.leaseUntil, s.lease.primaryAt)
  if (now - since < s.timing.abdicateAfterMs) return
  s.lease = { ...s.lease, abdicated: true, abdicatedAt: now }
  // W may be what this host waits for: asked each second from here on, until it answers.
  s.witness = { ...s.witness, probeAt: Math.min(s.witness.probeAt, now) }
  s.round = null
  say(turn, `abdicated: no lease and no finished round for ${s.timing.abdicateAfterMs} ms`)
}

export function endAbdication(turn: Turn, heard: string): void {
  const { s, now } = turn
  if (!s.lease.abdicated) return
  s.lease = { ...s.lease, abdicated: false, progressAt: now, nextBeatAt: now }
  say(turn, `takes part again: ${heard}`)
}
