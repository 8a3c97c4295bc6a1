import type { HostState } from '../../../shared/protocol/state.ts'
import type {
  Accepted,
  AcceptorState,
  DataNode,
  Durable,
  Effect,
  Event,
  Message,
  NodeId,
} from '../../../shared/protocol/types.ts'
import type { Host } from '../host.ts'
import type { Pair } from '../pair.ts'
import type { Cluster, Commit } from '../postgres.ts'
import type { Log } from '../wal.ts'

/** A property that did not hold, named by its checker. */
export class Violation extends Error {
  override name = 'Violation'
  readonly checker: string

  constructor(checker: string, message: string) {
    super(message)
    this.checker = checker
  }
}

/** What a checker may watch. All of it is the truth, seen from outside of the hosts. */
export interface Hooks {
  /** A core took a step. */
  step?(host: Host, before: HostState, after: HostState, event: Event, effects: readonly Effect[]): void
  /** A durable write of a host came to its end. */
  durable?(host: Host, durable: Durable): void
  witness?(state: AcceptorState): void
  /** A value was accepted by a quorum of its voters, on disk. */
  chosen?(accepted: Accepted, before: Accepted | null): void
  /** A message leaves a host. */
  sent?(host: Host, to: NodeId, message: Message): void
  /** The kernel applied a grant that ends at this true time. */
  gateOpened?(host: Host, until: number): void
  /** A cluster begins to accept connections, or goes on after a stop. */
  answers?(host: Host): void
  /** A client was told that its write is safe. */
  acknowledged?(host: Host, commit: Commit): void
  /** A client saw everything up to there. */
  read?(host: Host, cluster: Cluster): void
  /** A rewind or clone throws a log away. */
  replaced?(host: Host, next: Log): void
  forced?(node: DataNode): void
  /** Ten times a simulated second. */
  sample?(): void
  /** After the pair has healed. */
  end?(): void
}

export interface Checker extends Hooks {
  name: string
}

export type MakeChecker = (pair: Pair) => Checker
