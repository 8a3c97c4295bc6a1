import { closeGate, freezeGate, killDatabase, startDatabaseOp } from './effects.ts'
import {
  isPrimary,
  isResigned,
  knownValue,
  otherIsNamed,
  peerIsAdmitted,
  shrinkInDoubt,
  silenceMs,
  syncRequired,
  withinBudget,
} from './facts.ts'
import { beat } from './lease.ts'
import { backupIsHealthy, mayStandAlone, readyToSwitch, silentWhy } from './primary-conditions.ts'
import { endRound } from './proposer.ts'
import type { HostState, Vacate } from './state.ts'
import { persist, say, sayStanding, send, type Turn } from './turn.ts'
import type { Asked } from './types.ts'

/**
 * P gives its place up, without any timer of the lease: planned (freeze, drain, kill, hand over) or because its
 * database, disk or uplink failed (close, kill, hand over or resign). What could not be handed over is started again
 * in place, within a budget.
 */
export function beginSwitchover(turn: Turn, why: string, answer: Asked | null): boolean {
  const { s, now } = turn
  const obstacle = readyToSwitch(s, now)
  if (obstacle !== null) {
    if (answer !== null) turn.effects.push({ do: 'answer', ...answer, ok: false, why: obstacle })
    return false
  }
  if (s.round !== null) endRound(turn, 'the switchover comes first')
  s.roundAfterAt = 0
  s.vacate = { kind: 'planned', why, startedAt: now, drained: false, end: null, killedAt: 0, killedSeq: 0, answer }
  say(turn, `switches over to ${s.peer}: ${why}`)
  freezeGate(turn, 'planned switchover')
  beat(turn)
  return true
}

/**
 * S was told to take over, and says so with each answer for a moment. One command, one attempt: what was taken back or
 * called off is not begun again by an answer that still asks for it.
 */
export function onAsked(turn: Turn): void {
  const { s, now } = turn
  if (s.vacate !== null || triedLately(s, now)) return
  beginSwitchover(turn, 'the backup was told to take over', null)
}

const triedLately = (s: HostState, now: number): boolean =>
  s.duty.takenBackAt > 0 && now - s.duty.takenBackAt < s.timing.switchoverLimitMs

/** The database died, hangs or lost its disk while this host was primary, or it hears nobody and may have nobody to succeed it. */
export function considerFailure(turn: Turn): void {
  const { s, now } = turn
  if (!isPrimary(s) || s.vacate?.kind === 'failure') return
  const failure = failureOf(s, now) ?? staysDown(s, now)
  const why = failure ?? deafInDoubt(s)
  const isGivenTime = failure === null && s.database.view.hanging && s.vacate === null
  sayStanding(turn, 'silence', isGivenTime ? `${silentWhy}, and is given time: nobody else could go on now` : '')
  if (why === null) {
    considerGoing(turn)
    return
  }
  say(turn, failure === null ? `gives its place up: ${why}` : `the database of the primary failed: ${why}`)
  s.vacate = {
    kind: 'failure',
    why,
    startedAt: now,
    drained: true,
    end: null,
    killedAt: 0,
    killedSeq: 0,
    answer: s.vacate?.answer ?? null,
  }
  closeGate(turn, why)
  killDatabase(turn)
  if (s.round !== null && s.round.change !== 'handover') endRound(turn, 'the hand-over comes first')
  s.roundAfterAt = 0
}

function failureOf(s: HostState, now: number): string | null {
  const { view, op, ran } = s.database
  if (op !== null && op.op.op !== 'syncNames' && op.op.op !== 'proveSync' && op.op.op !== 'drain') return null
  if (s.vacate !== null && s.vacate.end !== null) return null
  // One that is down stays down: there is nothing to give up any more, see `staysDown`.
  if (view.ioError && (view.process !== 'none' || ran)) return 'its volume returned an I/O error'
  if (view.process === 'dead') return 'its postmaster is gone'
  if (view.process === 'none' && ran) return 'it ended by itself'
  if (view.hanging && (view.stuck || couldBeReplaced(s, now))) return 'it does not answer'
  return null
}

/**
 * Somebody could go on instead, or is asked to already, without an operator who works on this host being surprised. Where nobody could, a database
 * that is merely slow is not killed: its start on the same starved host would only make the outage longer, again and again.
 */
const couldBeReplaced = (s: HostState, now: number): boolean =>
  s.vacate !== null || syncRequired(s) || (s.duty.maintenanceUntil <= now && backupIsHealthy(s, now) === null)

/** It may not be started here, and the backup is the successor or has come to have all that is on this disk: then that one goes on. */
function staysDown(s: HostState, now: number): string | null {
  const { view, op } = s.database
  const { ack } = s.lease
  if (view.process !== 'none' || op !== null || s.vacate !== null || view.epoch !== knownValue(s)?.epoch) return null
  if (!view.ioError && withinBudget(s, now)) return null
  if (ack === null || !ack.promise || !ack.confirmed || silenceMs(s, now) >= s.timing.silenceMs || !peerIsAdmitted(s))
    return null
  const hasAll = ack.flushed.timeline === view.end.timeline && ack.flushed.lsn >= view.end.lsn
  return hasAll || knownValue(s)?.successor === true
    ? 'it may not be started here again, and the backup has all of it'
    : null
}

/**
 * A host that is about to stop hands over as soon as it can, also where it was told in the middle of a change; and one whose
 * clients' network is gone here and fine there: a planned hand-over, not an expiry of the lease.
 */
function considerGoing(turn: Turn): void {
  const { s } = turn
  if (s.vacate !== null || triedLately(s, turn.now)) return
  if (s.duty.leaving === 'for now') beginSwitchover(turn, 'this host is about to stop', null)
  // It was the backup when it was told, and is removed as the backup.
  else if (s.duty.leaving === 'for good') beginSwitchover(turn, 'this host leaves the pair', null)
  else if (!s.uplink && s.lease.ack?.uplink === true)
    beginSwitchover(turn, 'the uplink of the primary is down and the backup has its own', null)
}

/**
 * It heard nobody for so long that it fell silent, but a Shrink of its own may have been chosen: then nobody may succeed, and
 * it will not know. Resigned from, that version lets the backup stand, should that one hear it.
 */
const deafInDoubt = (s: HostState): string | null =>
  s.lease.abdicated && s.vacate === null && shrinkInDoubt(s) !== null
    ? 'it hears nobody, and whether the backup may still succeed is not known here'
    : null

export function driveVacating(turn: Turn): void {
  const { s, now } = turn
  const { vacate } = s
  if (otherIsNamed(s)) {
    finish(turn, vacate)
    return
  }
  if (vacate === null) return
  if (!isPrimary(s)) {
    if (!isResigned(s)) s.vacate = null
    return
  }
  if (vacate.end === null) {
    driveStop(turn, vacate)
    return
  }
  if (vacate.kind === 'failure' && mustResign(s, now)) {
    resign(turn)
    return
  }
  const inTheWay = s.round?.change === 'handover' && (s.round.phase === 'prepare' || s.round.phase === 'ready')
  if (inTheWay && mayStandAlone(s, now)) endRound(turn, 'the backup promises nothing, and may stand by itself')
  if (now - vacate.startedAt > giveUpMs(s, vacate, now)) takeBack(turn, 'the backup could not take over in time')
}

/** With a successor that answers nothing a hand-over finds no voter: it is told to stand by itself. */
const mustResign = (s: HostState, now: number): boolean =>
  knownValue(s)?.successor === true &&
  s.openGrow <= (s.durable.known?.ballot ?? 0) &&
  silenceMs(s, now) > s.timing.heartbeatMs * 2

function giveUpMs(s: HostState, vacate: Vacate, now: number): number {
  if (vacate.kind === 'planned' || syncRequired(s)) return s.timing.switchoverLimitMs
  return silenceMs(s, now) >= s.timing.silenceMs ? 0 : s.timing.leaseMs / 2
}

function driveStop(turn: Turn, vacate: Vacate): void {
  const { s } = turn
  const op = s.database.op?.op.op
  if (op === 'kill' || op === 'drain' || turn.now < s.database.retryAt) return
  if (!vacate.drained && s.database.view.process === 'primary') {
    startDatabaseOp(turn, { op: 'drain' })
    return
  }
  killDatabase(turn)
}

/** Durable before it is said, and it counts only while the register stays at this version, or goes on to the one in doubt. */
function resign(turn: Turn): void {
  const { s, now } = turn
  const known = knownValue(s)
  if (known === null) return
  if (s.round !== null) endRound(turn, 'resigned')
  const { version } = shrinkInDoubt(s) ?? known
  persist(turn, { resigned: version })
  s.duty = { ...s.duty, resignedAt: now, resignSentAt: 0 }
  say(turn, `resigned from version ${version}: ${s.vacate?.why ?? 'its database is dead'}`)
  driveResignation(turn)
}

/** Said again every heartbeat until the register has moved on. */
export function driveResignation(turn: Turn): void {
  const { s, now } = turn
  const known = knownValue(s)
  if (!isResigned(s) || known === null || s.database.view.process !== 'none') return
  if (now - s.duty.resignSentAt < s.timing.heartbeatMs) return
  s.duty = { ...s.duty, resignSentAt: now, resignedAt: s.duty.resignedAt || now }
  send(turn, s.peer, { kind: 'resign', gen: known.gen, epoch: known.epoch, version: s.durable.resigned })
}

export function takeBack(turn: Turn, why: string): void {
  const { s } = turn
  if (s.vacate === null) return
  s.duty = { ...s.duty, takenBackAt: turn.now }
  say(turn, `takes the hand-over back: ${why}`)
  if (s.round?.change === 'handover') endRound(turn, why)
  answer(turn, s.vacate, { ok: false, why })
  // Whoever cannot hand over stays.
  if (s.duty.leaving === 'for good') s.duty = { ...s.duty, leaving: 'no' }
  s.vacate = null
}

function finish(turn: Turn, vacate: Vacate | null): void {
  if (vacate === null) return
  const { s } = turn
  if (knownValue(s)?.primary !== s.peer) return
  answer(turn, vacate, { ok: true, why: `${s.peer} is primary of epoch ${knownValue(s)?.epoch}` })
  s.vacate = null
}

function answer(turn: Turn, vacate: Vacate, result: { ok: boolean; why: string }): void {
  if (vacate.answer !== null) turn.effects.push({ do: 'answer', ...vacate.answer, ...result })
}
