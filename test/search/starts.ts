import { newDurable } from '../../shared/protocol/durable.ts'
import { newHost } from '../../shared/protocol/step.ts'
import type { DataNode, OperatorCommand } from '../../shared/protocol/types.ts'
import { Violation } from '../simulation/checkers/check.ts'
import { type Action, after, choicesOf, nameWitness, reboot } from './actions.ts'
import { noDatabase } from './database.ts'
import { type Budget, dataNodes, type HostWorld, searchTiming, type World } from './pair.ts'
import { type Draft, draftOf, give } from './run.ts'
import { emptyTruth } from './truth.ts'

/** The states that searches begin with: each is reached by the cores themselves, from a set-up on, in a calm world. */
export interface Start {
  name: string
  /** What the search is to find out. */
  asks: string
  world: () => World
}

const nothing: Budget = {
  writes: 0,
  cuts: 0,
  crashes: 0,
  reboots: 0,
  stops: 0,
  databaseDeaths: 0,
  wipes: 0,
  duplicates: 0,
  switchovers: 0,
  forces: 0,
  renames: 0,
}

const host = (node: DataNode): HostWorld => ({
  core: newHost({ node, timing: searchTiming }),
  agent: 'down',
  boots: 1,
  nonces: 0,
  incs: 1,
  wanted: 'w1',
  disk: newDurable(`${node}1`),
  gate: { state: 'frozen', until: 0 },
  // initdb on the first host, nothing on the other.
  database: node === 'a' ? { ...noDatabase, log: [1], timeline: 1 } : noDatabase,
  op: null,
  stalled: false,
  promiseUntil: 0,
  quarantineUntil: 0,
  candidacy: 0,
})

const bare: World = {
  now: 1000,
  hosts: { a: host('a'), b: host('b') },
  witness: { inc: 'w1', promised: 0, acc: null },
  former: null,
  net: [],
  cuts: [],
  truth: emptyTruth,
  acked: [],
  seen: [],
  budget: nothing,
}

const do1 = (world: World, action: Action): World => after(world, action, { crashAt: -1, log: null }).world

const calmStepsMax = 5000

export function calmUntil(from: World, reached: (world: World) => boolean): World {
  let world = from
  for (let i = 0; i < calmStepsMax; i++) {
    if (reached(world)) return world
    world = do1(world, choicesOf(world)[0]!.action)
  }
  throw new Violation('L1', `a calm world does not get there in ${calmStepsMax} steps: ${reached}`)
}

/** Both agents have started, and an operator has told the first host to begin a pair. */
export function begun(): World {
  const started = do1(do1(bare, { does: 'start', node: 'a' }), { does: 'start', node: 'b' })
  return command(started, 'a', { command: 'init' })
}

/** Set-up, up to a primary a that serves, with b following and w as the third voter. */
export const setUp = (): World => calmUntil(begun(), now => now.truth.latest?.value.voters.b !== undefined)

export const isProtected = (world: World): boolean =>
  world.truth.latest?.value.successor === true &&
  world.hosts.a.core.durable.known?.value.successor === true &&
  dataNodes.every(node => world.hosts[node].core.round === null)

export const withBudget = (world: World, budget: Partial<Budget>): World => ({
  ...world,
  budget: { ...nothing, ...budget },
})

/** The world after something was done to it that is no action of the search. */
function by(world: World, act: (d: Draft) => void): World {
  const d = draftOf(world, -1, null)
  act(d)
  const { moments: _, crashAt: __, log: ___, ...next } = d
  return next
}

export const command = (world: World, node: DataNode, wish: OperatorCommand): World =>
  by(world, d => give(d, node, { event: 'operator', command: wish }))

export const protectedPair = (): World => calmUntil(setUp(), isProtected)

/** Everything serves, nobody may succeed: maintenance keeps the primary from a Grow. */
const pinnedPair = (): World =>
  calmUntil(command(setUp(), 'a', { command: 'maintenance', until: 1e9 }), world => {
    const { core } = world.hosts.a
    return core.round === null && core.lease.leaseUntil > world.now && core.database.passedBy === 'b1'
  })

const round = (world: World, node: DataNode) => world.hosts[node].core.round
const proposes = (node: DataNode, change: string) => (world: World) => round(world, node)?.change === change

/** Nothing that a says is heard any more, until its lease is over. */
function unheard(world: World): World {
  let next = world
  while (next.hosts.a.gate.state === 'open') {
    next = { ...next, net: next.net.filter(flight => flight.from !== 'a') }
    next = do1(next, choicesOf(next)[0]!.action)
  }
  return next
}

/** Its backup is not heard, nor the witness once that has accepted the shrink: it resigns from that version too. */
function resignedInDoubt(): World {
  let next: World = { ...protectedPair(), cuts: ['b→a'] }
  next = calmUntil(next, world => round(world, 'a')?.phase === 'accept')
  const { ballot } = round(next, 'a')!
  next = calmUntil(next, world => world.witness.acc?.ballot === ballot)
  const deaf: World = { ...next, cuts: ['b→a', 'a↔w'], net: next.net.filter(({ to }) => to !== 'a') }
  return calmUntil(deaf, world => world.hosts.a.disk.resigned !== 0)
}

/** A new row for the witness, named to both hosts. */
const replaceWitness = (world: World): World =>
  by(world, d => {
    d.witness = { inc: 'w2', promised: 0, acc: null }
    for (const node of dataNodes) nameWitness(d, node, 'w2')
  })

/** Another witness has taken the place of the first, which is named again now: as it was, with all that it promised. */
function witnessBack(): World {
  const first = protectedPair()
  const other = calmUntil(
    { ...replaceWitness(first), former: first.witness },
    world => isProtected(world) && world.truth.latest?.value.voters.w === 'w2',
  )
  return by({ ...other, witness: other.former!, former: other.witness }, d => {
    for (const node of dataNodes) nameWitness(d, node, d.witness.inc)
  })
}

const forced = (world: World, withWitness: { withWitness: boolean }): World => {
  const off = by(world, d => {
    reboot(d, 'a')
    d.hosts.a.agent = 'off'
  })
  const { gen, epoch } = off.hosts.b.disk.known!.value
  return command(off, 'b', { command: 'force', gen, epoch, ...withWitness })
}

export const starts: readonly Start[] = [
  {
    name: 'protected',
    asks: 'a healthy pair loses its agents, messages and time',
    world: () => withBudget(protectedPair(), { writes: 1, crashes: 2, cuts: 2 }),
  },
  {
    name: 'power',
    asks: 'a healthy pair loses the power of one host, and an agent',
    world: () => withBudget(protectedPair(), { writes: 1, crashes: 1, reboots: 1, cuts: 1 }),
  },
  {
    name: 'stopped',
    asks: 'an agent of a healthy pair stands still for a while',
    world: () => withBudget(protectedPair(), { writes: 1, crashes: 1, stops: 1, cuts: 1 }),
  },
  {
    name: 'before-grow',
    asks: 'a Grow is about to be proposed',
    world: () => withBudget(calmUntil(setUp(), proposes('a', 'grow')), { crashes: 2, writes: 1, cuts: 1 }),
  },
  {
    name: 'pinned',
    asks: 'nobody may succeed, and the primary loses power, its database, or is told to switch over',
    world: () =>
      withBudget(pinnedPair(), { writes: 1, crashes: 1, reboots: 1, databaseDeaths: 1, switchovers: 1, cuts: 1 }),
  },
  {
    name: 'switchover',
    asks: 'the database of the old primary is dead, the hand-over not yet proposed',
    world: () => {
      const told = command(protectedPair(), 'a', { command: 'switchover', epoch: 1 })
      return withBudget(
        calmUntil(told, world => world.hosts.a.core.vacate?.end != null),
        { crashes: 2, duplicates: 1, cuts: 1 },
      )
    },
  },
  {
    name: 'database-died',
    asks: 'the database of a protected primary died: hand over or resign',
    world: () => {
      const dead = do1(withBudget(protectedPair(), { databaseDeaths: 1 }), { does: 'lose database', node: 'a' })
      return withBudget(dead, { crashes: 2, duplicates: 1, cuts: 1, writes: 1 })
    },
  },
  {
    name: 'resigned-in-doubt',
    asks: 'the primary went deaf as its shrink was accepted, and has resigned from it',
    world: () => withBudget(resignedInDoubt(), { crashes: 2, duplicates: 1, cuts: 1, writes: 1 }),
  },
  {
    name: 'candidacy',
    asks: 'the backup stands while the agent of the primary is stopped',
    world: () => {
      const stopped = do1(withBudget(protectedPair(), { stops: 1 }), { does: 'stop', node: 'a' })
      return withBudget(calmUntil(stopped, proposes('b', 'takeover')), { crashes: 2, cuts: 1 })
    },
  },
  {
    name: 'unheard',
    asks: 'the primary was not heard until its lease ended, and all links are back',
    world: () => withBudget(unheard(protectedPair()), { crashes: 2, duplicates: 1, cuts: 1 }),
  },
  {
    name: 'forced',
    asks: 'an operator has forced b, the other host is off until that is sealed',
    world: () => withBudget(forced(protectedPair(), { withWitness: true }), { crashes: 2, duplicates: 1, cuts: 1 }),
  },
  {
    name: 'forced-alone',
    asks: 'the same, but the witness is no voter of the new gen, and the hosts do not hear each other',
    world: () => {
      const alone = forced(protectedPair(), { withWitness: false })
      return withBudget({ ...alone, cuts: ['a→b', 'b→a'] }, { crashes: 1 })
    },
  },
  {
    name: 'backup-wiped',
    asks: 'the backup comes back with an empty store',
    world: () => {
      const wiped = do1(withBudget(protectedPair(), { wipes: 1 }), { does: 'wipe', node: 'b' })
      return withBudget(calmUntil(wiped, proposes('a', 'remove')), { crashes: 1, writes: 1, cuts: 1 })
    },
  },
  {
    name: 'witness-replaced',
    asks: 'the witness has a new row, the old one is about to be removed',
    world: () =>
      withBudget(calmUntil(replaceWitness(protectedPair()), proposes('a', 'remove')), {
        crashes: 1,
        writes: 1,
        cuts: 1,
      }),
  },
  {
    name: 'witness-back',
    asks: 'the witness before is named again under its old incarnation, and hosts change their minds',
    world: () =>
      withBudget(calmUntil(witnessBack(), proposes('a', 'remove')), { crashes: 1, writes: 1, cuts: 1, renames: 2 }),
  },
]

export function startOf(name: string): Start {
  const start = starts.find(one => one.name === name)
  if (start === undefined)
    throw new Error(`There is no start "${name}"; there are ${starts.map(one => one.name).join(', ')}.`)
  return start
}
