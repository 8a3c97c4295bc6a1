import { killDatabase, startDatabaseOp } from './effects.ts'
import {
  confirmed,
  hasDeparted,
  holdsLease,
  inDoubt,
  isBackup,
  isOverruled,
  isPrimary,
  isStalled,
  knownValue,
  nobodyMaySucceed,
  otherIsNamed,
  ownEpoch,
  peerIsAdmitted,
  peerIsLeaving,
  peerVoter,
  sameReign,
  silenceMs,
  syncRequired,
  waitsForGiveUp,
  withinBudget,
} from './facts.ts'
import { beat } from './lease.ts'
import type { HostState } from './state.ts'
import { persist, say, sayStanding, type Turn } from './turn.ts'
import type { DatabaseOp, DatabaseResult, DatabaseView } from './types.ts'
import { takeBack } from './vacating.ts'

/**
 * What the local database should be, read from the register: primary, standby, or not running. One operation at a
 * time; a failed one is tried again with growing pauses.
 */
export function driveDatabase(turn: Turn): void {
  const { s, now } = turn
  considerBarrier(turn)
  if (mustBeDead(s)) {
    if (now >= s.database.retryAt) killDatabase(turn)
    return
  }
  if (s.database.op !== null || now < s.database.retryAt || s.vacate !== null) return
  const op = wantedOp(turn)
  if (op !== null) startDatabaseOp(turn, op)
}

/** A primary (or what is left of one) where the register does not want one. */
function mustBeDead(s: HostState): boolean {
  const { view, op } = s.database
  if (op?.op.op === 'kill') return false
  if (op?.op.op === 'rejoin') return false
  if (hasDeparted(s)) return view.process !== 'none'
  const primaryLike = view.process === 'primary' || op?.op.op === 'startPrimary' || op?.op.op === 'promote'
  if (otherIsNamed(s) || isOverruled(s)) return primaryLike || (view.process === 'dead' && op === null)
  // It runs in an epoch that is over (a forced takeover, a promotion whose agent died): it gets a timeline of this one.
  if (isPrimary(s) && view.process === 'primary' && op === null && s.vacate === null && !ownEpoch(s)) return true
  return view.process === 'dead' && op === null && s.vacate === null
}

function wantedOp(turn: Turn): DatabaseOp | null {
  const { s } = turn
  if (isPrimary(s)) return isOverruled(s) ? null : primaryOp(turn)
  if (isBackup(s) || s.durable.acc === null) return backupOp(turn)
  return null
}

function primaryOp(turn: Turn): DatabaseOp | null {
  const { s, now } = turn
  const known = knownValue(s)
  if (known === null) return null
  const { view } = s.database
  const syncNames = syncRequired(s) ? 'set' : 'empty'
  switch (view.process) {
    case 'none': {
      // A read of the register, or the backup's word, in this boot: otherwise the other one may have taken over.
      if (!confirmed(s) && !holdsLease(s, now)) return null
      if (view.ioError) return stayDown(turn, 'its volume returned an I/O error; replace it, then join again')
      const owner = view.epoch === known.epoch
      if (owner && !withinBudget(s, now) && now - (s.database.restartsAt.at(-1) ?? 0) < s.timing.restartPauseMs)
        return stayDown(turn, `it was restarted ${s.timing.restartBudget} times within ${s.timing.restartWindowMs} ms`)
      return owner
        ? { op: 'startPrimary', epoch: known.epoch, syncNames }
        : { op: 'promote', epoch: known.epoch, syncNames }
    }
    case 'standby':
      // Named by the register, and known to be: the log that is here is the log.
      return confirmed(s) ? { op: 'promote', epoch: known.epoch, syncNames } : null
    case 'primary':
      return syncOp(s, now)
    default:
      return null
  }
}

function stayDown(turn: Turn, why: string): null {
  sayStanding(turn, 'database', `the database stays down: ${why}`)
  return null
}

/**
 * Synchronous replication: on while the backup may succeed, and, for a healthy backup, while pinned too. Off only when
 * the register is known to name no successor and the backup is silent or stalled. On means: proven in force.
 */
function syncOp(s: HostState, now: number): DatabaseOp | null {
  const { view, barrier } = s.database
  if (view.syncNames !== 'set') {
    return syncRequired(s) || backupKeepsUp(s, now)
      ? { op: 'syncNames', set: 'set' }
      : view.syncNames === 'unknown'
        ? { op: 'syncNames', set: 'empty' }
        : null
  }
  if (nobodyMaySucceed(s) && backupIsLost(s, now)) return { op: 'syncNames', set: 'empty' }
  return barrier === null && view.sender !== null ? { op: 'proveSync' } : null
}

const backupIsLost = (s: HostState, now: number): boolean =>
  silenceMs(s, now) >= s.timing.silenceMs ||
  isStalled(s) ||
  peerIsLeaving(s) ||
  (s.lease.replicaGoneAt > 0 && now - s.lease.replicaGoneAt >= s.timing.silenceMs)

/** Close enough behind that commits may wait for it. */
function backupKeepsUp(s: HostState, now: number): boolean {
  const { view } = s.database
  const { ack } = s.lease
  if (ack === null || view.sender === null || silenceMs(s, now) >= s.timing.silenceMs || !peerIsAdmitted(s))
    return false
  if (now < s.duty.regrowAt || !ack.streaming || backupIsLost(s, now)) return false
  // Still as stuck as when commits stopped waiting for it: they would wait again, and again for nothing.
  if (view.sender.flushedLsn < s.database.lostLsn) return false
  return view.sender.timeline === view.end.timeline && view.end.lsn - view.sender.flushedLsn <= catchUpBytes
}
/** A backup further behind first catches up asynchronously. */
const catchUpBytes = 16 * 1024 * 1024

/** A standby that does not stream for this long is joined anew: fork check, rewind or clone. */
const astrayMs = 10_000

function backupOp(turn: Turn): DatabaseOp | null {
  const { s, now } = turn
  const { heartbeat, heardAt } = s.backup
  const { view } = s.database
  const known = knownValue(s)
  const heard = heartbeat !== null && now - heardAt < s.timing.leaseMs && heartbeat.databaseUp && heartbeat.timeline > 0
  const astray = view.process === 'standby' && heard && (!view.streaming || view.end.timeline !== heartbeat.timeline)
  const follows = view.process === 'standby' && heard && !astray
  s.backup = {
    ...s.backup,
    astrayAt: astray ? s.backup.astrayAt || now : 0,
    astrayJoins: follows ? 0 : s.backup.astrayJoins,
  }
  if (view.process !== 'none' && !(astray && now - s.backup.astrayAt > astrayMs)) return null
  if (!heard || s.backup.candidacy || inDoubt(s)) return null
  // Only the primary of the committed epoch is followed, and none older than what this host knows.
  if (known !== null && !sameReign(known, heartbeat)) return null
  if (view.ioError) return stayDown(turn, 'its volume returned an I/O error; replace it, then join again')
  if (waitsForGiveUp(s)) {
    return stayDown(
      turn,
      `gen ${known?.gen} was forced while this host had data of gen ${s.durable.dataGen}: \`understudy evidence collect\` shows what would be given up, \`understudy evidence give-up\` permits it`,
    )
  }
  if (s.duty.leaving !== 'no') return null
  const { gen, epoch, timeline } = heartbeat
  return { op: 'rejoin', gen, epoch, timeline, clone: copiesAnew(s.backup.astrayJoins) ? 'always' : 'ifNeeded' }
}

/**
 * A standby that was joined twice and never streamed lacks what the primary no longer has (its slot was given up): only
 * a copy helps. Where the copy did not help either, the next is made only after twice as many tries.
 */
const copiesAnew = (joins: number): boolean => joins >= 2 && Number.isInteger(Math.log2(joins))
const astrayJoinsMax = 2 ** 10

export function onDatabaseDone(turn: Turn, id: number, result: DatabaseResult): void {
  const { s, now } = turn
  const current = s.database.op
  // An operation that was overtaken by a kill.
  if (current === null || current.id !== id) return
  s.database = { ...s.database, op: null }
  const { op } = current
  onView(turn, result.view)
  if (!result.ok) {
    onFailed(turn, op, result.why)
    return
  }
  s.database = { ...s.database, failures: 0, lastError: '', retryAt: 0 }
  switch (op.op) {
    case 'kill':
      s.database = { ...s.database, view: { ...s.database.view, end: result.position ?? s.database.view.end } }
      if (s.vacate !== null) {
        s.vacate = { ...s.vacate, end: s.database.view.end, killedAt: now, killedSeq: s.lease.seq }
        beat(turn)
      }
      return
    case 'drain':
      if (s.vacate !== null) {
        s.vacate = { ...s.vacate, drained: true }
        // The backup has all of it now, and looks at what it has while the database here is killed: what it answers
        // after the kill is then the whole log, not the log of a moment before.
        beat(turn)
      }
      return
    case 'proveSync':
      s.database = { ...s.database, barrier: result.position, passedBy: '' }
      return
    case 'syncNames':
      if (op.set === 'empty') s.database = { ...s.database, lostLsn: s.database.view.end.lsn }
      return
    case 'startPrimary':
      s.database = {
        ...s.database,
        barrier: null,
        passedBy: '',
        restartsAt: [...s.database.restartsAt.slice(-9), now],
      }
      return
    case 'promote':
      s.database = { ...s.database, barrier: null, passedBy: '', lostLsn: 0 }
      persistData(turn, knownValue(s)?.gen ?? 0)
      return
    case 'rejoin':
      say(turn, `follows the primary of epoch ${op.epoch}`)
      // It gets its time anew: the receiver takes a moment to connect.
      s.backup = { ...s.backup, astrayAt: 0, astrayJoins: Math.min(s.backup.astrayJoins + 1, astrayJoinsMax) }
      persistData(turn, op.gen)
      return
  }
}

/** From here on the data of this host belongs to the gen in force. */
function persistData(turn: Turn, gen: number): void {
  if (turn.s.durable.dataGen !== gen) persist(turn, { dataGen: gen })
}

function onFailed(turn: Turn, op: DatabaseOp, why: string): void {
  const { s, now } = turn
  const failures = s.database.failures + 1
  // Commits may be waiting for a backup that turned out not to flush: what is next is decided by what is seen now.
  const pauseMs =
    op.op === 'proveSync' ? s.timing.heartbeatMs : Math.min(s.timing.retryMs * 2 ** Math.min(failures - 1, 5), 30_000)
  s.database = { ...s.database, failures, lastError: why, retryAt: now + pauseMs }
  say(turn, `could not ${op.op}: ${why}`)
  if (op.op === 'drain' && s.vacate !== null) {
    // At worst commits that nobody acknowledged have to be rewound.
    s.database = { ...s.database, retryAt: 0 }
    s.vacate = { ...s.vacate, drained: true }
    // Without a successor it must have the whole log, and gets no more of it once the database here is killed.
    if (s.vacate.kind === 'planned' && knownValue(s)?.successor !== true) takeBack(turn, why)
  }
  // A kill that cannot prove the end keeps the place vacated: nothing else may start.
  if (op.op === 'startPrimary') s.database = { ...s.database, restartsAt: [...s.database.restartsAt.slice(-9), now] }
  if (op.op === 'promote' && s.vacate === null && op.epoch !== knownValue(s)?.epoch) takeBack(turn, why)
}

/** A new look at the database: what was proven of it dies with its process; a flush position with its session. */
export function onView(turn: Turn, view: DatabaseView): void {
  const { s, now } = turn
  const before = s.database.view
  s.database = { ...s.database, view }
  if (view.process !== 'primary') s.database = { ...s.database, barrier: null, passedBy: '' }
  // Emptied, or replaced by somebody else: what was proven of it is void.
  if (view.syncNames !== 'set') s.database = { ...s.database, barrier: null, passedBy: '' }
  const gone = view.process === 'primary' && view.sender === null
  s.lease = { ...s.lease, replicaGoneAt: gone ? s.lease.replicaGoneAt || now : 0 }
  if (view.process === 'primary') s.database = { ...s.database, ran: true }
  if (before.process !== view.process) say(turn, `the database is ${view.process} (was ${before.process})`)
}

/** The backup has flushed the barrier, in this connection and with the admitted store: it has all that could be read before. */
function considerBarrier(turn: Turn): void {
  const { s } = turn
  const { barrier, passedBy, view } = s.database
  const admitted = peerVoter(s)
  if (barrier === null || admitted === null || passedBy === admitted || view.sender === null || !peerIsAdmitted(s))
    return
  if (view.sender.timeline !== barrier.timeline || view.sender.flushedLsn < barrier.lsn) return
  s.database = { ...s.database, passedBy: admitted }
}
