import { proposerOf } from '../../shared/protocol/ballot.ts'
import { isOlder } from '../../shared/protocol/facts.ts'
import { brokenPromise, notOnDisk } from '../../shared/protocol/invariants.ts'
import type { HostState } from '../../shared/protocol/state.ts'
import type { Accepted, AcceptorState, DataNode, Durable, Event, Message, Voters } from '../../shared/protocol/types.ts'
import { Violation } from '../simulation/checkers/check.ts'
import { isDecree, sameValue, show } from '../simulation/checkers/register-truth.ts'
import { dataNodes, type Entry, otherOf, serves, type Truth, type World } from './pair.ts'

/**
 * I1 to I9, seen from above, over one state or one step. The same properties as the simulation's checkers, which watch
 * a world that changes; here a state is a value, and the past that matters is part of it.
 */

export const emptyTruth: Truth = { entries: [], latest: null }

/** A member has this on its disk. */
export function stored(world: World, state: AcceptorState): Truth {
  const { truth } = world
  const { acc, inc } = state
  if (acc === null) return truth
  const at = truth.entries.findIndex(one => one.accepted.ballot === acc.ballot)
  const found = at < 0 ? undefined : truth.entries[at]
  if (found !== undefined && !sameValue(found.accepted.value, acc.value))
    throw new Violation('I3', `two values bear ballot ${acc.ballot}: ${show(found.accepted.value)}, ${show(acc.value)}`)
  if (found?.by.includes(inc)) return truth
  const entry: Entry = { accepted: acc, by: [...(found?.by ?? []), inc], chosen: found?.chosen ?? false }
  const entries = found === undefined ? [...truth.entries, entry] : truth.entries.with(at, entry)
  if (entry.chosen || !isChosen(entries, entry)) return { entries, latest: truth.latest }
  return choose(world, entries, entry)
}

function isChosen(entries: readonly Entry[], entry: Entry): boolean {
  const { value, ballot } = entry.accepted
  if (isDecree(ballot)) return true
  if (!majority(value.voters, entry.by)) return false
  const before = valueBefore(entries, entry.accepted)
  if (before === null) return true
  // Driven again under a later ballot, a change needs the new voters only: whoever proposes then has it already.
  const first = firstOf(entries, entry.accepted)
  return first.accepted.ballot !== ballot || majority(before.value.voters, entry.by)
}

const firstOf = (entries: readonly Entry[], accepted: Accepted): Entry =>
  entries
    .filter(one => sameValue(one.accepted.value, accepted.value))
    .reduce((least, one) => (one.accepted.ballot < least.accepted.ballot ? one : least))

const valueBefore = (entries: readonly Entry[], { value }: Accepted): Accepted | null =>
  entries.find(
    one => one.chosen && one.accepted.value.gen === value.gen && one.accepted.value.version === value.version - 1,
  )?.accepted ?? null

function choose(world: World, before: readonly Entry[], entry: Entry): Truth {
  const { latest } = world.truth
  const { accepted } = entry
  const { value, ballot } = accepted
  const entries = before.map(one => (one.accepted.ballot === ballot ? { ...one, chosen: true } : one))
  for (const { chosen, accepted: other } of before) {
    if (!chosen || other.value.gen !== value.gen) continue
    if (other.value.version === value.version && !sameValue(other.value, value))
      throw new Violation('I3', `two values of one version were chosen: ${show(other.value)} and ${show(value)}`)
    if (other.value.epoch === value.epoch && other.value.primary !== value.primary)
      throw new Violation('I3', `epoch ${value.epoch} has two primaries`)
  }
  if (latest !== null && ballot > latest.ballot && isOlder(value, latest.value))
    throw new Violation('I3', `after ${show(latest.value)} an older value was chosen: ${show(value)}`)
  demandRight(world, before, accepted)
  demandShutGates(world, accepted)
  return { entries, latest: latest === null || ballot > latest.ballot ? accepted : latest }
}

/**
 * I4: a takeover is chosen only where the taker was the successor in the value before, or where the primary has durably
 * resigned from that value.
 */
function demandRight(world: World, entries: readonly Entry[], accepted: Accepted): void {
  const was = valueBefore(entries, accepted)?.value
  if (isDecree(accepted.ballot) || was === undefined || was.primary === accepted.value.primary || was.successor) return
  if (proposerOf(firstOf(entries, accepted).accepted.ballot) !== accepted.value.primary) return
  if (world.hosts[was.primary].disk.resigned === was.version) return
  throw new Violation('I4', `${accepted.value.primary} took over by ${show(accepted.value)} from ${show(was)}`)
}

/** I7, as a value is chosen: a gate is open no longer than the promise of whoever may take over from now on. */
function demandShutGates(world: World, { value, ballot }: Accepted): void {
  const { latest } = world.truth
  if (latest !== null && ballot < latest.ballot) return
  const gate = world.hosts[value.primary].gate
  if (value.successor && gate.state === 'open') demandPromise(world, value.primary, gate.until, 'a successor is chosen')
  if (latest === null || latest.value.primary === value.primary || isDecree(ballot)) return
  if (serves(world, otherOf[value.primary]))
    throw new Violation('I7', `the gate of ${otherOf[value.primary]} is open although ${show(value)} is chosen`)
}

function demandPromise(world: World, node: DataNode, until: number, why: string): void {
  const end = world.hosts[otherOf[node]].promiseUntil
  if (until > end && until > world.now)
    throw new Violation('I7', `${why}: the gate of ${node} stays open until ${until}, the promise ends at ${end}`)
}

/** I7, as a grant is applied. */
export function demandGrant(world: World, node: DataNode, until: number): void {
  const latest = world.truth.latest?.value
  if (latest === undefined || latest.primary !== node)
    throw new Violation('I7', `the gate of ${node} opens while the register says ${latest ? show(latest) : 'nothing'}`)
  if (latest.successor) demandPromise(world, node, until, 'a grant is applied')
}

/** I9: nothing is said that is not on the disk of whoever says it. */
export function demandOnDisk(disk: Durable, node: DataNode, message: Message): void {
  const missing = notOnDisk(disk, message)
  if (missing !== null) throw new Violation('I9', `${node} ${missing}`)
}

/** I9: what a host takes for committed lies on the disks of a quorum. */
export function demandChosen(world: World, node: DataNode, disk: Durable): void {
  const ballot = disk.known?.ballot ?? 0
  if (ballot === 0) return
  if (!world.truth.entries.some(one => one.chosen && one.accepted.ballot === ballot))
    throw new Violation('I9', `${node} takes ballot ${ballot} for committed, which no quorum holds`)
}

/** I8: an acceptor's promise, on disk. */
export function demandKept(before: Durable, after: Durable, node: DataNode): void {
  const broken = before.inc === after.inc ? brokenPromise(before, after) : null
  if (broken !== null) throw new Violation('I8', `${node} ${broken}`)
}

/** I8: the promise to wait, the wait after a start, and silence during a candidacy. Answers what candidacy is open. */
export function demandPatience(world: World, node: DataNode, after: HostState, before: HostState): number {
  const host = world.hosts[node]
  const { round } = after
  let { candidacy } = host
  if (round !== null && round.change === 'takeover' && before.round?.ballot !== round.ballot) {
    candidacy = round.ballot
    if (world.now < host.quarantineUntil) throw new Violation('I8', `${node} stands too soon after its start`)
    const resigned = round.resigned !== 0 && world.hosts[otherOf[node]].disk.resigned === round.resigned
    if (!resigned && world.now < host.promiseUntil)
      throw new Violation('I8', `${node} stands before its promise ends at ${host.promiseUntil}`)
  }
  return (after.durable.known?.ballot ?? 0) >= candidacy ? 0 : candidacy
}

/** I10: a command changes the reign that it names, or nothing. */
export function demandMeant(before: HostState, after: HostState, event: Event): void {
  if (event.event !== 'operator') return
  const was = before.durable.known?.value
  const { command } = event
  const changed = after.durable.known !== before.durable.known || (after.vacate !== null && before.vacate === null)
  if (!changed || !('epoch' in command) || was?.epoch === command.epoch) return
  throw new Violation('I10', `a command meant for epoch ${command.epoch} took effect in epoch ${was?.epoch}`)
}

/** I1, I2, I5: one host serves, and it has all that was acknowledged or could be read. */
export function demandOneWholeServer(world: World): void {
  if (serves(world, 'a') && serves(world, 'b')) throw new Violation('I1', 'both hosts serve')
  for (const node of dataNodes) {
    const { log, process } = world.hosts[node].database
    if (!serves(world, node) || process !== 'primary') continue
    const lost = world.acked.find(record => !log.includes(record))
    if (lost !== undefined) throw new Violation('I2', `${node} serves without the acknowledged record ${lost}`)
    const gone = world.seen.find(record => !log.includes(record))
    if (gone !== undefined) throw new Violation('I5', `${node} serves without record ${gone}, which was read`)
  }
}

function majority(voters: Voters, by: readonly string[]): boolean {
  const incs = Object.values(voters)
  return incs.filter(inc => by.includes(inc)).length * 2 > incs.length
}
