import { roundOf } from '../../../shared/protocol/ballot.ts'
import type {
  Accepted,
  AcceptorState,
  Ballot,
  Incarnation,
  NodeId,
  Value,
  Voters,
} from '../../../shared/protocol/types.ts'
import { Violation } from './check.ts'

/** Written by an operator's decree, not by a vote: the first round of a gen. */
export const isDecree = (ballot: Ballot): boolean => roundOf(ballot) === 1

interface Entry {
  value: Value
  /** Who ever had it on disk. */
  by: Set<Incarnation>
  chosen: boolean
}

/** Which values were chosen, seen from above: by what lies on the members' disks. */
export class RegisterTruth {
  private readonly entries = new Map<Ballot, Entry>()
  /** The first chosen ballot of each (gen, version). */
  private readonly versions = new Map<string, Accepted>()
  private readonly onChosen: (accepted: Accepted, before: Accepted | null) => void
  private readonly last = new Map<NodeId, Accepted | null>()
  /** The chosen value with the highest ballot. */
  latest: Accepted | null = null

  constructor(onChosen: (accepted: Accepted, before: Accepted | null) => void) {
    this.onChosen = onChosen
  }

  isChosen(ballot: Ballot): boolean {
    return this.entries.get(ballot)?.chosen === true
  }

  before(value: Value): Accepted | null {
    return this.versions.get(`${value.gen}.${value.version - 1}`) ?? null
  }

  stored(node: NodeId, state: AcceptorState): void {
    const { acc } = state
    if (acc === null || this.last.get(node) === acc) return
    this.last.set(node, acc)
    let entry = this.entries.get(acc.ballot)
    if (entry === undefined) {
      entry = { value: acc.value, by: new Set(), chosen: false }
      this.entries.set(acc.ballot, entry)
    } else if (!sameValue(entry.value, acc.value)) {
      throw new Violation('I3', `two values bear ballot ${acc.ballot}: ${show(entry.value)} and ${show(acc.value)}`)
    }
    entry.by.add(state.inc)
    if (!entry.chosen && this.hasQuorum(acc.ballot, entry)) this.choose(acc, entry)
  }

  private hasQuorum(ballot: Ballot, entry: Entry): boolean {
    if (isDecree(ballot)) return true
    const { value } = entry
    if (!majority(value.voters, entry.by)) return false
    const before = this.before(value)
    // Driven again under a later ballot, a change needs the new voters only: whoever proposes then has it already.
    if (before === null || this.firstOf(value) !== ballot) return true
    return majority(before.value.voters, entry.by)
  }

  private firstOf(value: Value): Ballot {
    let first = Number.POSITIVE_INFINITY
    for (const [ballot, entry] of this.entries) if (ballot < first && sameValue(entry.value, value)) first = ballot
    return first
  }

  private choose(accepted: Accepted, entry: Entry): void {
    entry.chosen = true
    const { value, ballot } = accepted
    const key = `${value.gen}.${value.version}`
    const first = this.versions.get(key)
    if (first === undefined) this.versions.set(key, accepted)
    else if (!sameValue(first.value, value)) {
      throw new Violation('I3', `two values of version ${key} were chosen: ${show(first.value)} and ${show(value)}`)
    }
    const before = this.latest
    if (before === null || ballot > before.ballot) this.latest = accepted
    this.onChosen(accepted, before)
  }
}

function majority(voters: Voters, by: ReadonlySet<Incarnation>): boolean {
  const incs = Object.values(voters)
  let votes = 0
  for (const inc of incs) if (by.has(inc)) votes++
  return votes * 2 > incs.length
}

export const sameValue = (x: Value, y: Value): boolean =>
  x === y ||
  (x.gen === y.gen &&
    x.version === y.version &&
    x.epoch === y.epoch &&
    x.primary === y.primary &&
    x.successor === y.successor &&
    x.voters.a === y.voters.a &&
    x.voters.b === y.voters.b &&
    x.voters.w === y.voters.w)

export const show = (v: Value): string =>
  `gen ${v.gen} epoch ${v.epoch} version ${v.version} primary ${v.primary}${v.successor ? ' with' : ' without'} a successor [${Object.values(v.voters).join(' ')}]`
