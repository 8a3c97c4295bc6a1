import { type Timing, timingOf } from '../../shared/protocol/timing.ts'
import type { DataNode, Effect, Incarnation } from '../../shared/protocol/types.ts'
import { Checks } from './checkers/checks.ts'
import { Client } from './client.ts'
import { Coverage } from './coverage.ts'
import { Host } from './host.ts'
import { Network } from './network.ts'
import { Operator } from './operator.ts'
import type { Options } from './options.ts'
import type { Commit } from './postgres.ts'
import { Random } from './random.ts'
import { Trace } from './trace.ts'
import { Reach } from './wal.ts'
import { Witness } from './witness.ts'
import { World } from './world.ts'

/** Both hosts, the witness, the network, a client and an operator, and the sight of all of them that nobody in it has. */
export class Pair {
  readonly options: Options
  readonly timing: Timing
  readonly world = new World()
  readonly tracer: Trace
  readonly network: Network
  readonly witness: Witness
  readonly hosts: { a: Host; b: Host }
  readonly client: Client
  readonly operator: Operator
  readonly coverage = new Coverage()
  readonly checks: Checks
  timelines = 0
  /** The witness that the configuration names. */
  wantedWitness: Incarnation | null
  /** Neighbours send frames for the virtual address there. */
  vipAt: Host | null = null
  /** What clients were promised, and what they saw. */
  readonly acknowledged = new Reach()
  readonly seen = new Reach()

  constructor(options: Options, trace: { text: boolean }) {
    this.options = options
    this.timing = timingOf(options.profile)
    this.tracer = new Trace(trace)
    this.network = new Network(this.world, options, new Random(options.seed, 'network'))
    this.witness = new Witness({
      world: this.world,
      random: new Random(options.seed, 'witness'),
      answer: (to, reply) => {
        if (to !== 'w') this.network.send('w', to, () => this.hosts[to].witnessAnswers(reply))
      },
      stored: state => this.checks.witness(state),
    })
    this.wantedWitness = this.witness.inc
    this.hosts = { a: new Host(this, 'a'), b: new Host(this, 'b') }
    this.hosts.a.cluster.stream.setPeer(this.hosts.b.cluster)
    this.hosts.b.cluster.stream.setPeer(this.hosts.a.cluster)
    this.client = new Client(this, new Random(options.seed, 'client'))
    this.operator = new Operator(this, new Random(options.seed, 'operator'))
    this.checks = new Checks(this)
  }

  each(run: (host: Host) => void): void {
    run(this.hosts.a)
    run(this.hosts.b)
  }

  count(name: string): void {
    this.coverage.count(name)
  }

  trace(who: string, text: string): void {
    this.tracer.line(this.world.now, who, text)
  }

  announced(host: Host): void {
    this.vipAt = host
  }

  acknowledge(host: Host, commit: Commit): void {
    this.checks.acknowledged(host, commit)
    this.acknowledged.note(commit.tl, commit.lsn)
    this.tracer.mix(commit.write)
    this.client.acknowledged(commit.write)
  }

  operatorHears(host: Host, effect: Effect & { do: 'answer' }): void {
    this.operator.hears(host, effect)
  }

  /** The host that the register, as chosen, names. */
  get named(): DataNode | null {
    return this.checks.register.latest?.value.primary ?? null
  }

  /** For how long the gate of the named primary has been shut in this run. */
  shutMs(): number {
    return this.named === null ? 0 : this.hosts[this.named].gate.shutMs
  }

  /** One host serves and the other one is its successor, and all processes are there. */
  isProtected(): boolean {
    const latest = this.checks.register.latest?.value
    if (latest === undefined || !latest.successor) return false
    if (latest.voters.w !== this.witness.inc || !this.witness.votes) return false
    const primary = this.hosts[latest.primary]
    const agents = primary.agent.process === 'running' && primary.peer.agent.process === 'running'
    return agents && primary.serves && !primary.peer.serves && this.vipAt === primary
  }
}
