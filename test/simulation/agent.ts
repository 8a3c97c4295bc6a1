import { AssertionError } from '../../shared/assert.ts'
import type { HostState } from '../../shared/protocol/state.ts'
import { newHost, step } from '../../shared/protocol/step.ts'
import { type ProfileName, type Timing, timingOf } from '../../shared/protocol/timing.ts'
import type { Effect, Event, Message, NodeId, OperatorCommand } from '../../shared/protocol/types.ts'
import { Violation } from './checkers/check.ts'
import { Driver } from './driver.ts'
import { type CrashPlan, effectKind, mayOvertake } from './effect-kinds.ts'
import { applyGrant } from './gate.ts'
import type { Host } from './host.ts'
import { Rests } from './rests.ts'
import { showEffect, showEvent } from './show.ts'

/** Datagrams that wait in the socket of a stopped agent. */
const socketMax = 64
/** The service manager starts a dead agent again after this. */
const respawnMs = { least: 50, most: 900 }

/**
 * The agent's process on one host: the core, and the executor that carries its effects out one after the other. Effects
 * that must not wait may overtake the queue, as in the product; everything queued is lost in a crash.
 */
export class Agent {
  private readonly host: Host
  /** Of the configuration that the next start reads. */
  profile: ProfileName
  timing: Timing
  state: HostState
  process: 'running' | 'stopped' | 'dead' = 'dead'
  life = 0
  readonly driver: Driver
  private queue: Effect[] = []
  private head = 0
  private busy = false
  private gateDone = 0
  private nonces = 0
  private socket: { from: NodeId; message: Message }[] = []
  private held: (() => void)[] = []
  private lookPending = false
  private readonly rest = new Rests()
  crashPlan: CrashPlan | null = null
  private afterBusy: (() => void) | null = null
  /** Times that this agent was started at all. */
  starts = 0
  /** When it started, true time; 0 while it is not up. */
  upSince = 0
  diedAt = 0

  constructor(host: Host) {
    this.host = host
    this.profile = host.pair.options.profile
    this.timing = timingOf(this.profile)
    this.state = newHost({ node: host.node, timing: this.timing })
    this.driver = new Driver({
      get cluster() {
        return host.cluster
      },
      get peer() {
        return host.peer.cluster
      },
      drainMs: this.timing.drainMs,
      running: () => this.process === 'running',
      done: (id, result) => this.take({ ...this.stamp(), event: 'databaseDone', id, result }),
      count: name => host.pair.count(name),
    })
  }

  private stamp(): { now: number; random: number } {
    return { now: this.host.clock.now, random: this.host.random.next() }
  }

  // ------------------------------------------------------------ life

  start(why: string): void {
    const { host } = this
    if (this.process !== 'dead' || host.power !== 'on') return
    this.process = 'running'
    const life = ++this.life
    this.starts++
    this.queue = []
    this.head = 0
    this.busy = false
    this.gateDone = 0
    this.socket = []
    this.held = []
    this.lookPending = false
    this.rest.forget()
    this.timing = timingOf(this.profile)
    this.state = newHost({ node: host.node, timing: this.timing })
    host.pair.trace(host.node, `the agent starts (${why})`)
    const begin = () => {
      this.upSince = host.pair.world.now
      host.pair.checks.durable(host, host.file.content)
      const report = host.gate.report()
      if (report.state === 'open') host.pair.count('agent restart adopted')
      this.take({
        ...this.stamp(),
        event: 'start',
        boot: host.bootId(),
        nonce: host.boots * 1000 + ++this.nonces,
        durable: host.file.content,
        gate: report,
        view: this.driver.view(),
        witness: host.pair.wantedWitness,
      })
      if (host.uplink > 0) this.uplinkIs(false)
      this.tick(life)
      this.observe(life)
    }
    host.file.sync(() => this.whenRunning(life, begin))
  }

  /** The process is gone at once, with everything that was queued. */
  die(how: 'kill' | 'power'): void {
    if (this.process === 'dead') return
    this.process = 'dead'
    this.diedAt = this.host.pair.world.now
    this.life++
    this.upSince = 0
    this.queue = []
    this.head = 0
    this.busy = false
    this.held = []
    this.crashPlan = null
    this.afterBusy = null
    this.driver.abandon()
    if (how === 'kill' && this.host.file.abandon()) this.host.pair.count('torn write of the register')
    this.host.pair.trace(this.host.node, `the agent is gone (${how})`)
  }

  /** Dies and is started again by the service manager. */
  crash(restartAfterMs?: number): void {
    if (this.process === 'dead') return
    this.die('kill')
    this.respawn(restartAfterMs ?? this.host.random.between(respawnMs.least, respawnMs.most))
  }

  private respawn(ms: number): void {
    const boots = this.host.boots
    this.host.pair.world.after(ms, () => {
      if (boots === this.host.boots && this.host.power !== 'off') this.start('again')
      if (this.host.power === 'paused' && this.process === 'dead') this.respawn(50)
    })
  }

  pause(): void {
    if (this.process === 'running') this.process = 'stopped'
  }

  /** Continued: first what the loop notices by itself, then what waits in the socket, then what was half done. */
  goOn(options: { jump: boolean }): void {
    if (this.process !== 'stopped') return
    this.process = 'running'
    const life = this.life
    if (options.jump) {
      this.host.pair.count('clock jump')
      this.take({ ...this.stamp(), event: 'clockJump', nonce: this.host.boots * 1000 + ++this.nonces })
    }
    const held = this.held
    this.held = []
    // What was half done goes on before or after the loop has looked at the clock: nobody knows.
    if (this.host.random.chance(0.5)) this.take({ ...this.stamp(), event: 'tick' })
    for (const go of held) if (life === this.life) this.whenRunning(life, go)
    const socket = this.socket
    this.socket = []
    for (const { from, message } of socket) if (life === this.life) this.receive(from, message)
    this.lookSoon()
    this.tick(life)
    this.observe(life)
  }

  /** Runs `go` in this process after `ms`, later if it is stopped, never if it has died. */
  later(ms: number, go: () => void): void {
    const life = this.life
    this.host.pair.world.after(ms, () => this.whenRunning(life, go))
  }

  private whenRunning(life: number, go: () => void): void {
    if (life !== this.life || this.process === 'dead') return
    if (this.process === 'stopped') this.held.push(go)
    else go()
  }

  private tick(life: number): void {
    const { pair, clock, random } = this.host
    // As fine as the profile of this start asks.
    const tickMs = pair.options.tickMs * (this.timing.heartbeatRetryMs / pair.timing.heartbeatRetryMs)
    pair.world.after((tickMs / clock.rate) * random.between(0.9, 1.1), () => {
      if (life !== this.life || this.process !== 'running') return
      const tick: Event = { ...this.stamp(), event: 'tick' }
      if (pair.options.ticks === 'outside of rests' && this.rest.lasts(tick.now)) this.mixStep(0)
      else this.take(tick)
      this.tick(life)
    })
  }

  private observe(life: number): void {
    this.host.pair.world.after(this.host.pair.options.observeMs, () => {
      if (life !== this.life || this.process !== 'running') return
      this.look()
      this.observe(life)
    })
  }

  lookSoon(): void {
    if (this.lookPending || this.process === 'dead') return
    this.lookPending = true
    this.later(this.host.random.between(0.5, 8), () => this.look())
  }

  private look(): void {
    this.lookPending = false
    this.take({ ...this.stamp(), event: 'view', view: this.driver.view() })
  }

  // ------------------------------------------------------------ events

  receive(from: NodeId, message: Message): void {
    if (this.process === 'stopped' && this.socket.length < socketMax) this.socket.push({ from, message })
    if (this.process === 'running') this.take({ ...this.stamp(), event: 'message', from, message })
  }

  command(command: OperatorCommand): void {
    if (this.process === 'running') this.take({ ...this.stamp(), event: 'operator', command })
  }

  witnessIs(inc: string | null): void {
    if (this.process === 'running') this.take({ ...this.stamp(), event: 'witness', inc })
  }

  uplinkIs(up: boolean): void {
    if (this.process === 'running') this.take({ ...this.stamp(), event: 'uplink', up })
  }

  private take(event: Event): void {
    if (this.process !== 'running') return
    const { pair, node } = this.host
    const before = this.state
    if (event.event !== 'start' && !before.started) return
    const { tracer } = pair
    if (tracer.on && event.event !== 'tick') pair.trace(node, `< ${showEvent(event)}`)
    const result = this.runStep(before, event)
    this.state = result.state
    this.rest.steppedTo(this.state, event.now)
    this.mixStep(result.effects.length)
    if (tracer.on) for (const why of result.why) pair.trace(node, `= ${why}`)
    pair.checks.step(this.host, before, result.state, event, result.effects)
    if (result.effects.length > 0) this.enqueue(result.effects)
  }

  private mixStep(effects: number): void {
    const { tracer, world } = this.host.pair
    tracer.mix(world.now)
    tracer.mix(this.state.durable.promised + effects)
  }

  private runStep(before: HostState, event: Event) {
    try {
      return step(before, event)
    } catch (error) {
      if (error instanceof AssertionError) throw new Violation('assertion', `${this.host.node}: ${error.message}`)
      throw error
    }
  }

  // ------------------------------------------------------------ effects

  private enqueue(effects: readonly Effect[]): void {
    const life = this.life
    const strict = this.host.pair.options.strictQueue
    for (const effect of effects) {
      if (life !== this.life) return
      if (!strict && this.head < this.queue.length + (this.busy ? 1 : 0) && mayOvertake(effect)) this.execute(effect)
      else this.queue.push(effect)
    }
    if (life === this.life) this.pump()
  }

  private pump(): void {
    while (!this.busy && this.head < this.queue.length) {
      const effect = this.queue[this.head++]!
      const life = this.life
      this.execute(effect)
      if (life !== this.life) return
    }
    if (this.head > 0 && this.head === this.queue.length) {
      this.queue = []
      this.head = 0
    }
  }

  private execute(effect: Effect): void {
    const { pair, node } = this.host
    if (pair.tracer.on) pair.trace(node, `> ${showEffect(effect)}`)
    if (this.crashPlan === null) return this.carryOut(effect)
    const plan = this.crashPlan
    const hit = plan.effect === '*' || plan.effect === effectKind(effect)
    if (!hit || plan.countdown-- > 0) return this.carryOut(effect)
    this.crashPlan = null
    const key = effectKind(effect)
    const crash = () => {
      pair.count(`crash at ${key}`)
      plan.happened()
    }
    if (plan.when === 'before') return crash()
    const life = this.life
    this.carryOut(effect)
    if (life !== this.life) return
    // A write and a grant take time: during means before their end.
    if (plan.when === 'after' && this.busy) this.afterBusy = crash
    else crash()
  }

  /** The effect that held the queue up has ended. True: this process did not survive it. */
  private endBusy(): boolean {
    this.busy = false
    const crash = this.afterBusy
    this.afterBusy = null
    crash?.()
    return crash !== null
  }

  private carryOut(effect: Effect): void {
    const { host } = this
    switch (effect.do) {
      case 'persist':
        return this.persist(effect)
      case 'send':
        return host.send(effect.to, effect.message)
      case 'gate':
        return this.gate(effect)
      case 'vip':
        host.vipUp = effect.set === 'up'
        return
      case 'announce':
        // The egress hook stops an announcement of a shut gate.
        if (host.power === 'on' && host.gate.isOpen && host.vipUp) host.pair.announced(host)
        return
      case 'look':
        return this.lookSoon()
      case 'services':
        return
      case 'database':
        return this.driver.run(effect.id, effect.op)
      case 'answer':
        return host.pair.operatorHears(host, effect)
      case 'exit':
        return this.crash()
    }
  }

  private persist(effect: Effect & { do: 'persist' }): void {
    const { host } = this
    this.busy = true
    const life = this.life
    host.file.write(effect.durable, ok =>
      this.whenRunning(life, () => {
        if (!ok) {
          host.pair.count('failed write')
          return this.crash()
        }
        host.pair.checks.durable(host, effect.durable)
        if (this.endBusy()) return
        this.take({ ...this.stamp(), event: 'persisted', seq: effect.seq })
        if (life === this.life) this.pump()
      }),
    )
  }

  private gate(effect: Effect & { do: 'gate' }): void {
    const { host } = this
    const { clock, gate } = host
    // A newer one was carried out meanwhile.
    if (effect.seq < this.gateDone) return
    this.gateDone = effect.seq
    const readBack = () =>
      this.later(host.random.between(0.05, 0.5), () =>
        this.take({ ...this.stamp(), event: 'gate', seq: effect.seq, report: gate.report() }),
      )
    if (effect.set !== 'open') {
      gate.shut(effect.set)
      return readBack()
    }
    this.busy = true
    const lag = host.pair.options.gateLagMs
    applyGrant({
      gate,
      clock,
      until: effect.until,
      pause: then => this.later(host.random.chance(0.2) ? lag * host.random.next() : 0.02, then),
      done: applied => {
        if (!applied) host.pair.count('late grant refused')
        if (this.endBusy()) return
        readBack()
        this.pump()
      },
    })
  }
}
