import type { Timing } from '../shared/protocol/timing.ts'
import type { Event, EventBody, StepResult } from '../shared/protocol/types.ts'
import { KernelTimer } from './kernel/timer.ts'
import type { Clock } from './ports.ts'

/**
 * Events in, steps one at a time, effects out. It owns the clock: the time is read once for each step, and a stop of
 * the process or of the machine is noticed here, before anything is decided on stale facts.
 */
export interface LoopOptions<S> {
  clock: Clock
  timing: Timing
  state: S
  step: (state: S, event: Event) => StepResult<S>
  /** Until when, on CLOCK_BOOTTIME, only an event can change anything; 0: not at rest. See shared/protocol/rest.ts. */
  rest: (state: S, nowMs: number) => number
  run: (effects: StepResult<S>['effects']) => void
  decided: (why: string, state: S) => void
  /** The event and all that it led to is over: the time for what is not urgent, now that the process is awake. */
  after?: () => void
  /** A bug or a failed assertion: the process must end, and the kernel then shuts the gate. */
  failed: (error: unknown) => void
}

/**
 * Between ticks while something is under way: as fine as the finest time of the protocol, the retry of a heartbeat (6 ms
 * in `fast`), within bounds. In a rest none is taken: each wake-up costs an idle machine more than the step itself.
 */
export const tickMsOf = (timing: Timing): number => Math.min(tickMaxMs, Math.max(tickMinMs, timing.heartbeatRetryMs))
const tickMinMs = 10
const tickMaxMs = 20
/**
 * The longest rest. Beyond the interval of heartbeats, so that a backup that hears them takes no ticks at all, and so
 * far below two of them that a late timer is not taken for a stopped process.
 */
const restMaxOf = (timing: Timing): number => 1.25 * timing.heartbeatMs
/** A tick that moves by less than this stays where it is. */
const timerSlackMs = 1
/** Wall time is compared over a gap with what it was this long before at most. */
const wallEveryMs = 1000
/** BOOTTIME and MONOTONIC are read one after the other; they only ever come apart by a suspend. */
const suspendSlackMs = 50
/** So many events wait at most; more means that steps produce events without end. */
const eventsMax = 20_000

export class Loop<S> {
  readonly #options: LoopOptions<S>
  #state: S
  #events: EventBody[] = []
  #stepping = false
  readonly #timer = new KernelTimer(() => this.#tick())
  /** 0: none is set. */
  #dueAt = 0
  #tickedAt = 0
  #last: { boot: number; monotonic: number }
  #wall: { boot: number; wall: number }
  #running = false
  #stopped = false

  constructor(options: LoopOptions<S>) {
    this.#options = options
    this.#state = options.state
    this.#last = this.#read()
    this.#wall = { boot: this.#last.boot, wall: options.clock.wallMs() }
  }

  get state(): S {
    return this.#state
  }

  /** Takes an event, also from within a step's effects: those wait until the step is over. */
  post(event: EventBody): void {
    if (this.#stopped) return
    if (this.#stepping) {
      this.#events.push(event)
      return
    }
    this.#stepping = true
    let now = 0
    try {
      // Before a message that waited while the machine was paused is believed.
      const jumped = this.#noticeJump()
      if (jumped !== null) this.#events.push(jumped)
      this.#events.push(event)
      // Read a moment ago, to notice a jump; each reading serves what comes next, since it is a call into the C library.
      now = this.#last.boot
      for (let next = this.#events.shift(); next !== undefined && !this.#stopped; next = this.#events.shift()) {
        if (this.#events.length > eventsMax) throw new Error(`${eventsMax} events wait for the core`)
        this.#step(next, now)
        now = this.#options.clock.bootMs()
      }
    } catch (error) {
      this.stop()
      this.#options.failed(error)
    } finally {
      this.#stepping = false
    }
    this.#schedule(now)
    this.#options.after?.()
  }

  start(): void {
    this.#last = this.#read()
    this.#wall = { boot: this.#last.boot, wall: this.#options.clock.wallMs() }
    this.#tickedAt = this.#last.boot
    this.#running = true
    this.#schedule(this.#last.boot)
  }

  stop(): void {
    this.#stopped = true
    this.#events = []
    this.#timer.clear()
  }

  #step(body: EventBody, now: number): void {
    const { clock, step, run, decided } = this.#options
    const { state, effects, why } = step(this.#state, { ...body, now, random: clock.random() })
    this.#state = state
    for (const sentence of why) decided(sentence, state)
    run(effects)
  }

  /** The next tick: soon, or at the end of a rest. Set again only when it has moved. */
  #schedule(now: number): void {
    if (!this.#running || this.#stopped) return
    const { timing, rest } = this.#options
    const restUntil = Math.min(rest(this.#state, now), now + restMaxOf(timing))
    const dueAt = Math.max(restUntil, this.#tickedAt + tickMsOf(timing))
    if (Math.abs(dueAt - this.#dueAt) < timerSlackMs) return
    this.#dueAt = dueAt
    this.#timer.set(dueAt - now)
  }

  #tick(): void {
    if (this.#stopped) return
    const now = this.#options.clock.bootMs()
    const lateMs = now - this.#dueAt
    this.#dueAt = 0
    // After a stop the answers that waited in the sockets are read first: a tick before them would take the other host
    // for silent. setImmediate runs after the poll phase.
    if (lateMs > this.#options.timing.heartbeatMs) setImmediate(() => this.#tickAt(this.#options.clock.bootMs()))
    else this.#tickAt(now)
  }

  #tickAt(now: number): void {
    if (this.#stopped) return
    this.#tickedAt = now
    this.post({ event: 'tick' })
  }

  get #gapMax(): number {
    return 2 * this.#options.timing.heartbeatMs
  }

  /** A suspend or a paused machine since the last event, said and turned into the event that the core must see first. */
  #noticeJump(): EventBody | null {
    const { timing, clock, decided } = this.#options
    const now = this.#read()
    const last = this.#last
    this.#last = now
    const gapMs = now.boot - last.boot
    const suspendedMs = gapMs - (now.monotonic - last.monotonic)
    const stopped = gapMs > this.#gapMax
    const leapMs = stopped || now.boot - this.#wall.boot > wallEveryMs ? this.#readWall(now.boot) : 0
    if (stopped) decided(`this process did not run for ${Math.round(gapMs)} ms: it was stopped or starved`, this.#state)
    const paused = stopped && Math.abs(leapMs) > timing.leaseMs
    if (suspendedMs > suspendSlackMs) {
      decided(`the host was suspended for ${Math.round(suspendedMs)} ms: this counts as a boot`, this.#state)
    } else if (paused) {
      decided(`wall time leapt by ${Math.round(leapMs)} ms over a gap: this counts as a boot`, this.#state)
    } else {
      return null
    }
    return { event: 'clockJump', nonce: nonceOf(clock) }
  }

  #read(): { boot: number; monotonic: number } {
    const { clock } = this.#options
    return { boot: clock.bootMs(), monotonic: clock.monotonicMs() }
  }

  /** How far wall time has come apart from this host's own since it was read last. */
  #readWall(boot: number): number {
    const before = this.#wall
    this.#wall = { boot, wall: this.#options.clock.wallMs() }
    return this.#wall.wall - before.wall - (boot - before.boot)
  }
}

/** Names one start of an agent in its heartbeats; 32 bits, so that it is exact everywhere. */
export const nonceOf = (clock: Clock): number => Math.floor(clock.random() * 2 ** 32)
