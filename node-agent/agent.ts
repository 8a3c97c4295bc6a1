import { randomInt } from 'node:crypto'
import { holdsOffice, isPrimary, knownValue, peerIsLeaving, peerVoter } from '../shared/protocol/facts.ts'
import { otherNode } from '../shared/protocol/nodes.ts'
import { restsUntil } from '../shared/protocol/rest.ts'
import { type HostState, newHost } from '../shared/protocol/state.ts'
import { type Status, statusOf } from '../shared/protocol/status.ts'
import { step } from '../shared/protocol/step.ts'
import { type Timing, timingOf } from '../shared/protocol/timing.ts'
import type { EventBody, OperatorCommand } from '../shared/protocol/types.ts'
import type { Config } from './config.ts'
import { carry, relayVerb } from './control/core-side.ts'
import type { Decisions } from './decisions.ts'
import { DiskGuard } from './disk/guard.ts'
import { Executor, type OperatorAnswer } from './execute.ts'
import { quiesce, quiesceVerb } from './files/quiesce.ts'
import { FilesReadiness } from './files/readiness.ts'
import { RoleTeller } from './files/role-teller.ts'
import { roleTopic } from './files/settings.ts'
import { HostComparison, summaryVerb } from './inventory/comparison.ts'
import { readBootId } from './kernel/clock.ts'
import { Loop } from './loop.ts'
import { type Moment, maintenanceMaxMs, rememberedMaintenance } from './maintenance-file.ts'
import type { CertificateEnd } from './pair/certificate-ends.ts'
import { PeerNews, type PeerNewsOptions } from './peer-news.ts'
import type { Ports, ServiceContext, ServiceState, StoredHost } from './ports.ts'
import type { Pulse } from './pulse.ts'
import { Quiet } from './quiet.ts'
import type { StopTimes } from './stop-times.ts'
import { lastVerdict, type Verdict, verdictMark } from './verdict.ts'
import { standingTopic } from './workers/definition.ts'
import type { Workers } from './workers/supervisor.ts'

/**
 * The core process of one host: the pure core, its clock, its drivers. It is assembled here and nowhere else; what may
 * happen is decided in shared/protocol, how it is done in the drivers.
 */
export interface AgentOptions {
  config: Config
  ports: Ports
  decisions: Decisions
  stored: StoredHost
  workers: Workers
  pulse: Pulse
  tells: Pick<PeerNewsOptions, 'settings' | 'certificate' | 'keepHostKey'>
  /** The process ends with this sentence; the kernel then shuts the gate. */
  exit: (why: string) => void
  log: (line: string) => void
}

/** Addresses, uplink and what people see: nothing of it is on the path of the lease. */
const housekeepingMs = 100
/** A link that goes down says so at once and is looked at so often; its gateway is asked more rarely still. */
const uplinkEveryMs = 200
/** A command that the core has not answered by then is reported as "unknown outcome". */
const answerLimitMs = 15_000
/** A joining host that was not heard for so long begins anew. */
const departedAfterMs = 10_000
/** Its slot may be in use, or made anew, a moment longer. */
const forgetEveryMs = 2000
/** Operator commands that wait for the core's answer. */
const waitingMax = 16

/** The alarm that the two hosts differ. */
export const hostsTopic = 'hosts'

export class Agent {
  readonly config: Config
  readonly ports: Ports
  readonly decisions: Decisions
  readonly workers: Workers
  readonly timing: Timing
  readonly peerNews: PeerNews
  readonly comparison: HostComparison
  /** This host's networks or storage were changed by a verb; set by whoever looks at them. */
  lookWanted: () => void = () => {}
  /** Set by whoever looks at them. */
  certificates: readonly CertificateEnd[] = []
  readonly files: FilesReadiness
  readonly startedMs: number
  readonly alarms = new Map<string, string>()
  readonly #options: AgentOptions
  readonly #loop: Loop<HostState>
  readonly #diskGuard: DiskGuard
  readonly #executor: Executor
  #endHousekeeping: () => void = () => {}
  #asks = 0
  readonly #waiting = new Map<number, (answer: OperatorAnswer) => void>()
  #verdict: Verdict | null = null
  #lastWhy = ''
  #uplink = { up: true, why: '' }
  #uplinkAt = 0
  readonly #quiet = new Quiet()
  #servicesTold = false
  #forgotAt = 0
  #told: Standing | null = null
  readonly #roleTeller = new RoleTeller()

  constructor(options: AgentOptions) {
    this.#options = options
    this.config = options.config
    this.ports = options.ports
    this.decisions = options.decisions
    this.workers = options.workers
    this.timing = timingOf(options.config.profile)
    this.startedMs = options.ports.clock.wallMs()
    this.peerNews = new PeerNews({
      vip: options.ports.vip,
      peer: options.ports.peer,
      own: () => this.decisions,
      ...options.tells,
    })
    this.comparison = new HostComparison(options.config.node, options.ports.peer)
    this.#diskGuard = new DiskGuard({
      disk: options.ports.disk,
      freeDiskMb: options.config.limits.freeDiskMb,
      operator: command => this.operator(command),
      alarm: why => this.standing('disk', why),
      note: why => this.note(why),
    })
    this.files = new FilesReadiness({
      trees: options.config.sync?.trees ?? [],
      operator: command => this.operator(command),
      alarm: why => this.standing('files', why),
      note: why => this.note(why),
    })
    this.#loop = new Loop({
      clock: options.ports.clock,
      timing: this.timing,
      state: newHost({ node: options.config.node, timing: this.timing }),
      step,
      rest: restsUntil,
      run: effects => {
        if (effects.some(effect => effect.do === 'services')) this.#servicesTold = true
        this.#executor.run(effects)
      },
      decided: (why, state) => {
        this.#lastWhy = why
        this.#quiet.happened(options.ports.clock.bootMs())
        this.decisions.add(knownValue(state)?.epoch ?? 0, why)
        options.log(why)
      },
      after: () => options.pulse.wake(),
      failed: error => this.#end(error instanceof Error ? (error.stack ?? error.message) : String(error)),
    })
    this.#executor = new Executor({
      ports: options.ports,
      post: event => this.#loop.post(event),
      context: () => this.#context(),
      peerClients: () => this.peerNews.clients,
      answer: (answer, ask) => this.#answered(answer, ask),
      note: why => this.note(why),
      exit: why => this.#end(why),
    })
  }

  get state(): HostState {
    return this.#loop.state
  }
  status(): Status {
    const now = this.ports.clock.bootMs()
    return this.files.explain(statusOf(this.state, now), now)
  }
  get verdict(): Verdict | null {
    return this.#verdict
  }
  get uplink(): { up: boolean; why: string } {
    return this.#uplink
  }

  /** A driver's or the agent's own sentence, beside the core's. */
  note(why: string): void {
    this.decisions.add(knownValue(this.state)?.epoch ?? 0, why)
    this.#options.log(why)
  }

  /** Adopts what runs, then lets the core begin. The order is that of the protocol: gate first, promises last. */
  async start(): Promise<void> {
    const options = this.#options
    const { ports, config, stored } = options
    await ports.vip.prepare({ isPrimary: stored.durable.known?.value.primary === config.node })
    const gate = ports.gate.adopt()
    ports.gate.onTampered(why => this.#alarm('gate', why))
    ports.vip.onAlarm(why => this.#alarm('vip', why))
    const view = await ports.database.adopt()
    ports.database.onView(seen => this.#loop.post({ event: 'view', view: seen }))
    ports.peer.onMessage(message => {
      const from = otherNode(config.node)
      this.#loop.post({ event: 'message', from, message })
    })
    ports.peer.onAsked((verb, body) => this.#asked(verb, body))
    ports.witness?.onReply(message => this.#loop.post({ event: 'message', from: 'w', message }))
    ports.services.onExhausted((why, part) => this.#serviceFailed(why, part))
    await ports.peer.open()
    ports.witness?.connect()
    this.#loop.start()
    this.#loop.post({
      event: 'start',
      boot: readBootId(config.bootIdPath),
      // 32 bits, exact everywhere; from the kernel, since two starts in one instant must differ.
      nonce: randomInt(2 ** 32),
      durable: stored.durable,
      gate,
      view,
      witness: ports.witness === null ? null : stored.witnessInc,
    })
    if (stored.begins && stored.durable.acc === null) void this.operator({ command: 'init' })
    const until = rememberedMaintenance(config.stateDir, { now: this.moment(), maxMs: maintenanceMaxMs })
    if (until > 0) void this.files.maintenance(until, this.ports.clock.bootMs())
    this.#endHousekeeping = options.pulse.every(housekeepingMs, () => this.#keepHouse())
    this.workers.start()
  }

  moment(): Moment {
    const { clock } = this.ports
    return { boot: readBootId(this.config.bootIdPath), bootMs: clock.bootMs(), wallMs: clock.wallMs() }
  }

  /** Tells the core, and waits for what it answers. */
  operator(command: OperatorCommand, limitMs = answerLimitMs): Promise<OperatorAnswer> {
    const name = command.command
    if (this.#waiting.size >= waitingMax) {
      return Promise.resolve({ command: name, ok: false, why: `${waitingMax} commands wait already; try again` })
    }
    this.#asks += 1
    const ask = this.#asks
    return new Promise(resolve => {
      const answered = (answer: OperatorAnswer): void => {
        clearTimeout(timer)
        this.#waiting.delete(ask)
        resolve(answer)
      }
      const why = `no answer within ${limitMs / 1000} s: the outcome is unknown, look at \`understudy why\``
      const timer = setTimeout(() => answered({ command: name, ok: false, why }), limitMs)
      this.#waiting.set(ask, answered)
      this.#loop.post({ event: 'operator', command, ask })
    })
  }

  post(event: EventBody): void {
    this.#loop.post(event)
  }

  /** Stops deciding. What runs (PostgreSQL, address, gate with its grant, services) is left for the next agent. */
  async detach(times: StopTimes): Promise<void> {
    const { ports } = this
    this.#loop.stop()
    this.#executor.stop()
    this.#endHousekeeping()
    ports.services.detach()
    ports.peer.close()
    ports.witness?.close()
    ports.uplink?.close()
    ports.vip.close()
    await times.part('gate', ports.gate.detach())
    await times.part('database', ports.database.detach())
    await times.part('workers', this.workers.stop())
    await times.part('state', ports.store.close())
  }

  #end(why: string): void {
    this.#loop.stop()
    this.#executor.stop()
    this.#options.exit(why)
  }

  #context(): ServiceContext {
    const known = knownValue(this.state)
    const role = holdsOffice(this.state) ? 'primary' : 'backup'
    return { role, epoch: known?.epoch ?? 0, why: this.#lastWhy }
  }

  #answered(answer: OperatorAnswer, ask: number): void {
    this.note(`${answer.command}: ${answer.ok ? '' : 'refused, '}${answer.why}`)
    this.#waiting.get(ask)?.(answer)
  }

  /** An alarm that lasts while its cause does; '' ends it. Figures in it may change without being told anew. */
  standing(topic: string, why: string): void {
    const before = this.alarms.get(topic)
    if (why === '') {
      this.alarms.delete(topic)
      if (before !== undefined) this.note(`over: ${before}`)
    } else if (before === undefined) this.#alarm(topic, why)
    else this.alarms.set(topic, why)
  }

  /** Before a planned switchover: nothing more is written here. Resolves when all have stopped. */
  pauseServices(): Promise<void> {
    return this.ports.services.stop(this.#context())
  }

  /** It did not come to a switchover. Only where the core still wants them running. */
  resumeServices(): void {
    if (holdsOffice(this.state) && this.state.servicesRunning) this.ports.services.start(this.#context())
  }

  #alarm(topic: string, why: string): void {
    if (this.alarms.get(topic) === why) return
    this.alarms.set(topic, why)
    this.note(`alarm: ${why}`)
  }

  #asked(verb: string, body: unknown): unknown {
    switch (verb) {
      case quiesceVerb:
        return quiesce(this).then(({ behind }) => behind)
      case summaryVerb:
        return this.comparison.answer(body)
      case relayVerb:
        return carry(this.workers, body)
      default:
        return this.peerNews.answer(verb, body)
    }
  }

  /** The other host may fare better; where it can't take over, or has handed it back, this one goes on without the service. */
  #serviceFailed(why: string, { again }: { again: boolean }): void {
    this.#alarm('services', why)
    if (again) return
    const epoch = knownValue(this.state)?.epoch
    if (epoch !== undefined && holdsOffice(this.state)) void this.operator({ command: 'switchover', epoch })
  }

  #keepHouse(): void {
    const { ports } = this
    const now = ports.clock.bootMs()
    if (this.#quiet.leavesOut(now)) return
    ports.vip.tick(now)
    this.standing('addresses', ports.vip.trouble())
    this.#watchUplink(now)
    this.comparison.tick(now)
    this.standing(hostsTopic, this.comparison.trouble())
    const status = this.status()
    this.#watchDisks(now, status)
    this.#stopLeftovers()
    this.#forgetDeparted(now)
    this.#trackVerdict(status)
    if (this.config.sync !== null) this.files.tick(now, this)
    this.#tellWorkers(status)
    this.peerNews.tick(now, { serving: this.#verdict?.protection !== 'not serving', room: this.#diskGuard.room })
  }

  /** Workers act by role and epoch, and are told each change; none of them is told a permission. */
  #tellWorkers(status: Status): void {
    const { role, epoch, gen, primary, serving, protection } = status
    const services = (): ServiceState[] => this.ports.services.state()
    const files = this.#roleTeller.next({ status, services, nowMs: this.ports.clock.bootMs() })
    if (files !== null) this.workers.publish(roleTopic, files)
    const standing: Standing = { role, epoch, gen, primary, serving, protection }
    const told = this.#told
    if (told !== null && standingKeys.every(key => told[key] === standing[key])) return
    this.#told = standing
    this.workers.publish(standingTopic, standing)
  }

  #watchUplink(now: number): void {
    if (now - this.#uplinkAt < uplinkEveryMs * 0.85) return
    this.#uplinkAt = now
    const seen = this.ports.uplink?.tick(now)
    if (seen === undefined) return
    if (seen.up !== this.#uplink.up) this.#loop.post({ event: 'uplink', up: seen.up })
    this.#uplink = seen
    this.standing('uplink', seen.up ? '' : `clients do not reach this host: ${seen.why}`)
  }

  #watchDisks(now: number, { role, epoch }: Status): void {
    const serverEndedFull = this.ports.database.endedFull()
    this.#diskGuard.tick(now, { role, epoch, peerRoom: this.peerNews.room(now), serverEndedFull })
  }

  /** Services that an earlier agent left running on a host that turned out not to be the primary. */
  #stopLeftovers(): void {
    if (this.#servicesTold || holdsOffice(this.state) || this.state.durable.acc === null) return
    this.#servicesTold = true
    void this.ports.services.stop(this.#context())
  }

  /** A host that is no member, and neither copies nor follows: no log is held back for it. */
  #forgetDeparted(now: number): void {
    const { state, ports } = this
    if (!isPrimary(state) || peerVoter(state) !== null || now - this.#forgotAt < forgetEveryMs) return
    if (!peerIsLeaving(state) && now - state.lease.ackAt < departedAfterMs) return
    this.#forgotAt = now
    void ports.database.forgetPeer()
  }

  #trackVerdict({ protection, why }: Status): void {
    const before = this.#verdict ?? lastVerdict(this.decisions)
    if (before !== null && before.protection === protection) {
      this.#verdict = { ...before, why }
      return
    }
    this.#verdict = { protection, why, sinceMs: this.ports.clock.wallMs() }
    this.note(`${verdictMark}${protection}: ${why}`)
  }
}

const standingKeys = ['role', 'epoch', 'gen', 'primary', 'serving', 'protection'] as const
export type Standing = Pick<Status, (typeof standingKeys)[number]>
