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
import { calm } from './calm.ts'
import type { Checker, Hooks } from './check.ts'
import { observeCoverage } from './coverage-observer.ts'
import { oneServer } from './i1-one-server.ts'
import { acknowledgedKept } from './i2-acknowledged-kept.ts'
import { registerMonotonic } from './i3-register-monotonic.ts'
import { takeoverByRight } from './i4-takeover-by-right.ts'
import { seenKept } from './i5-seen-kept.ts'
import { copiedOrAlone } from './i6-copied-or-alone.ts'
import { gateWithinLease } from './i7-gate-within-lease.ts'
import { promisesKept } from './i8-promises-kept.ts'
import { votesCount } from './i9-votes-count.ts'
import { commandsOnce } from './i10-commands-once.ts'
import { membersOneByOne } from './i11-members-one-by-one.ts'
import { deadBeforeGivenUp } from './i12-dead-before-given-up.ts'
import { isDecree, RegisterTruth } from './register-truth.ts'
import { restIsIdle } from './rest.ts'
import { shownIsTrue } from './truth.ts'

type Handler<K extends keyof Hooks> = NonNullable<Hooks[K]>

/** Hands what happens to every checker that wants to know. */
export class Checks {
  readonly register: RegisterTruth
  private readonly all: readonly Checker[]
  private readonly on: { [K in keyof Hooks]-?: Handler<K>[] }

  constructor(pair: Pair) {
    this.register = new RegisterTruth((accepted, before) => this.chosen(accepted, before))
    const anyClock = [
      acknowledgedKept,
      registerMonotonic,
      takeoverByRight,
      copiedOrAlone,
      promisesKept,
      votesCount,
      commandsOnce,
      membersOneByOne,
      deadBeforeGivenUp,
      calm,
      restIsIdle,
      observeCoverage,
    ]
    // Without a bound on the clocks nothing is promised about who serves reads at one moment.
    const boundedClock = [oneServer, seenKept, gateWithinLease, shownIsTrue]
    this.all = [...anyClock, ...(pair.options.runClass === 'wild' ? [] : boundedClock)].map(make => make(pair))
    const of = <K extends keyof Hooks>(name: K): Handler<K>[] =>
      this.all.flatMap(checker => {
        const hooks: Hooks = checker
        const handler = hooks[name]
        return handler === undefined ? [] : [handler as Handler<K>]
      })
    this.on = {
      step: of('step'),
      durable: of('durable'),
      witness: of('witness'),
      chosen: of('chosen'),
      sent: of('sent'),
      gateOpened: of('gateOpened'),
      answers: of('answers'),
      acknowledged: of('acknowledged'),
      read: of('read'),
      replaced: of('replaced'),
      forced: of('forced'),
      sample: of('sample'),
      end: of('end'),
    }
  }

  step(host: Host, before: HostState, after: HostState, event: Event, effects: readonly Effect[]): void {
    for (const run of this.on.step) run(host, before, after, event, effects)
  }
  durable(host: Host, durable: Durable): void {
    this.register.stored(host.node, durable)
    for (const run of this.on.durable) run(host, durable)
  }
  witness(state: AcceptorState): void {
    this.register.stored('w', state)
    for (const run of this.on.witness) run(state)
  }
  private chosen(accepted: Accepted, before: Accepted | null): void {
    const { gen, primary } = accepted.value
    if (isDecree(accepted.ballot) && gen > 1) this.forced(primary)
    for (const run of this.on.chosen) run(accepted, before)
  }
  sent(host: Host, to: NodeId, message: Message): void {
    for (const run of this.on.sent) run(host, to, message)
  }
  gateOpened(host: Host, until: number): void {
    for (const run of this.on.gateOpened) run(host, until)
  }
  answers(host: Host): void {
    for (const run of this.on.answers) run(host)
  }
  acknowledged(host: Host, commit: Commit): void {
    for (const run of this.on.acknowledged) run(host, commit)
  }
  read(host: Host, cluster: Cluster): void {
    for (const run of this.on.read) run(host, cluster)
  }
  replaced(host: Host, next: Log): void {
    for (const run of this.on.replaced) run(host, next)
  }
  private forced(node: DataNode): void {
    for (const run of this.on.forced) run(node)
  }
  sample(): void {
    for (const run of this.on.sample) run()
  }
  end(): void {
    for (const run of this.on.end) run()
  }
}
