import { assert, unreachable } from '../assert.ts'
import { isResigned, knownBallot } from './facts.ts'
import { readyToGrow, readyToHandOver } from './primary-conditions.ts'
import type { HostState, Round } from './state.ts'
import type { Accepted, Value } from './types.ts'

/**
 * The table of changes: given the best value of phase 1, is the change allowed now (`go`), not yet (`wait`), or not at
 * all (`refused`: the round then commits the best value as it is, which is a read)?
 */
export type Readiness = { at: 'go'; value: Value } | { at: 'wait' } | { at: 'refused'; why: string }

const refused = (why: string): Readiness => ({ at: 'refused', why })

export function readiness(s: HostState, round: Round, best: Accepted, now: number): Readiness {
  const v = best.value
  const mine = v.primary === s.node
  const next = { ...v, version: v.version + 1 }
  switch (round.change) {
    case 'confirm':
      return { at: 'go', value: v }
    case 'shrink':
      // What it resigned from without knowing whether it was chosen: only a later version is served again.
      if (!mine || (!v.successor && v.version !== s.durable.resigned))
        return refused('there is no successor to take back')
      return shrinkReadiness(s, round, now, { ...next, successor: false })
    case 'grow': {
      if (!mine || v.successor || best.ballot !== knownBallot(s)) return refused('the value has changed meanwhile')
      const obstacle = readyToGrow(s, now)
      return obstacle === null ? { at: 'go', value: { ...next, successor: true } } : refused(obstacle)
    }
    case 'handover':
      if (!mine) return refused('the other host is primary already')
      return readyToHandOver(s, v, now)
        ? { at: 'go', value: { ...next, epoch: v.epoch + 1, primary: s.peer, successor: false } }
        : s.vacate === null
          ? refused('the hand-over was taken back')
          : { at: 'wait' }
    case 'takeover':
      return takeover(s, round, v)
    case 'add':
    case 'remove':
      return memberChange(s, round, best, next)
    default:
      return unreachable(round.change)
  }
}

/**
 * Allowed only from a value in which this host is the successor; after a Resign from the very version resigned from, or the
 * one before it. A version that was resigned from need not name a successor: P never knew that it was chosen, and will not
 * serve by it, so all that was ever acknowledged has been acknowledged with this host as its successor.
 */
export function takeover(s: HostState, round: { resigned: number }, v: Value): Readiness {
  const { resigned } = round
  if (v.primary !== s.peer) return refused('this host is primary already')
  if (v.voters[s.node] !== s.durable.inc) return refused(`version ${v.version} does not admit this store`)
  if (resigned !== 0 && resigned !== v.version && resigned !== v.version + 1) {
    return refused(`the primary resigned from version ${resigned}, the register is at ${v.version}`)
  }
  if (!v.successor && resigned !== v.version) return refused(`version ${v.version} names no successor`)
  return { at: 'go', value: { ...v, version: v.version + 1, epoch: v.epoch + 1, primary: s.node, successor: false } }
}

/** A silence that ends before D ends the round as a read; other grounds need no waiting. */
function shrinkReadiness(s: HostState, round: Round, now: number, value: Value): Readiness {
  if (round.ground !== 'silent') return { at: 'go', value }
  const silent = now - Math.max(s.lease.promisedAt, s.lease.primaryAt)
  if (silent >= s.timing.silenceMs) return { at: 'go', value }
  return silent < s.timing.prepareAfterMs ? refused('the backup was heard again') : { at: 'wait' }
}

/** One member at a time, from a value known to be committed, and only while nobody may succeed. */
function memberChange(s: HostState, round: Round, best: Accepted, next: Value): Readiness {
  const { member } = round
  assert(member !== null, 'a member change without a member')
  if (next.primary !== s.node || best.value.successor || best.ballot !== knownBallot(s) || isResigned(s)) {
    return refused('members change only under a confirmed primary without a successor')
  }
  const voters = { ...best.value.voters }
  if (round.change === 'remove') {
    if (voters[member.node] !== member.inc) return refused('that member is gone already')
    delete voters[member.node]
  } else {
    if (voters[member.node] !== undefined) return refused('that place is taken')
    voters[member.node] = member.inc
  }
  return { at: 'go', value: { ...next, voters } }
}
