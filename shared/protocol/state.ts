import { newDurable } from './durable.ts'
import { otherNode } from './nodes.ts'
import type { Timing } from './timing.ts'
import type {
  Accepted,
  Ack,
  Asked,
  Ballot,
  DatabaseOp,
  DatabaseView,
  DataNode,
  Durable,
  GateReport,
  Heartbeat,
  Incarnation,
  NodeId,
  Value,
  WalPosition,
} from './types.ts'

/**
 * All that one data host's core knows. Plain data; nested objects are replaced, never changed in place.
 * Only `durable` outlives the process.
 */
export interface HostState {
  node: DataNode
  peer: DataNode
  timing: Timing
  started: boolean
  startedAt: number
  boot: string
  nonce: number
  durable: Durable
  persist: PersistState
  round: Round | null
  /** No new round before this: random back-off after one that failed. */
  roundAfterAt: number
  /** Highest round number seen in any ballot. */
  nSeen: number
  req: number
  /** An own Grow (or, after a start, any own change in doubt) may still be chosen: closes when known reaches it. */
  openGrow: Ballot
  /** When this host last accepted a value of another proposer. */
  acceptedAt: number
  lease: LeaseState
  backup: BackupState
  witness: WitnessState
  gate: GateView
  /** After a start nobody knows whether the address is there: it is put up again before the gate opens, and taken down otherwise. */
  vip: { up: boolean | 'unknown'; downAt: number }
  servicesRunning: boolean
  database: DatabaseState
  vacate: Vacate | null
  duty: DutyState
  uplink: boolean
}

export interface PersistState {
  seq: number
  done: number
  /** When each unfinished write was asked for, the oldest first: what is queued behind them waits as long. */
  pending: { seq: number; askedAt: number }[]
  /** The newest write that ended had hung. */
  hung: boolean
  /** When the newest write was asked for. */
  newestAt: number
}

export type Change = 'confirm' | 'shrink' | 'grow' | 'handover' | 'takeover' | 'add' | 'remove'

export interface Round {
  ballot: Ballot
  change: Change
  /** Why it was begun, for people; also which of several grounds a Shrink stands on. */
  ground: Ground
  phase: 'prepare' | 'ready' | 'accept' | 'cas'
  startedAt: number
  sentAt: number
  /** Requests by member, so that a late answer of another round counts for nothing. */
  req: number
  promises: { [node in NodeId]?: { inc: Incarnation; acc: Accepted | null } }
  /** Best value of phase 1: the old value. */
  best: Accepted | null
  value: Value | null
  accepts: { [node in NodeId]?: Incarnation }
  /** Add and Remove: the member. */
  member: { node: NodeId; inc: Incarnation } | null
  /** Takeover after a Resign: the version that was resigned from; 0 = none. */
  resigned: number
}
export type Ground =
  | 'boot'
  | 'doubt'
  | 'seal'
  | 'silent'
  | 'stalled'
  | 'replica gone'
  | 'witness away'
  | 'maintenance'
  | 'leave'
  | 'member change'
  | 'resigned'
  | 'ready'
  | 'released'
  | 'lease over'

export interface LeaseState {
  leaseUntil: number
  seq: number
  nextBeatAt: number
  /** Send times of the latest heartbeats; an ack counts from here. */
  beats: { seq: number; sentAt: number }[]
  /** The newest answer of S to this nonce, promising or not. */
  ack: Ack | null
  ackSentAt: number
  ackAt: number
  /** The newest promising answer. */
  promisedAt: number
  /** Since when this host has been the primary of this epoch, in this start. */
  primaryAt: number
  /** Last lease or finished round; abdication counts from here. */
  progressAt: number
  abdicated: boolean
  abdicatedAt: number
  /** P's walsender to S is gone since. */
  replicaGoneAt: number
}

export interface BackupState {
  /** No candidacy before: the wait after a start or a clock jump. */
  quarantineUntil: number
  /** When this host last told a primary it has not heard that it is there. */
  greetedAt: number
  /** No candidacy before: promised to P. */
  promiseUntil: number
  heartbeat: Heartbeat | null
  heardAt: number
  /** A candidacy is open: nothing is acknowledged. */
  candidacy: boolean
  candidacyAfterAt: number
  /** Version P resigned from, as heard; 0 = none. */
  resignHeard: number
  flushedPersistAt: number
  /** The standby runs but does not follow, since. */
  astrayAt: number
  /** How often it was joined since it last streamed. */
  astrayJoins: number
}

export interface WitnessState {
  /** The incarnation that is wanted as a voter. */
  wanted: Incarnation | null
  answeredAt: number
  probeAt: number
  probeReq: number
  /** The latest request that had been asked when W last said more than before: an answer to it or an earlier one may say less. */
  seenReq: number
  /** First probe or vote without an answer since the last answer; 0 = none. */
  unansweredAt: number
  /** Reached without a break since; 0 = not reached. */
  backAt: number
  pinned: boolean
}

export interface GateView {
  seq: number
  set: 'open' | 'frozen' | 'closed' | 'untouched'
  /** Bound on the kernel's expiry, whatever is still on its way to it. */
  grantUntil: number
  /** What the newest grant was asked to reach; the kernel's expiry is a little before that. */
  askedUntil: number
  report: GateReport
  /** The newest effect that was answered. */
  reported: number
  setAt: number
}

export interface DatabaseState {
  view: DatabaseView
  op: { id: number; op: DatabaseOp; startedAt: number } | null
  opSeq: number
  retryAt: number
  failures: number
  lastError: string
  /** Synchronous replication is proven in force since the database started, and the position that was read then. */
  barrier: WalPosition | null
  /** End of the log when the names were last emptied: a backup that has flushed this far keeps up again. */
  lostLsn: number
  /** The incarnation of the peer that has flushed the barrier, '' = none. */
  passedBy: Incarnation
  /** The database ran as a primary since this host last started or stopped it: gone means died. */
  ran: boolean
  restartsAt: number[]
}

/** P gives its place up: planned (frozen, drained) or because its database failed (closed). */
export interface Vacate {
  kind: 'planned' | 'failure'
  why: string
  startedAt: number
  drained: boolean
  /** End of the log once no process is left. */
  end: WalPosition | null
  killedAt: number
  /** The newest heartbeat that was sent before: only answers to later ones tell what S has since. */
  killedSeq: number
  answer: Asked | null
}

export interface DutyState {
  maintenanceUntil: number
  /** For a while, or to be no member any more. */
  leaving: 'no' | 'for now' | 'for good'
  /** S asks P for a switchover until then; 0 = it does not. */
  asksSwitchoverUntil: number
  /** P took a switchover back, or it was called off. */
  takenBackAt: number
  resignedAt: number
  resignSentAt: number
  /** Hold-down before the next Grow. */
  regrowAt: number
  regrowMs: number
  shrunkAt: number
  /** Why it is not growing, serving, following: the newest sentence of each, so that it is said once. */
  said: { [topic: string]: string }
}

/** Before the first look at the database: nothing runs, and nothing is known of its log. */
export const nothingSeen: DatabaseView = {
  process: 'none',
  end: { timeline: 0, lsn: 0 },
  epoch: 0,
  syncNames: 'unknown',
  sender: null,
  streaming: false,
  stalledMs: 0,
  hanging: false,
  stuck: false,
  ioError: false,
}

/** The core before its `start` event: it answers nothing and the gate is not touched. */
export function newHost(options: { node: DataNode; timing: Timing }): HostState {
  const { node, timing } = options
  return {
    node,
    peer: otherNode(node),
    timing,
    started: false,
    startedAt: 0,
    boot: '',
    nonce: 0,
    durable: newDurable(''),
    persist: { seq: 0, done: 0, pending: [], hung: false, newestAt: 0 },
    round: null,
    roundAfterAt: 0,
    nSeen: 0,
    req: 0,
    openGrow: 0,
    acceptedAt: 0,
    lease: {
      leaseUntil: 0,
      seq: 0,
      nextBeatAt: 0,
      beats: [],
      ack: null,
      ackSentAt: 0,
      ackAt: 0,
      promisedAt: 0,
      primaryAt: 0,
      progressAt: 0,
      abdicated: false,
      abdicatedAt: 0,
      replicaGoneAt: 0,
    },
    backup: {
      quarantineUntil: 0,
      greetedAt: 0,
      promiseUntil: 0,
      heartbeat: null,
      heardAt: 0,
      candidacy: false,
      candidacyAfterAt: 0,
      resignHeard: 0,
      flushedPersistAt: 0,
      astrayAt: 0,
      astrayJoins: 0,
    },
    witness: {
      wanted: null,
      answeredAt: 0,
      probeAt: 0,
      probeReq: 0,
      seenReq: 0,
      unansweredAt: 0,
      backAt: 0,
      pinned: false,
    },
    gate: {
      seq: 0,
      set: 'untouched',
      grantUntil: 0,
      askedUntil: 0,
      report: { state: 'frozen', expiresUntil: 0 },
      reported: 0,
      setAt: 0,
    },
    vip: { up: false, downAt: 0 },
    servicesRunning: false,
    database: {
      view: nothingSeen,
      op: null,
      opSeq: 0,
      retryAt: 0,
      failures: 0,
      lastError: '',
      barrier: null,
      lostLsn: 0,
      passedBy: '',
      ran: false,
      restartsAt: [],
    },
    vacate: null,
    duty: {
      maintenanceUntil: 0,
      leaving: 'no',
      asksSwitchoverUntil: 0,
      takenBackAt: 0,
      resignedAt: 0,
      resignSentAt: 0,
      regrowAt: 0,
      regrowMs: 0,
      shrunkAt: 0,
      said: {},
    },
    uplink: true,
  }
}
