/**
 * The vocabulary of the failover protocol: plain data only, no behaviour.
 *
 * Every field whose name ends in `At` or `Until` is a time in milliseconds on the host's CLOCK_BOOTTIME (0 = never),
 * so that the exhaustive search can shift all of them to relative time without a list of names.
 */

export type DataNode = 'a' | 'b'
export type NodeId = DataNode | 'w'

/** The incarnation of a member's store: a random id made with the store. A lost or restored store has another one, and no vote. */
export type Incarnation = string

/** A ballot packed into one integer below 2^53, see ballot.ts. 0 = none. */
export type Ballot = number

/** A position in the write-ahead log. LSNs are bytes, compared only together with their timeline. */
export interface WalPosition {
  timeline: number
  lsn: number
}

export type Voters = { [node in NodeId]?: Incarnation }

/** The value of the register. (gen, epoch, version) never goes back on any member. */
export interface Value {
  /** +1 only by a forced takeover. */
  gen: number
  /** +1 with each change. */
  version: number
  /** +1 with each change of primary. */
  epoch: number
  primary: DataNode
  /** True only while the other host has every acknowledged write and may take over without the primary's consent. */
  successor: boolean
  voters: Voters
}

export interface Accepted {
  ballot: Ballot
  value: Value
}

/** What an acceptor keeps on disk; W has nothing else. */
export interface AcceptorState {
  inc: Incarnation
  promised: Ballot
  acc: Accepted | null
}

/** What a data host keeps on disk, in one file. */
export interface Durable extends AcceptorState {
  /** Highest value known to be committed. */
  known: Accepted | null
  /** Highest ballot this host ever proposed. */
  lastOwn: Ballot
  /** The version this host resigned from: known.version, or the next one while that was in doubt; 0 = none. */
  resigned: number
  /** The boot id in which a round started by this host last committed; written by nothing else. '' = none. */
  confirmedBoot: string
  /** For each witness incarnation the highest ballot it answered with: a lower answer means it was rolled back. */
  wSeen: { [inc: string]: Ballot }
  /**
   * The longest lease, in ms, that this host may have promised and that may not be over: kept until one such lease after a
   * start where the profile was changed to one with a shorter lease. 0 = it never promised.
   */
  leaseMs: number
  /** Highest WAL position this host acknowledged as a backup, at most a second old. */
  maxFlushed: WalPosition
  /** The gen in which this host last served or followed; 0 = it has no data of its own. */
  dataGen: number
  /** After a forced takeover elsewhere: the operator allowed this host's own data to be given up for this gen. 0 = none. */
  gaveUpGen: number
  /** What this host's newest forced takeover overruled, until it is sealed: see isSealed in facts.ts. */
  overruled: Overruled | null
}

export interface Overruled {
  /** The gen that was made. */
  gen: number
  /** The members of the value before. */
  voters: Voters
}

// ---------------------------------------------------------------- messages

/** To an acceptor. `req` is echoed, so that the sender knows when the answered request had left. `inc` names the store meant. */
export type RegisterRequest =
  | { kind: 'prepare'; req: number; inc: Incarnation; ballot: Ballot }
  | { kind: 'accept'; req: number; inc: Incarnation; ballot: Ballot; value: Value }
  | { kind: 'cas'; req: number; inc: Incarnation; ballot: Ballot; expect: Ballot; value: Value }
  | { kind: 'read'; req: number; inc: Incarnation }

/** From an acceptor. A nack carries what outran the ballot; `state` answers a read. */
export type RegisterReply =
  | { kind: 'promise'; req: number; inc: Incarnation; ballot: Ballot; acc: Accepted | null }
  | { kind: 'accepted'; req: number; inc: Incarnation; ballot: Ballot }
  | { kind: 'nack'; req: number; inc: Incarnation; ballot: Ballot; promised: Ballot }
  | { kind: 'state'; req: number; inc: Incarnation; promised: Ballot; acc: Accepted | null }

/** A committed value, told to the others. */
export interface Learn {
  kind: 'learn'
  ballot: Ballot
  value: Value
}

/** P to S, every heartbeat interval. */
export interface Heartbeat {
  kind: 'heartbeat'
  gen: number
  epoch: number
  version: number
  inc: Incarnation
  /** Of this agent start (or clock jump): an ack of another nonce counts for nothing. */
  nonce: number
  seq: number
  /** The timeline of P's database, from its WAL position; 0 = not known. */
  timeline: number
  /** P's database accepts connections and may be followed. */
  databaseUp: boolean
  serving: boolean
  holdsLease: boolean
  /** L in P's profile, ms: S promises only where its own is the same. */
  leaseMs: number
  /** P's next planned step, for people and for S's patience. */
  note: HeartbeatNote
}
export type HeartbeatNote = 'steady' | 'switching' | 'stopping' | 'maintenance'

/** S to P, for each heartbeat. Only with `promise` does it extend the lease and bind S to wait. */
export interface Ack {
  kind: 'ack'
  gen: number
  epoch: number
  version: number
  inc: Incarnation
  nonce: number
  seq: number
  promise: boolean
  /** Why there is no promise, '' with one. */
  why: string
  /** S's log on disk. */
  flushed: WalPosition
  /** S's WAL receiver is connected to P. */
  streaming: boolean
  /** S completed a round of its own in this boot. */
  confirmed: boolean
  witness: Reach
  uplink: boolean
  asks: PeerWish
}
export type Reach = 'yes' | 'no' | 'unknown'
/** `leave`: it goes for a while. `depart`: it wants to be no member any more. */
export type PeerWish = 'nothing' | 'switchover' | 'leave' | 'depart'

/** P's database is certainly dead and P has durably resigned from this version. */
export interface Resign {
  kind: 'resign'
  gen: number
  epoch: number
  version: number
}

export type Message = RegisterRequest | RegisterReply | Learn | Heartbeat | Ack | Resign

// ---------------------------------------------------------------- the database, as the core sees it

/** One look at the local PostgreSQL. Pushed by the driver on change and at least once in observeMs. */
export interface DatabaseView {
  /** `none` is a proof: no process of the cluster is left. `dead`: the postmaster is gone or does not answer; processes may be left. */
  process: 'none' | 'starting' | 'standby' | 'primary' | 'dead'
  /** End of the local log and its timeline: insert position of a primary, flushed position of a standby, last valid record when down. timeline 0 = not known. */
  end: WalPosition
  /** The durable marker in the data directory: the epoch in which this cluster last became primary; 0 = never. */
  epoch: number
  /** Configured synchronous_standby_names. */
  syncNames: 'set' | 'empty' | 'unknown'
  /** Primary: our peer's WAL sender. A flush position belongs to its session alone. */
  sender: { session: string; timeline: number; flushedLsn: number } | null
  /** Standby: the WAL receiver is streaming. */
  streaming: boolean
  /** Primary: for how long, in ms, a commit has been waiting for the standby without flush progress; 0 = none. */
  stalledMs: number
  /** A write or a new connection missed its deadline. */
  hanging: boolean
  /** It hangs for so much longer, although its host lets it run, that a start anew is the shorter outage even where nobody else could go on. */
  stuck: boolean
  /** The volume returned an I/O error: nothing may be restarted on it. */
  ioError: boolean
}

/** What the core asks of the database driver. One operation at a time; each is idempotent and answers with `databaseDone`. */
export type DatabaseOp =
  /** Restarts the primary of this very epoch, on its own timeline. */
  | { op: 'startPrimary'; epoch: number; syncNames: 'set' | 'empty' }
  /** A new timeline and the marker of a new epoch; a cluster that is down is started as a standby of nobody first. */
  | { op: 'promote'; epoch: number; syncNames: 'set' | 'empty' }
  /** Kills every process of the cluster, proves it, and reads the end of the log. */
  | { op: 'kill' }
  /** Waits until the standby flushed the insert position, at most drainMs. The gate is frozen. */
  | { op: 'drain' }
  | { op: 'syncNames'; set: 'set' | 'empty' }
  /**
   * Proves that synchronous replication is in force, then reads a WAL position: the barrier. It lies past everything
   * that was in the log before, so a standby that flushed it has all that a client could have read.
   */
  | { op: 'proveSync' }
  /** Becomes a standby of the peer: fork check, then follow, rewind (evidence first) or clone; ends when the standby runs. */
  | { op: 'rejoin'; gen: number; epoch: number; timeline: number; clone: 'ifNeeded' | 'always' }

/** `view` is a look taken after the operation ended, so that no decision rests on an older one. */
export type DatabaseResult =
  | { ok: true; position: WalPosition | null; view: DatabaseView }
  | { ok: false; why: string; view: DatabaseView }

// ---------------------------------------------------------------- events and effects

export type OperatorCommand =
  | { command: 'init' }
  | { command: 'switchover'; epoch: number }
  | { command: 'cancelSwitchover' }
  /**
   * A higher gen of this host's own: the other host is off, says the operator. `gen`: the newest one that he knows of, which
   * has to be the newest that this host has heard of. `withWitness` keeps W as a voter.
   */
  | { command: 'force'; gen: number; epoch: number; withWitness: boolean }
  /** This host's own, diverged data may be given up for the primary of this gen. */
  | { command: 'giveUp'; gen: number }
  | { command: 'maintenance'; until: number }
  /** Leave in an orderly way: a primary hands over, a backup has itself made ineligible. */
  | { command: 'leave' }
  /** Leave for good: as `leave`, and then this host is no member any more and its database is ended. */
  | { command: 'depart' }
  /** Takes a `leave` back: this host takes part again. */
  | { command: 'stay' }

/** Which asking of which command an answer is for. `ask`: whoever asks numbers them; 0: nobody waits. */
export interface Asked {
  command: OperatorCommand['command']
  ask: number
}

/** Each event carries the time (`now`, CLOCK_BOOTTIME in ms) and a random number in [0, 1) for back-off. */
export type Event = { now: number; random: number } & EventBody
export type EventBody =
  | {
      event: 'start'
      boot: string
      nonce: number
      durable: Durable
      gate: GateReport
      view: DatabaseView
      witness: Incarnation | null
    }
  | { event: 'tick' }
  | { event: 'message'; from: NodeId; message: Message }
  | { event: 'persisted'; seq: number }
  | { event: 'view'; view: DatabaseView }
  | { event: 'databaseDone'; id: number; result: DatabaseResult }
  | { event: 'gate'; seq: number; report: GateReport }
  /** BOOTTIME and MONOTONIC came apart, or wall time leapt with a gap in the loop: counts as a host boot. */
  | { event: 'clockJump'; nonce: number }
  /** The witness that is wanted as a voter: its row's incarnation, or null for none. */
  | { event: 'witness'; inc: Incarnation | null }
  | { event: 'uplink'; up: boolean }
  /** `ask`: see Asked; absent: 0. */
  | { event: 'operator'; command: OperatorCommand; ask?: number }

/** What the kernel's gate is, and until when it stays so at the latest if nobody renews (0 unless open). */
export interface GateReport {
  state: GateState
  expiresUntil: number
}
export type GateState = 'open' | 'frozen' | 'closed'

/**
 * What is to be done, in this order. `persist` completes before any later effect of the queue starts, except those that
 * may always go at once: heartbeats, acks, reads, freezing or closing the gate, and killing the database.
 */
export type Effect =
  | { do: 'persist'; seq: number; durable: Durable }
  | { do: 'send'; to: NodeId; message: Message }
  /** `until`: the kernel's expiry, late application included, must not pass it. Dropped if a newer gate effect was executed. */
  | { do: 'gate'; seq: number; set: 'open'; until: number }
  | { do: 'gate'; seq: number; set: 'frozen' | 'closed' }
  | { do: 'vip'; set: 'up' | 'down' }
  | { do: 'announce' }
  /** Have the database looked at now: a `view` follows. */
  | { do: 'look' }
  | { do: 'services'; set: 'running' | 'stopped' }
  | { do: 'database'; id: number; op: DatabaseOp }
  /** Why an operator's command was refused or is done. */
  | ({ do: 'answer'; ok: boolean; why: string } & Asked)
  /** A durable write failed: stop at once, the kernel shuts the gate. */
  | { do: 'exit'; why: string }

export interface StepResult<S> {
  state: S
  effects: Effect[]
  /** One sentence for each decision taken in this step, in order; empty if nothing changed. */
  why: string[]
}
