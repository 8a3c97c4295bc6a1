import { closeGate, freezeGate, openGate } from './effects.ts'
import {
  acceptedValue,
  databaseServes,
  genHeard,
  holdsOffice,
  isOverruled,
  isPrimary,
  knownValue,
  otherIsNamed,
  rightToServe,
  syncRequired,
} from './facts.ts'
import { diskHangs } from './lease.ts'
import { growObstacle } from './primary-conditions.ts'
import type { HostState } from './state.ts'
import { sayStanding, type Turn } from './turn.ts'
import type { GateReport } from './types.ts'

/**
 * The gate follows the state: open with a grant that ends with the lease (or, where nobody may succeed, a longer one),
 * frozen while the role is not settled, closed where the other host is named. The kernel shuts it by itself when the
 * grant ends, so nothing here is needed for safety when this process stops.
 */
export function driveGate(turn: Turn): void {
  const { s, now } = turn
  if (otherIsNamed(s) || (s.durable.acc !== null && acceptedValue(s)?.voters[s.node] !== s.durable.inc)) {
    closeGate(turn, `this host is not the primary of epoch ${acceptedValue(s)?.epoch}`)
    return
  }
  if (isOverruled(s)) {
    closeGate(turn, `gen ${genHeard(s)} was forced on ${s.peer}`)
    return
  }
  if (s.vacate !== null) {
    if (s.vacate.kind === 'failure') closeGate(turn, s.vacate.why)
    else freezeGate(turn, s.vacate.why)
    return
  }
  const why = whyShut(s, now)
  if (why !== null) {
    // A grant found at a restart of the agent is neither cut nor extended until all is proven anew.
    if (
      s.gate.set === 'untouched' &&
      s.database.view.process === 'primary' &&
      s.gate.report.state === 'open' &&
      s.gate.report.expiresUntil > now &&
      isPrimary(s)
    )
      return
    freezeGate(turn, why)
    sayStanding(turn, 'gate', '')
    return
  }
  renew(turn)
}

function whyShut(s: HostState, now: number): string | null {
  if (!isPrimary(s)) return knownValue(s) === null ? 'nothing is known of the register' : 'this host is not the primary'
  if (diskHangs(s, now)) return `a durable write has been under way for more than ${s.timing.persistLimitMs} ms`
  if (rightToServe(s, now) === null) return 'the lease is over and the backup may have taken over'
  if (databaseServes(s)) return null
  if (s.database.view.process !== 'primary') return `the database is ${s.database.view.process}`
  return syncRequired(s) ? 'the backup has not got all that clients could read' : 'the database does not answer'
}

function renew(turn: Turn): void {
  const { s, now } = turn
  const right = rightToServe(s, now)
  // Before a Grow the grant is cut to the lease, but never so that a lease which runs out shuts a gate that nobody contests.
  const growing = s.round?.change === 'grow' || growObstacle(s, now) === null
  const byLease = right === 'lease' || (growing && s.lease.leaseUntil > now + s.timing.silenceMs)
  const until = byLease ? s.lease.leaseUntil : now + s.timing.pinnedGrantMs
  const { report } = s.gate
  // One grant at a time: on a host that is slow to apply them they would pile up and be late all the more.
  const unanswered = s.gate.set === 'open' && s.gate.reported !== s.gate.seq
  if (unanswered && now - s.gate.setAt < s.timing.heartbeatMs) return
  const opening = s.gate.set !== 'open' || report.state !== 'open' || report.expiresUntil <= now
  if (until <= now + s.timing.grantSlopMs) return
  if (opening) {
    // The first opening, or the kernel shut it meanwhile; asked again no more often than a heartbeat.
    if (s.gate.set === 'open' && now - s.gate.setAt < s.timing.heartbeatRetryMs) return
    openGate(turn, until)
    // Neighbours may have given the address up during a freeze.
    if (s.vip.up) turn.effects.push({ do: 'announce' })
    return
  }
  // Measured against what was asked, not against what the kernel says: each grant ends a little before what it was asked
  // to reach, and in the fast profile that little is more than the step that is worth a renewal.
  const step = byLease ? s.timing.renewEveryMs / 2 : s.timing.pinnedGrantMs * 0.3
  const moved = until - s.gate.askedUntil >= step
  const cut = byLease && s.gate.grantUntil > until
  const refused = !grantIsWhole(s)
  const waiting = now - s.gate.setAt < s.timing.heartbeatRetryMs
  if (moved || ((cut || refused) && !waiting)) openGate(turn, until)
}
/** Otherwise the kernel refused the newest grant: it came too late. */
export const grantIsWhole = (s: HostState): boolean =>
  s.gate.grantUntil >= s.gate.askedUntil - s.timing.grantSlopMs - grantRoundingMs
/** Grants are whole milliseconds, floored to a tick of the kernel, and the report of one is a moment old. */
const grantRoundingMs = 5

/** What the kernel says after a gate effect: the only thing that lowers the bound on its expiry. */
export function onGateReport(turn: Turn, seq: number, report: GateReport): void {
  const { s } = turn
  if (seq !== s.gate.seq) return
  s.gate = { ...s.gate, report, reported: seq, grantUntil: report.state === 'open' ? report.expiresUntil : 0 }
}

/**
 * The address goes up before the gate opens and stays through a freeze. After a demotion it stays until shortly after
 * the new primary serves: a client that finds no address at all backs off for a second.
 */
export function driveAddresses(turn: Turn): void {
  const { s, now } = turn
  const index = turn.effects.findIndex(effect => effect.do === 'gate' && effect.set === 'open')
  if (s.gate.set === 'open' && s.vip.up !== true) {
    s.vip = { up: true, downAt: 0 }
    turn.effects.splice(index < 0 ? turn.effects.length : index, 0, { do: 'vip', set: 'up' })
    turn.effects.push({ do: 'announce' })
  }
  const closed = s.gate.set === 'closed' || (s.gate.set === 'frozen' && !holdsOffice(s))
  if (!closed) {
    s.vip = { ...s.vip, downAt: 0 }
  } else if (s.vip.up !== false) {
    s.vip = { ...s.vip, downAt: s.vip.downAt || now + s.timing.vipOverlapMaxMs }
    if (newPrimaryServes(s)) s.vip = { ...s.vip, downAt: Math.min(s.vip.downAt, now + s.timing.vipOverlapMs) }
    if (now >= s.vip.downAt) {
      s.vip = { up: false, downAt: 0 }
      turn.effects.push({ do: 'vip', set: 'down' })
    }
  }
  const running = s.gate.set === 'open'
  const keep = s.gate.set === 'frozen' && holdsOffice(s) && s.vacate === null
  if (running !== s.servicesRunning && !keep) {
    s.servicesRunning = running
    turn.effects.push({ do: 'services', set: running ? 'running' : 'stopped' })
  }
}

const newPrimaryServes = (s: HostState): boolean =>
  s.backup.heartbeat?.serving === true && s.backup.heartbeat.epoch === acceptedValue(s)?.epoch
