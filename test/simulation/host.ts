import { newDurable } from '../../shared/protocol/durable.ts'
import type { HostState } from '../../shared/protocol/state.ts'
import { timingOf } from '../../shared/protocol/timing.ts'
import type { DataNode, Durable, GateReport, Message, NodeId, RegisterReply } from '../../shared/protocol/types.ts'
import { Agent } from './agent.ts'
import { HostClock } from './clock.ts'
import { Disk, DurableFile } from './disk.ts'
import { KernelGate } from './gate.ts'
import type { Pair } from './pair.ts'
import { Cluster, type Commit } from './postgres.ts'
import { Random } from './random.ts'
import { contains, noWrite } from './wal.ts'

/** A machine boots in this time, up to the start of the agent. */
const bootMs = { least: 500, most: 4000 }
/** Answers that wait behind a frozen gate in the sockets of a host. */
const heldMax = 1000

/** One of the two machines: its clock, kernel gate, disks, database and agent, and everything that can befall them. */
export class Host {
  readonly node: DataNode
  readonly pair: Pair
  readonly random: Random
  readonly clock: HostClock
  readonly gate: KernelGate
  /** The register's volume and the database's: one or two. */
  readonly registerDisk: Disk
  readonly dataDisk: Disk
  readonly file: DurableFile<Durable>
  readonly cluster: Cluster
  readonly agent: Agent
  power: 'on' | 'off' | 'paused' = 'off'
  boots = 0
  private life = 0
  vipUp = false
  uplink = 0
  inc = 1
  private held: Commit[] = []

  constructor(pair: Pair, node: DataNode) {
    const { world, options } = pair
    this.pair = pair
    this.node = node
    this.random = new Random(options.seed, `host ${node}`)
    this.clock = new HostClock(world, options.rates[node])
    const speed = { baseMs: options.fsyncMs, jitterMs: options.fsyncJitterMs }
    this.registerDisk = new Disk(world, this.random, speed)
    this.dataDisk = options.oneVolume ? this.registerDisk : new Disk(world, this.random, speed)
    this.file = new DurableFile(this.registerDisk, this.random, newDurable(`${node}1`))
    this.gate = new KernelGate({
      world,
      clock: this.clock,
      random: this.random,
      watch: { opened: until => this.gateOpened(until), shut: state => this.gateShut(state) },
    })
    this.cluster = new Cluster({
      node,
      world,
      options,
      random: this.random,
      disk: this.dataDisk,
      network: pair.network,
      nextTimelineId: () => ++pair.timelines,
      watch: {
        released: (_, commit) => this.answer(commit),
        changed: () => this.databaseChanged(),
        replaced: (_, next) => pair.checks.replaced(this, next),
        opened: () => {},
        torn: () => pair.count('torn flush of the log'),
      },
    })
    this.agent = new Agent(this)
  }

  get state(): HostState {
    return this.agent.state
  }

  get peer(): Host {
    return this.node === 'a' ? this.pair.hosts.b : this.pair.hosts.a
  }

  /** Whether a client would get an answer out of this host's database right now. */
  get serves(): boolean {
    return this.power === 'on' && this.gate.isOpen && this.cluster.answers
  }

  bootId(): string {
    return `${this.node}.boot${this.boots}`
  }

  gateReport(): GateReport {
    return this.gate.report()
  }

  // ------------------------------------------------------------ clients

  /** A request that reached this machine: a write, then a look at everything that is visible. */
  request(write: number): 'answered' | 'refused' | 'nothing' {
    if (this.power !== 'on') return 'nothing'
    if (!this.gate.isOpen) return this.gate.isClosed ? 'refused' : 'nothing'
    if (this.cluster.answers) this.pair.checks.read(this, this.cluster)
    if (this.cluster.orphans) this.pair.count('orphans served')
    if (write !== noWrite && this.cluster.write(write)) return 'answered'
    return this.cluster.answers ? 'answered' : 'refused'
  }

  private answer(commit: Commit): void {
    const { log, flushedOnce } = this.peer.cluster
    commit.copied = contains(log, commit.tl, commit.lsn) || contains(flushedOnce, commit.tl, commit.lsn)
    if (this.power === 'on' && this.gate.isOpen) this.pair.acknowledge(this, commit)
    else if (!this.gate.isClosed && this.held.length < heldMax) this.held.push(commit)
  }

  private gateOpened(until: number): void {
    this.pair.checks.gateOpened(this, until)
    if (this.held.length === 0) return
    const held = this.held
    this.held = []
    // Connections survive a freeze: the answers come out now.
    for (const commit of held) this.pair.acknowledge(this, commit)
  }

  private gateShut(state: 'frozen' | 'closed'): void {
    if (state === 'closed') this.held = []
  }

  private databaseChanged(): void {
    this.agent.lookSoon()
    if (this.cluster.answers) this.pair.checks.answers(this)
  }

  // ------------------------------------------------------------ messages

  receive(from: NodeId, message: Message): void {
    if (this.power === 'on') this.agent.receive(from, message)
  }

  send(to: NodeId, message: Message): void {
    const { network, hosts, witness } = this.pair
    this.pair.checks.sent(this, to, message)
    if (to === 'w') {
      if (
        message.kind === 'prepare' ||
        message.kind === 'accept' ||
        message.kind === 'cas' ||
        message.kind === 'read'
      ) {
        network.send(this.node, 'w', () => witness.receive(this.node, message))
      }
      return
    }
    const peer = hosts[to]
    network.send(this.node, to, () => peer.receive(this.node, message))
  }

  witnessAnswers(reply: RegisterReply): void {
    this.receive('w', reply)
  }

  // ------------------------------------------------------------ power

  /** Power comes back, if it was off: a boot, with a new boot id. */
  boot(): void {
    if (this.power !== 'off' || this.pair.operator.keepsOff(this)) return
    this.power = 'on'
    this.boots++
    const life = ++this.life
    this.clock.boot()
    this.gate.boot()
    this.vipUp = false
    this.held = []
    this.pair.trace(this.node, 'boots')
    const { world } = this.pair
    const start = () => {
      if (life !== this.life) return
      if (this.power === 'paused') world.after(50, start)
      else this.agent.start('boot')
    }
    world.after(this.random.between(bootMs.least, bootMs.most), start)
  }

  /** The power fails at once. */
  powerCut(): void {
    if (this.power === 'off') return
    if (this.power === 'paused') this.goOn()
    this.life++
    this.agent.die('power')
    if (this.file.powerCut()) this.pair.count('torn write of the register')
    this.cluster.end('off')
    this.power = 'off'
    this.gate.boot()
    this.held = []
    this.vipUp = false
    this.pair.trace(this.node, 'loses power')
  }

  /** The machine stands still, with its clock or without. */
  pause(how: 'suspend' | 'stopped clock' | 'clock goes on'): void {
    if (this.power !== 'on') return
    // A hook before the sleep shuts the gate: the kernel's timers do not count the time asleep.
    if (how === 'suspend') this.gate.shut('frozen')
    else if (how === 'stopped clock') this.clock.stand()
    this.pausedAt = this.pair.world.now
    this.pausedHow = how
    this.power = 'paused'
    this.agent.pause()
    this.clusterWasStopped = this.cluster.stopped
    this.cluster.stopped = true
  }
  private pausedAt = 0
  private pausedHow: Parameters<Host['pause']>[0] = 'suspend'
  private clusterWasStopped = false

  goOn(): void {
    if (this.power !== 'paused') return
    this.power = 'on'
    this.cluster.stopped = this.clusterWasStopped
    if (this.pausedHow === 'stopped clock') {
      this.clock.goOn()
      this.gate.shift(this.pair.world.now - this.pausedAt)
    }
    this.agent.goOn({ jump: this.pausedHow === 'suspend' })
    this.cluster.stream.pump()
    if (this.cluster.answers) this.pair.checks.answers(this)
  }

  /** New disks: another incarnation, no register, no data. The machine is off meanwhile. */
  reimage(): void {
    this.powerCut()
    this.inc++
    this.file.replace(newDurable(`${this.node}${this.inc}`))
    this.cluster.forget()
    this.dataDisk.ioError = false
    this.registerDisk.ioError = false
    this.dataDisk.full = 0
    this.registerDisk.full = 0
  }

  healDisks(): void {
    this.registerDisk.heal()
    this.dataDisk.heal()
  }

  setUplink(by: 1 | -1): void {
    this.uplink += by
    const up = this.uplink === 0
    this.agent.later(this.random.between(20, 200), () => {
      if (up === (this.uplink === 0)) this.agent.uplinkIs(up)
    })
  }

  get timing() {
    return timingOf(this.pair.options.profile)
  }
}
