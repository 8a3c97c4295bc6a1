import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { takeEndCalmly } from '../kernel/child-end.ts'
import { parseIdentity, signalGroup, startTicksOf, stillRuns } from '../process-identity.ts'
import { type Answer, Channel } from './channel.ts'
import {
  aliveEveryMs,
  backoffFirstMs,
  backoffMaxMs,
  hangLimitMs,
  healthyAfterMs,
  reportBytesMax,
  reportTopic,
  startLimitMs,
  stopLimitMs,
  type WorkerDefinition,
} from './definition.ts'
import { aliveVerb, stopTopic } from './worker-process.ts'

/** One worker as people see it. */
export interface WorkerState {
  name: string
  /** waiting: it died and is started again after its back-off. */
  state: 'starting' | 'running' | 'waiting' | 'stopped'
  pid: number | null
  /** Deaths and kills since the agent started. */
  restarts: number
  /** Why it died last, or ''. */
  why: string
  memoryMb: number | null
  /** Notices to it that were dropped because it did not keep up. */
  dropped: number
  /** What it last told of itself, or null. */
  report: unknown
}

export interface WorkersOptions {
  definitions: readonly WorkerDefinition[]
  /** Of this agent alone, in memory (/run): what an agent before this one left running is found by it. */
  runtimeDir: string
  note: (why: string) => void
  /** In [0, 1). */
  random: () => number
}

/** The agent's workers. No call waits for one, and none of their faults reaches the caller. */
export class Workers {
  readonly #workers: Map<string, SupervisedWorker>
  readonly #common: Omit<WorkersOptions, 'definitions'>

  constructor({ definitions, ...common }: WorkersOptions) {
    this.#common = common
    this.#workers = new Map(definitions.map(one => [one.name, new SupervisedWorker({ definition: one, ...common })]))
  }

  start(): void {
    for (const worker of this.#workers.values()) worker.start()
  }

  /** One that turned out to be wanted while the agent runs; it starts at once. Nothing happens when it is there already. */
  add(definition: WorkerDefinition, published: readonly [topic: string, body: unknown][]): void {
    if (this.#workers.has(definition.name)) return
    const worker = new SupervisedWorker({ definition, ...this.#common })
    this.#workers.set(definition.name, worker)
    for (const [topic, body] of published) worker.publish(topic, body)
    worker.start()
  }

  /** Tells every worker; the newest body of a topic is told again to one that starts later. */
  publish(topic: string, body: unknown): void {
    for (const worker of this.#workers.values()) worker.publish(topic, body)
  }

  ask(name: string, question: { verb: string; body: unknown; limitMs: number }): Promise<Answer> {
    return (
      this.#workers.get(name)?.ask(question) ?? Promise.resolve({ ok: false, why: `there is no worker ${name} here` })
    )
  }

  state(): WorkerState[] {
    return [...this.#workers.values()].map(worker => worker.state())
  }

  /** Resolves when none is left; a worker that hangs is killed. */
  async stop(): Promise<void> {
    await Promise.all([...this.#workers.values()].map(worker => worker.stop()))
  }
}

class SupervisedWorker {
  readonly #options: Omit<WorkersOptions, 'definitions'> & { definition: WorkerDefinition }
  readonly #published = new Map<string, unknown>()
  #child: ChildProcess | null = null
  #channel: Channel | null = null
  #state: WorkerState['state'] = 'stopped'
  #why = ''
  #killedFor: string | null = null
  #restarts = 0
  #deathsInRow = 0
  #startedAt = 0
  /** Since when a question waits for its answer; null: all were answered. */
  #unansweredSince: number | null = null
  #memoryMb: number | null = null
  #report: unknown = null
  #timer: NodeJS.Timeout | null = null
  #watch: NodeJS.Timeout | null = null
  #stopping = false
  #ended: () => void = () => {}

  constructor(options: Omit<WorkersOptions, 'definitions'> & { definition: WorkerDefinition }) {
    this.#options = options
  }

  start(): void {
    this.#stopping = false
    this.#endLeftover()
    this.#spawn()
  }

  publish(topic: string, body: unknown): void {
    this.#published.set(topic, body)
    this.#channel?.tell(topic, body)
  }

  ask({ verb, body, limitMs }: { verb: string; body: unknown; limitMs: number }): Promise<Answer> {
    if (this.#channel !== null) return this.#channel.ask(verb, body, limitMs)
    const why = `the worker ${this.#name} does not run${this.#why === '' ? '' : `: ${this.#why}`}`
    return Promise.resolve({ ok: false, why })
  }

  state(): WorkerState {
    return {
      name: this.#name,
      state: this.#state,
      pid: this.#child?.pid ?? null,
      restarts: this.#restarts,
      why: this.#why,
      memoryMb: this.#memoryMb,
      dropped: this.#channel?.dropped ?? 0,
      report: this.#report,
    }
  }

  async stop(): Promise<void> {
    this.#stopping = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    const child = this.#child
    if (child !== null) {
      const before = this.#ended
      const gone = new Promise<void>(resolve => {
        this.#ended = () => {
          before()
          resolve()
        }
      })
      this.#channel?.tell(stopTopic, null)
      const kill = setTimeout(() => this.#kill(`it did not end within ${stopLimitMs} ms`), stopLimitMs)
      // A worker that hangs in a disk does not even end by SIGKILL; the next agent finds it by its record.
      const abandon = setTimeout(() => this.#ended(), 2 * stopLimitMs)
      await gone
      clearTimeout(kill)
      clearTimeout(abandon)
      child.unref()
    }
    this.#state = 'stopped'
  }

  get #name(): string {
    return this.#options.definition.name
  }
  get #record(): string {
    return join(this.#options.runtimeDir, 'workers', `${this.#name}.json`)
  }

  #spawn(): void {
    this.#state = 'starting'
    this.#startedAt = performance.now()
    this.#unansweredSince = null
    try {
      this.#begin()
    } catch (error) {
      // Node throws some of what the kernel refuses, such as want of memory, and tells the rest by an event.
      this.#startLater(notStarted(error))
    }
  }

  /** @throws where the kernel gives no process */
  #begin(): void {
    const { command, env, user } = this.#options.definition
    const [file, ...args] = command
    const child = spawn(file, args, {
      // Its own group: what it starts is killed with it. Its words go to the log without passing through the core.
      detached: true,
      stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
      env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', ...env },
      cwd: '/',
      ...user,
    })
    takeEndCalmly(child)
    child.once('error', error => this.#died(child, notStarted(error)))
    child.once('exit', (code, signal) => this.#died(child, `it ended with ${signal ?? `code ${code}`}`))
    this.#child = child
    this.#remember(child)
    // A program that can't be started has no socket pair's other end, but the stream is there; not without a descriptor left.
    const stream = (child.stdio as ChildProcess['stdio'] | undefined)?.[3] as Duplex | undefined
    if (stream !== undefined) this.#talk(child, stream)
  }

  #talk(child: ChildProcess, stream: Duplex): void {
    const channel = new Channel({
      stream,
      told: (topic, body) => this.#told(topic, body),
      asked: (verb, body) => this.#asked(verb, body),
      closed: why => {
        if (this.#child === child && !this.#stopping) this.#kill(`its channel broke: ${why}`)
      },
    })
    this.#channel = channel
    for (const [topic, body] of this.#published) channel.tell(topic, body)
    void this.#askAlive(channel)
    this.#watch = setInterval(() => this.#look(channel), aliveEveryMs)
  }

  #told(topic: string, body: unknown): void {
    if (topic !== reportTopic) {
      try {
        this.#options.definition.told?.(topic, body)
      } catch (error) {
        // A worker must not be able to end the core by what it says.
        this.#options.note(`the worker ${this.#name} told ${topic}, which is not understood: ${String(error)}`)
      }
      return
    }
    const size = JSON.stringify(body ?? null).length
    this.#report = size <= reportBytesMax ? body : { error: `a report of ${size} bytes is too long` }
  }

  #asked(verb: string, body: unknown): unknown {
    const { answers } = this.#options.definition
    const answer = answers !== undefined && Object.hasOwn(answers, verb) ? answers[verb] : undefined
    if (answer === undefined) throw new Error(`the core answers no question ${JSON.stringify(verb)} of ${this.#name}`)
    return answer(body)
  }

  #look(channel: Channel): void {
    const now = performance.now()
    const silentMs = this.#unansweredSince === null ? 0 : now - this.#unansweredSince
    const limitMs = this.#state === 'starting' ? startLimitMs : (this.#options.definition.hangLimitMs ?? hangLimitMs)
    if (silentMs > limitMs) return this.#kill(`it did not answer for ${Math.round(silentMs / 1000)} s`)
    const pid = this.#child?.pid
    this.#memoryMb = pid === undefined ? null : residentMb(pid)
    const { memoryMb } = this.#options.definition
    if (this.#memoryMb !== null && this.#memoryMb > memoryMb)
      return this.#kill(`it took ${this.#memoryMb} MiB, ${memoryMb} MiB are allowed`)
    if (now - this.#startedAt > healthyAfterMs) this.#deathsInRow = 0
    void this.#askAlive(channel)
  }

  async #askAlive(channel: Channel): Promise<void> {
    this.#unansweredSince ??= performance.now()
    const answer = await channel.ask(aliveVerb, null, startLimitMs)
    if (!answer.ok || channel !== this.#channel) return
    this.#unansweredSince = null
    this.#state = 'running'
  }

  #kill(why: string): void {
    if (this.#child?.pid === undefined) return
    // What follows from a kill, such as a broken channel, is not its reason.
    this.#killedFor ??= why
    signalGroup(this.#child.pid, 'SIGKILL')
  }

  #died(child: ChildProcess, how: string): void {
    if (child !== this.#child) return
    // Its own children would go on without it.
    if (child.pid !== undefined) signalGroup(child.pid, 'SIGKILL')
    this.#child = null
    this.#channel?.close()
    this.#channel = null
    this.#memoryMb = null
    this.#report = null
    if (this.#watch !== null) clearInterval(this.#watch)
    this.#onRecord('removed', () => rmSync(this.#record, { force: true }))
    this.#ended()
    if (this.#stopping) return
    const why = (child.signalCode === 'SIGKILL' ? this.#killedFor : null) ?? how
    this.#killedFor = null
    this.#startLater(why)
  }

  #startLater(why: string): void {
    this.#why = why
    this.#state = 'waiting'
    this.#restarts++
    const waitMs = Math.min(backoffMaxMs, backoffFirstMs * 2 ** this.#deathsInRow) * (0.5 + this.#options.random())
    this.#deathsInRow = Math.min(this.#deathsInRow + 1, 16)
    this.#options.note(`the worker ${this.#name} died: ${this.#why}; it is started again in ${Math.round(waitMs)} ms`)
    this.#timer = setTimeout(() => {
      this.#why = ''
      this.#spawn()
    }, waitMs)
  }

  #remember({ pid }: ChildProcess): void {
    if (pid === undefined) return
    this.#onRecord('written', () => {
      const startTicks = startTicksOf(pid)
      if (startTicks === null) return
      mkdirSync(join(this.#options.runtimeDir, 'workers'), { recursive: true, mode: 0o700 })
      writeFileSync(this.#record, JSON.stringify({ pid, startTicks }), { mode: 0o600 })
    })
  }

  /** On a full disk there is none: the worker ends with its core all the same, unless it hangs. */
  #onRecord(done: 'written' | 'removed', change: () => void): void {
    try {
      change()
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      this.#options.note(`what the next agent would know the worker ${this.#name} by could not be ${done}: ${why}`)
    }
  }

  /** A worker that was stopped or hung when its agent was killed would act beside the new one. */
  #endLeftover(): void {
    try {
      const left = parseIdentity(readFileSync(this.#record, 'utf8'))
      if (left !== null && stillRuns(left)) signalGroup(left.pid, 'SIGKILL')
    } catch {
      // None was recorded.
    }
  }
}

const notStarted = (error: unknown): string =>
  `it could not be started: ${error instanceof Error ? error.message : String(error)}`

/** null: it has ended. /proc/pid/statm counts pages of 4 KiB on x86_64 and (with few exceptions) aarch64, proc(5). */
function residentMb(pid: number): number | null {
  try {
    const pages = Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1])
    return Math.round((pages * 4096) / 2 ** 20)
  } catch {
    return null
  }
}
