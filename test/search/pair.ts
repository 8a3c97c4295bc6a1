import type { HostState } from '../../shared/protocol/state.ts'
import type { Timing } from '../../shared/protocol/timing.ts'
import { timingOf } from '../../shared/protocol/timing.ts'
import type {
  Accepted,
  AcceptorState,
  Ballot,
  DatabaseOp,
  DataNode,
  Durable,
  GateState,
  Incarnation,
  Message,
  NodeId,
} from '../../shared/protocol/types.ts'

/**
 * The world that is searched: the cores as they are, around them the least that a pair needs. Every part is replaced and
 * never changed in place, so that states share what they have in common.
 */
export interface World {
  now: number
  hosts: { a: HostWorld; b: HostWorld }
  witness: AcceptorState
  /** The witness before that one, on another machine, with all that it promised; null: it is gone. */
  former: AcceptorState | null
  net: readonly Flight[]
  /** Directions in which everything that is sent is lost. */
  cuts: readonly Link[]
  truth: Truth
  /** Records acknowledged to a client, and records that a client could read. */
  acked: readonly number[]
  seen: readonly number[]
  /** Faults and wishes that are left. */
  budget: Budget
}

export interface HostWorld {
  core: HostState
  /** `down`: it starts in its turn. `resting`: at any time or never. `off`: an operator keeps the whole host off. */
  agent: 'up' | 'stopped' | 'down' | 'resting' | 'off'
  boots: number
  nonces: number
  incs: number
  /** The witness that its configuration names. */
  wanted: Incarnation
  disk: Durable
  gate: { state: GateState; until: number }
  database: Database
  op: { id: number; op: DatabaseOp; held: boolean } | null
  /** Its stream, as a standby, stands still. */
  stalled: boolean
  /** What this host owes, seen from outside: the promise it gave, the wait after a start, a takeover that may be chosen. */
  promiseUntil: number
  quarantineUntil: number
  candidacy: Ballot
}

export interface Database {
  process: 'none' | 'standby' | 'primary' | 'dead'
  /** Its records in order, each with its own number; how many there are is the LSN. 0 records: there is no cluster. */
  log: readonly number[]
  timeline: number
  epoch: number
  names: 'set' | 'empty'
  /** The names are in force: a commit waits. */
  inForce: boolean
  /** Standby: the epoch of the primary that it follows. */
  follows: number
  /** Commits that wait for the standby. */
  waiting: readonly number[]
  waitingAt: number
}

export type Link = 'a→b' | 'b→a' | 'a↔w' | 'b↔w'
export const links: readonly Link[] = ['a→b', 'b→a', 'a↔w', 'b↔w']

export const linkOf = (from: NodeId, to: NodeId): Link =>
  from === 'w' || to === 'w' ? (from === 'a' || to === 'a' ? 'a↔w' : 'b↔w') : from === 'a' ? 'a→b' : 'b→a'

export interface Flight {
  from: NodeId
  to: NodeId
  message: Message
  /** Heartbeats and acks: when the heartbeat left. */
  sentAt: number
  /** Late, or lost: it does not arrive in its turn. */
  held: boolean
}

/** What lies on the members' disks, seen from above. */
export interface Truth {
  entries: readonly Entry[]
  /** The chosen value with the highest ballot. */
  latest: Accepted | null
}
export interface Entry {
  accepted: Accepted
  by: readonly Incarnation[]
  chosen: boolean
}

export interface Budget {
  writes: number
  /** Links that are cut, and mended at any time. */
  cuts: number
  /** The agent dies, after any effect that leaves a trace, and is started again at any time. */
  crashes: number
  /** The host loses power. */
  reboots: number
  /** The agent is stopped, and continued at any time. */
  stops: number
  /** The postmaster dies. */
  databaseDeaths: number
  /** A store is lost and comes back empty, with another incarnation. */
  wipes: number
  /** Messages that arrive twice. */
  duplicates: number
  switchovers: number
  forces: number
  /** A configuration names the other one of two witnesses. */
  renames: number
}
export type BudgetItem = keyof Budget

export const otherOf = { a: 'b', b: 'a' } as const satisfies Record<DataNode, DataNode>
export const dataNodes = ['a', 'b'] as const

/** One instant of the searched time: a heartbeat each. */
export const unitMs = 100

/**
 * The protocol's constants in few units, so that little time is many situations: L 5, Lp 4, D 3, D/2 2. What is slow in a
 * real pair (probes of the witness, pins, hold-downs) is either at once or never.
 */
export const searchTiming: Timing = {
  ...timingOf('default'),
  leaseMs: 5 * unitMs,
  leaseHeldMs: 4 * unitMs,
  heartbeatMs: unitMs,
  heartbeatRetryMs: unitMs,
  silenceMs: 3 * unitMs,
  prepareAfterMs: 2 * unitMs,
  drift: 0,
  closeMs: 0,
  grantSlopMs: 0,
  renewEveryMs: unitMs,
  voteBudgetMs: 0,
  fsyncBudgetMs: 0,
  pinnedGrantMs: 6 * unitMs,
  roundLimitMs: 3 * unitMs,
  resendMs: 2 * unitMs,
  backoffMs: unitMs,
  stallMs: 3 * unitMs,
  abdicateAfterMs: 10 * unitMs,
  witnessProbeMs: 1e6,
  witnessFreshMs: 1e7,
  drainMs: unitMs,
  switchoverLimitMs: 6 * unitMs,
  vipOverlapMaxMs: unitMs,
  retryMs: unitMs,
  restartBudget: 1,
  persistLimitMs: 5 * unitMs,
  maxFlushedEveryMs: 0,
  unpinAfterMs: 2 * unitMs,
  regrowAfterMs: unitMs,
  regrowMaxMs: unitMs,
}

export const isUp = (host: HostWorld): boolean => host.agent === 'up' || host.agent === 'stopped'

/** Whether a client would get an answer from this host. */
export const serves = (world: World, node: DataNode): boolean => {
  const { gate, database } = world.hosts[node]
  return gate.state === 'open' && gate.until > world.now && database.process !== 'none'
}
