import { assert, unreachable } from '../assert.ts'
import { ballotOf, genAfter } from './ballot.ts'
import { closeGate, freezeGate } from './effects.ts'
import { genHeard, inDoubt, isBackup, isOutvoted, isPrimary, isSealed, knownValue, otherIsNamed } from './facts.ts'
import { readyToSwitch } from './primary-conditions.ts'
import { describe } from './proposer.ts'
import type { HostState } from './state.ts'
import { persist, say, type Turn } from './turn.ts'
import type { Asked, OperatorCommand, Value, Voters } from './types.ts'
import { beginSwitchover, takeBack } from './vacating.ts'

/** What a person may ask of one host. A command names the epoch it is meant for: a late or repeated one changes nothing. */
export function onOperator(turn: Turn, command: OperatorCommand, ask: number): void {
  const asked: Asked = { command: command.command, ask }
  switch (command.command) {
    case 'init':
      return init(turn, asked)
    case 'switchover':
      return switchover(turn, command.epoch, asked)
    case 'cancelSwitchover':
      return cancelSwitchover(turn, asked)
    case 'force':
      return force(turn, command, asked)
    case 'giveUp':
      return giveUp(turn, command.gen, asked)
    case 'maintenance':
      turn.s.duty = { ...turn.s.duty, maintenanceUntil: command.until }
      return done(turn, asked, command.until > turn.now ? 'no automatic takeover until then' : 'maintenance is over')
    case 'leave':
    case 'depart':
      return leave(turn, asked)
    case 'stay':
      if (turn.s.duty.leaving === 'for now') turn.s.duty = { ...turn.s.duty, leaving: 'no' }
      return done(turn, asked, 'this host takes part again')
    default:
      return unreachable(command)
  }
}

const done = (turn: Turn, asked: Asked, why: string): void => {
  turn.effects.push({ do: 'answer', ...asked, ok: true, why })
}
const refuse = (turn: Turn, asked: Asked, why: string): void => {
  turn.effects.push({ do: 'answer', ...asked, ok: false, why })
}

/** The first member alone: the only bootstrap there is. */
function init(turn: Turn, asked: Asked): void {
  const { s } = turn
  if (s.durable.acc !== null) return refuse(turn, asked, 'this host belongs to a pair already')
  const value: Value = {
    gen: 1,
    version: 1,
    epoch: 1,
    primary: s.node,
    successor: false,
    voters: { [s.node]: s.durable.inc },
  }
  decree(turn, value)
  done(turn, asked, `the pair begins: ${describe(value)}`)
}

/** A value without a vote: by set-up, or by an operator who vouches that the other host is off. */
function decree(turn: Turn, value: Value): void {
  const { s } = turn
  const ballot = ballotOf({ gen: value.gen, n: 1, node: s.node })
  assert(ballot > s.durable.promised, 'a decree opens a new gen')
  s.round = null
  s.vacate = null
  s.openGrow = 0
  persist(turn, {
    promised: ballot,
    lastOwn: ballot,
    acc: { ballot, value },
    known: { ballot, value },
    confirmedBoot: s.boot,
  })
  say(turn, `decreed ${describe(value)}`)
}

function switchover(turn: Turn, epoch: number, asked: Asked): void {
  const { s } = turn
  const known = knownValue(s)
  if (known === null || known.epoch !== epoch) {
    return refuse(turn, asked, `the command is meant for epoch ${epoch}, the register is at epoch ${known?.epoch ?? 0}`)
  }
  if (isPrimary(s)) {
    beginSwitchover(turn, 'asked for by an operator', asked)
    return
  }
  if (!isBackup(s)) return refuse(turn, asked, readyToSwitch(s, turn.now) ?? 'this host is neither primary nor backup')
  s.duty = { ...s.duty, asksSwitchoverUntil: turn.now + s.timing.switchAskMs }
  done(turn, asked, `asked ${s.peer} to hand over`)
}

/** Until the other host is named here: what may have been chosen is not taken back. */
function cancelSwitchover(turn: Turn, asked: Asked): void {
  const { s } = turn
  s.duty = { ...s.duty, asksSwitchoverUntil: 0 }
  if (s.vacate?.kind === 'planned') {
    if (otherIsNamed(s)) return refuse(turn, asked, `it is too late: ${s.peer} has been named as primary`)
    takeBack(turn, 'the operator called it off')
  }
  done(turn, asked, 'the switchover is called off')
}

/** A higher gen of this host's own: the operator vouches that the other host is off, and keeps it off until another member holds the new gen ("sealed"). */
function force(turn: Turn, command: OperatorCommand & { command: 'force' }, asked: Asked): void {
  const { s } = turn
  const known = knownValue(s)
  if (known === null || s.durable.acc === null)
    return refuse(turn, asked, 'this host knows nothing of the register; join a pair first')
  const heard = genHeard(s)
  if ((known.gen !== command.gen && heard !== command.gen) || known.epoch !== command.epoch) {
    return refuse(
      turn,
      asked,
      `the command is meant for gen ${command.gen}, epoch ${command.epoch}; this host is at gen ${known.gen}, epoch ${known.epoch}`,
    )
  }
  if (command.gen < heard)
    return refuse(
      turn,
      asked,
      `gen ${heard} was forced on ${s.peer}, and this host, at gen ${known.gen}, has heard nothing of what was written in it: force ${s.peer}, or let this host hear of it first; to give all of that up, name gen ${heard}`,
    )
  // In the middle of a copy, or not read yet: there may be nothing here that could be served.
  if (s.database.view.end.timeline === 0 || s.database.op?.op.op === 'rejoin')
    return refuse(
      turn,
      asked,
      'this host has no whole database, as far as is known; force the other one, or look again',
    )
  const newest = s.durable.acc.value
  const w = known.voters.w ?? s.witness.wanted ?? undefined
  const value: Value = {
    gen: genAfter(heard, s.node),
    version: Math.max(known.version, newest.version) + 1,
    epoch: Math.max(known.epoch, newest.epoch) + 1,
    primary: s.node,
    successor: false,
    voters: { [s.node]: s.durable.inc, ...(command.withWitness && w !== undefined && { w }) },
  }
  // Forced before, and not sealed yet: the value that was overruled then may still have a majority.
  const before = isSealed(s) ? null : s.durable.overruled
  freezeGate(turn, 'a forced takeover')
  decree(turn, value)
  // Whoever is told to serve does not go.
  s.duty = { ...s.duty, leaving: 'no' }
  const overruled = overruledBy(s, { known, newest })
  const standing = before !== null && !outvotedBy(s, before.voters) ? before.voters : overruled
  const sealed = outvotedBy(s, standing)
  persist(turn, { resigned: 0, overruled: sealed ? null : { gen: value.gen, voters: standing } })
  done(
    turn,
    asked,
    `${s.node} is primary of gen ${value.gen}; ${sealed ? `${s.peer} may come back` : unsealed(s, standing)}`,
  )
}

const outvotedBy = (s: HostState, voters: Voters): boolean =>
  isOutvoted(voters, voters[s.node] === s.durable.inc ? [s.node] : [])

/**
 * Whose majority a forced takeover has to end. What this host accepted may have been chosen although it is not known here:
 * neither value may have one left. A host that was removed is told of no change any more: the other one may be alone by now.
 */
function overruledBy(s: HostState, { known, newest }: { known: Value; newest: Value }): Voters {
  const other = newest.voters[s.peer]
  if (newest.voters[s.node] !== s.durable.inc && other !== undefined) return { [s.peer]: other }
  return outvotedBy(s, known.voters) ? newest.voters : known.voters
}

/** The other one alone could go on in the old gen: no vote that is withheld from it stops it. */
const unsealed = (s: HostState, voters: Voters): string =>
  Object.keys(voters).length === 1
    ? `${s.peer} needs no vote but its own: keep it off, and give it a new store before it comes back`
    : 'keep the other host off until this is sealed'

/** The diverged data of this host may be rewound or replaced, so that it can follow the primary of that gen. */
function giveUp(turn: Turn, gen: number, asked: Asked): void {
  const { s } = turn
  const known = knownValue(s)
  if (known?.gen !== gen)
    return refuse(turn, asked, `the command is meant for gen ${gen}, the register is at gen ${known?.gen ?? 0}`)
  if (known.primary === s.node) return refuse(turn, asked, 'this host is the primary; its data is the data')
  persist(turn, { gaveUpGen: gen })
  s.duty = { ...s.duty, said: { ...s.duty.said, database: '' } }
  done(turn, asked, `the data that this host has and gen ${gen} has not may be given up`)
}

/**
 * A primary hands over; a backup has its eligibility taken back, so that nothing waits for it when it goes. For good: it
 * then has itself removed from the members.
 */
function leave(turn: Turn, asked: Asked): void {
  const { s } = turn
  const { command } = asked
  if (command === 'depart' && isPrimary(s)) {
    const obstacle = readyToSwitch(s, turn.now)
    // It stays what it was: whoever can't hand over can't go.
    if (obstacle !== null) return refuse(turn, asked, obstacle)
  }
  const leaving = command === 'depart' || s.duty.leaving === 'for good' ? 'for good' : 'for now'
  s.duty = { ...s.duty, leaving }
  if (isPrimary(s)) {
    beginSwitchover(turn, command === 'depart' ? 'this host leaves the pair' : 'this host is about to stop', asked)
    return
  }
  if (inDoubt(s) || !isBackup(s)) closeGate(turn, 'this host is about to stop')
  done(turn, asked, 'the primary is asked to go on without this host')
}
