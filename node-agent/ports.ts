import type {
  DatabaseOp,
  DatabaseResult,
  DatabaseView,
  Durable,
  GateReport,
  Incarnation,
  Message,
  RegisterReply,
  RegisterRequest,
} from '../shared/protocol/types.ts'
import type { Discard } from './peer/link-report.ts'

/**
 * What the core process needs of the world: one interface for each driver, so that the executor and the loop can be
 * tested with fakes and a driver can be replaced. Operating errors are classified behind these; a bug throws.
 */

export interface Clock {
  /** CLOCK_BOOTTIME in ms: what the protocol counts on. */
  bootMs(): number
  /** CLOCK_MONOTONIC in ms; the two come apart by the time the host was suspended. */
  monotonicMs(): number
  /** Wall time in ms since 1970: for people and logs, and to notice a paused machine. */
  wallMs(): number
  /** In [0, 1). */
  random(): number
}

/** The kernel's gate. Every call is synchronous and takes microseconds: it is on the path of the lease. */
export interface GatePort {
  /** Takes over what an agent before left, or creates the gate frozen. Never passes through open. */
  adopt(): GateReport
  /** Opens or renews until at most `untilMs` (CLOCK_BOOTTIME). '' or why it was refused, and what the kernel holds. */
  open(untilMs: number): { refused: string; report: GateReport }
  freeze(): void
  close(): void
  read(): GateReport
  /** Somebody else removed or changed the tables; they are restored already. */
  onTampered(tell: (why: string) => void): void
  counters(): Record<string, number>
  /** Lets go of the tables; a grant in force runs out by itself. */
  detach(): Promise<void>
}

export interface VipState {
  address: string
  interface: string
  present: boolean
  /** The hardware address of a stranger that answers for the VIP, or null. */
  conflict: string | null
}

/** A client's end of a connection to a protected port: the new host makes it reconnect at once. */
export interface ClientConnection {
  client: string
  clientPort: number
  /** The address the client used: a VIP. */
  local: string
  localPort: number
}

export interface VipPort {
  /** Asks about addresses that are new in the configuration, before they are claimed; takes up to about 300 ms. */
  prepare(options: { isPrimary: boolean }): Promise<void>
  /** Puts the addresses on their interfaces; repeating is harmless. */
  up(): void
  /** Removes them and resets what is still connected to them. */
  down(): void
  /** Starts the series of announcements (0 to 10 s); a later call starts it anew, `down` ends it. */
  announce(): void
  /** Sends the announcements that are due and puts back addresses that were lost; called every 100 ms or so. */
  tick(nowMs: number): void
  /** Clients of the protected ports now, bounded: the other host is told of them while it can still be. */
  clients(): readonly ClientConnection[]
  /** Makes clients of the other host notice that their connections are gone. */
  tickle(clients: readonly ClientConnection[]): void
  /** Whether a stranger uses an address; takes up to about 300 ms. */
  probe(): Promise<VipState[]>
  state(): VipState[]
  /** Which addresses a stranger has, as a sentence; '' in calm. */
  trouble(): string
  onAlarm(tell: (why: string) => void): void
  /** Leaves the addresses as they are. */
  close(): void
}

export interface UplinkPort {
  /** Called every 100 ms or so; up while nothing speaks against it. */
  tick(nowMs: number): { up: boolean; why: string }
  close(): void
}

/** `id` is '' where there is nothing to keep. */
export type CollectedEvidence = { ok: true; id: string; why: string } | { ok: false; why: string }

export interface DatabasePort {
  /** Finds out what runs; starts the observation. */
  adopt(): Promise<DatabaseView>
  onView(tell: (view: DatabaseView) => void): void
  /** One view now, as soon as it can be had. */
  look(): void
  /** One operation at a time; idempotent. Never rejects for an operating error. */
  perform(op: DatabaseOp): Promise<DatabaseResult>
  /** Commits whose wait for the other host was cancelled: they were never acknowledged by it. */
  cancelledWaits(): number
  /** The server ended for want of space, and was not started since. */
  endedFull(): boolean
  /** Roles and databases that commit without waiting for the other host, each a sentence. */
  unprotectedCommits(): Promise<string[]>
  /** The other host is no member any more: no log is held back for it. Harmless while it streams. */
  forgetPeer(): Promise<void>
  /** Keeps what this host's stopped database has and the primary has not, and changes nothing else. */
  collectEvidence(): Promise<CollectedEvidence>
  /** Stops watching and leaves PostgreSQL as it is. */
  detach(): Promise<void>
}

export interface LinkPath {
  local: string
  peer: string
  /** Age of the newest authentic packet in ms; null = none since the start. */
  heardMs: number | null
  lossPercent: number | null
  roundTripMs: number | null
}

/**
 * Packets thrown away since the start, by reason (peer/link-report.ts): forged, replayed, of another pair and so on. Of
 * the link as a whole, since a forged packet belongs to no path.
 */
export type RefusedPackets = { [why in Discard]: number }

/** Something the other host is asked beside the protocol: nothing of it decides who serves. */
export type PeerAnswer = { ok: true; body: unknown } | { ok: false; why: string }

export interface PeerLinkPort {
  open(): Promise<void>
  /** On every path at once; returns before anything else happens. */
  send(message: Message): void
  onMessage(hear: (message: Message) => void): void
  /** Bounded in size, number and time; never in the way of messages. */
  ask(question: { verb: string; body: unknown; limitMs: number }): Promise<PeerAnswer>
  onAsked(answer: (verb: string, body: unknown) => Promise<unknown> | unknown): void
  paths(): LinkPath[]
  /** Two keys are known here while the pair gets another one: whether the hosts talk by the new one. */
  usesNewestKey(): boolean
  refused(): RefusedPackets
  /** Why the other host is not understood (another pair's key, another version, the same node), or ''. */
  trouble(): string
  close(): void
}

export interface WitnessLinkPort {
  connect(): void
  /** Fire and forget; a late or missing answer is the core's business. */
  send(request: RegisterRequest): void
  onReply(hear: (reply: RegisterReply) => void): void
  /** p99 of a vote in ms, null while nothing was measured; the newest failure as a sentence, or ''. */
  health(): WitnessHealth
  /** How long ago the witness of this incarnation answered anything; null: never, or none is asked by that name. */
  answeredAgoMs(inc: Incarnation): number | null
  /** Ends an incarnation that is no member any more. False: it could not be told. */
  retire(inc: Incarnation): Promise<boolean>
  close(): void
}

export interface WitnessHealth {
  /** The one that was asked last. */
  url: string
  p99Ms: number | null
  why: string
  /** It was asked for an incarnation that will never vote again: it has to be admitted anew. */
  isVoid: boolean
}

/** Opened, locked and read before the agent is assembled: without it there is nothing to assemble. */
export interface StateStorePort {
  /** Durable when it resolves; a rejection means that nothing may be promised any more. */
  write(durable: Durable): Promise<void>
  close(): Promise<void>
}
export interface StoredHost {
  durable: Durable
  /** The witness that was admitted at set-up, or null. */
  witnessInc: Incarnation | null
  /** This host begins its pair: with an empty store it decrees the first value. */
  begins: boolean
}

export interface ServiceContext {
  role: 'primary' | 'backup'
  epoch: number
  why: string
}
export interface ServiceState {
  name: string
  state: 'stopped' | 'starting' | 'running' | 'unhealthy' | 'stopping' | 'failed'
  why: string
  restarts: number
}
export interface ServicesPort {
  /** Starts them in order, each after the one before is up. Superseded by a later `stop`. */
  start(context: ServiceContext): void
  /** Stops them in the opposite order; what does not end within its limit is killed. */
  stop(context: ServiceContext): Promise<void>
  state(): ServiceState[]
  /** The restart budget of one is used up: the other host may fare better. `again`: so it was here lately, before it was there. */
  onExhausted(tell: (why: string, part: { again: boolean }) => void): void
  /** Leaves what runs for the next agent. */
  detach(): void
}

export interface Volume {
  /** A path on it. */
  path: string
  /** For programs without root's reserve. */
  freeMb: number
  totalMb: number
}
export interface DiskState {
  /** As last seen; [] before the first look. */
  volumes: Volume[]
  /** For how long the look under way has been waiting for an answer. */
  hangsMs: number
  /** Held back for an emergency; 0: none. */
  reserveMb: number
}
export interface DiskPort {
  state(): DiskState
  /** Called every 100 ms or so; never waits for a disk. */
  tick(nowMs: number): void
  /** Gives the reserve back; it is made again when there is ample room. */
  releaseReserve(): Promise<void>
}

/** Everything the core process drives. */
export interface Ports {
  clock: Clock
  gate: GatePort
  vip: VipPort
  /** null: none is configured. */
  uplink: UplinkPort | null
  database: DatabasePort
  disk: DiskPort
  peer: PeerLinkPort
  /** null: this pair has no witness. */
  witness: WitnessLinkPort | null
  store: StateStorePort
  services: ServicesPort
}
