import { setTimeout as sleep } from 'node:timers/promises'
import type { ServiceConfig } from '../config-services.ts'
import type { ServiceContext, ServiceState, ServicesPort } from '../ports.ts'
import { checkHealth } from './health.ts'
import { type Runner, runnerOf } from './runner.ts'

/**
 * The ordered list of protected services. What is wanted (running as primary, or stopped) is a number that grows with
 * each wish; whatever was begun for an older wish ends at its next look.
 */
export interface ServicesOptions {
  pair: string
  node: string
  services: readonly ServiceConfig[]
  runtimeDir: string
  /**
   * The gate is open. Frozen, it lets nobody to the protected ports, our own health checks included: no answer then says
   * nothing of the service.
   */
  reachable: () => boolean
  note: (why: string) => void
}

interface Member {
  config: ServiceConfig
  runner: Runner
  state: ServiceState
  /** Times of restarts, CLOCK_MONOTONIC by performance.now. */
  restartsAt: number[]
  /** By the same clock; null: never. */
  exhaustedAt: number | null
  endedEarly: string
  busy: Promise<unknown>
  /** Ends the rest of whoever watches it. */
  wake: () => void
}

export class Services implements ServicesPort {
  readonly #options: ServicesOptions
  readonly #members: Member[]
  #wish = 0
  /** One start or stop of the list at a time: the next one waits for it to notice that it is outdated. */
  #busy: Promise<void> = Promise.resolve()
  #env: Record<string, string> = {}
  #exhausted: Parameters<ServicesPort['onExhausted']>[0] = () => {}

  constructor(options: ServicesOptions) {
    this.#options = options
    this.#members = options.services.map(config => {
      const runner = runnerOf({ service: config, runtimeDir: options.runtimeDir })
      const state: ServiceState = { name: config.name, state: 'stopped', why: '', restarts: 0 }
      const part = { config, runner, state, restartsAt: [], exhaustedAt: null, endedEarly: '', busy: Promise.resolve() }
      const member: Member = { ...part, wake: () => {} }
      runner.onEnd(why => {
        member.endedEarly = why
        member.wake()
      })
      return member
    })
  }

  start(context: ServiceContext): void {
    this.#env = this.#environment(context)
    const wish = this.#nextWish()
    void this.#then(async () => {
      for (const member of this.#members) {
        if (wish !== this.#wish) return
        await this.#bringUp(member, wish)
      }
    })
  }

  stop(context: ServiceContext): Promise<void> {
    this.#env = this.#environment(context)
    const wish = this.#nextWish()
    return this.#then(async () => {
      for (const member of [...this.#members].reverse()) {
        if (wish !== this.#wish) return
        await this.#bringDown(member)
      }
    })
  }

  state(): ServiceState[] {
    return this.#members.map(member => ({ ...member.state }))
  }

  onExhausted(tell: Parameters<ServicesPort['onExhausted']>[0]): void {
    this.#exhausted = tell
  }

  detach(): void {
    this.#nextWish()
  }

  /** Whoever rests for an older one ends. */
  #nextWish(): number {
    this.#wish += 1
    for (const member of this.#members) member.wake()
    return this.#wish
  }

  #then(work: () => Promise<void>): Promise<void> {
    this.#busy = this.#busy.then(work).catch((error: unknown) => {
      this.#options.note(`the services could not be brought to their state: ${String(error)}`)
    })
    return this.#busy
  }

  /** The next one may need this one: it waits until this is well, has failed, or its start limit is over. */
  async #bringUp(member: Member, wish: number): Promise<void> {
    void this.#tend(member, wish)
    const until = performance.now() + member.config.startLimitMs
    const settled = (): boolean => member.state.state === 'running' || member.state.state === 'failed'
    do await sleep(pollMs)
    while (wish === this.#wish && !settled() && performance.now() < until)
  }

  /** Starts one service and keeps it well for as long as that is wanted and its budget lasts. */
  async #tend(member: Member, wish: number): Promise<void> {
    const { config, runner } = member
    let runs = await this.#alone(member, () => runner.adopt()).catch(() => false)
    while (wish === this.#wish) {
      // What fails for want of room, memory or descriptors is a failure of the service, and none of the agent.
      const why = await this.#oneLife(member, { wish, runs }).catch(sentenceOf)
      runs = false
      if (wish !== this.#wish) return
      await this.#alone(member, () => runner.stop(config.stopLimitMs)).catch((error: unknown) =>
        this.#options.note(`service ${config.name} did not stop: ${sentenceOf(error)}`),
      )
      if (wish !== this.#wish || !this.#mayRestart(member, why)) return
    }
  }

  /** Why it is over; '' where it is not wanted any more. */
  async #oneLife(member: Member, { wish, runs }: { wish: number; runs: boolean }): Promise<string> {
    const failed = runs ? '' : await this.#startOnce(member, wish)
    return failed === '' ? this.#untilFailure(member, wish) : failed
  }

  /** '' when it was started, or is not wanted any more. */
  #startOnce(member: Member, wish: number): Promise<string> {
    return this.#alone(member, async () => {
      if (wish !== this.#wish) return ''
      member.endedEarly = ''
      this.#set(member, 'starting', '')
      const why = await member.runner.start(this.#env)
      if (why === '') this.#options.note(`service ${member.config.name} was started`)
      return why
    })
  }

  async #bringDown(member: Member): Promise<void> {
    const { config, runner } = member
    const isHere = (): Promise<boolean> => this.#alone(member, () => runner.adopt()).catch(() => false)
    if (member.state.state === 'stopped' && !(await isHere())) return
    this.#set(member, 'stopping', '')
    // The others are stopped all the same.
    const why = await this.#alone(member, () => runner.stop(config.stopLimitMs)).catch(sentenceOf)
    this.#set(member, why === '' ? 'stopped' : 'failed', why)
    this.#options.note(
      why === '' ? `service ${config.name} was stopped` : `service ${config.name} did not stop: ${why}`,
    )
  }

  /** Why it failed; '' as soon as it is not wanted any more. */
  async #untilFailure(member: Member, wish: number): Promise<string> {
    const { health, startLimitMs } = member.config
    let startedAt = performance.now()
    let lookAt = startedAt
    let failures = 0
    for (;;) {
      if (wish !== this.#wish) return ''
      if (member.endedEarly !== '') return member.endedEarly
      if (performance.now() >= lookAt) {
        const ended = await member.runner.ended()
        if (ended !== '') return ended
        const wasReachable = this.#options.reachable()
        const why = health === null ? '' : await checkHealth(health, this.#env)
        if (wish !== this.#wish) return ''
        const counts = wasReachable && this.#options.reachable()
        failures = why === '' || !counts ? 0 : failures + 1
        if (why === '') this.#set(member, 'running', '')
        else if (!counts) startedAt = performance.now()
        else if (
          member.state.state === 'starting'
            ? performance.now() - startedAt > startLimitMs
            : failures >= health!.failures
        ) {
          this.#set(member, 'unhealthy', why)
          return why
        }
        lookAt = performance.now() + (health?.intervalMs ?? lookMs)
      }
      // It may have ended during that look.
      if (member.endedEarly === '') await rest(member, lookAt - performance.now())
    }
  }

  #mayRestart(member: Member, why: string): boolean {
    const { name, restarts } = member.config
    const now = performance.now()
    member.restartsAt = member.restartsAt.filter(at => at > now - restarts.windowMs)
    if (member.restartsAt.length >= restarts.budget) {
      this.#set(member, 'failed', why)
      const again = member.exhaustedAt !== null && member.exhaustedAt > now - restarts.windowMs
      member.exhaustedAt = now
      this.#exhausted(
        `service ${name} failed (${why}) and used up its ${restarts.budget} restarts in ${restarts.windowMs} ms`,
        { again },
      )
      return false
    }
    member.restartsAt.push(now)
    member.state = { ...member.state, restarts: member.state.restarts + 1 }
    this.#options.note(`service ${name} is restarted, ${member.restartsAt.length} of ${restarts.budget}: ${why}`)
    return true
  }

  /** Starting and stopping one service never overlap. */
  #alone<T>(member: Member, work: () => Promise<T>): Promise<T> {
    const done = member.busy.then(work)
    member.busy = done.catch(() => undefined)
    return done
  }

  #set(member: Member, state: ServiceState['state'], why: string): void {
    member.state = { ...member.state, state, why }
  }

  #environment(context: ServiceContext): Record<string, string> {
    return {
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      LANG: 'C.UTF-8',
      UNDERSTUDY_PAIR: this.#options.pair,
      UNDERSTUDY_NODE: this.#options.node,
      UNDERSTUDY_ROLE: context.role,
      UNDERSTUDY_EPOCH: String(context.epoch),
      UNDERSTUDY_REASON: context.why,
    }
  }
}

const sentenceOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Until the time is over or something has happened to it: in between an idle agent is not woken for it. */
function rest(member: Member, ms: number): Promise<void> {
  return new Promise(resolve => {
    const timer = setTimeout(resolve, Math.max(0, ms))
    member.wake = () => {
      clearTimeout(timer)
      resolve()
    }
  })
}

/** While one is brought up; a service without a health check is looked at each second. */
const pollMs = 50
const lookMs = 1000
