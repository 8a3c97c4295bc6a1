import { GUARD_MS, grantMs, SLOP_MS } from '../../shared/protocol/grants.ts'
import type { GateReport } from '../../shared/protocol/types.ts'
import type { HostClock } from './clock.ts'
import type { Random } from './random.ts'
import type { World } from './world.ts'

export interface GateWatch {
  opened(until: number): void
  shut(state: 'frozen' | 'closed'): void
}

/**
 * The gate in the kernel: an element with a timeout. What a stopped or dead agent had asked for before is refused by the
 * kernel itself: a grant is applied only while the guard it was built on is still there.
 */
export class KernelGate {
  private readonly world: World
  private readonly clock: HostClock
  private readonly random: Random
  private readonly watch: GateWatch
  private shutState: 'frozen' | 'closed' = 'frozen'
  /** True time of the expiry, for the checks only. */
  openUntil = 0
  private shutSince = 0
  private shutBeforeMs = 0
  private guard: { key: number; until: number } | null = null
  private keys = 0

  constructor(parts: { world: World; clock: HostClock; random: Random; watch: GateWatch }) {
    this.world = parts.world
    this.clock = parts.clock
    this.random = parts.random
    this.watch = parts.watch
  }

  get isOpen(): boolean {
    return this.world.now < this.openUntil
  }

  get isClosed(): boolean {
    return !this.isOpen && this.shutState === 'closed'
  }

  report(): GateReport {
    if (!this.isOpen) return { state: this.shutState, expiresUntil: 0 }
    return { state: 'open', expiresUntil: this.clock.now + (this.openUntil - this.world.now) * this.clock.rate }
  }

  /** For how long it has been shut since the beginning of time, for the checks only. */
  get shutMs(): number {
    return this.shutBeforeMs + (this.isOpen ? 0 : this.world.now - this.shutAt)
  }

  private get shutAt(): number {
    return this.openUntil > 0 && this.openUntil <= this.world.now ? this.openUntil : this.shutSince
  }

  private end(): void {
    this.shutSince = this.isOpen ? this.world.now : this.shutAt
    this.openUntil = 0
  }

  shut(state: 'frozen' | 'closed'): void {
    this.end()
    this.guard = null
    this.shutState = state
    this.watch.shut(state)
  }

  boot(): void {
    this.end()
    this.guard = null
    this.shutState = 'frozen'
  }

  /** A guest that stood still finds its grant as it was. */
  shift(ms: number): void {
    if (this.openUntil > 0) this.openUntil += ms
    if (this.guard !== null) this.guard.until += ms
  }

  arm(): number {
    const key = ++this.keys
    this.guard = { key, until: this.world.now + this.late(GUARD_MS) }
    return key
  }

  /** One transaction: it fails as a whole unless the guard it was built on is still there. */
  grant(key: number, ms: number): boolean {
    if (this.guard === null || this.guard.key !== key || this.world.now >= this.guard.until) return false
    this.guard = null
    if (!this.isOpen) this.shutBeforeMs += this.world.now - this.shutAt
    this.openUntil = this.world.now + this.late(ms)
    this.shutState = 'frozen'
    this.watch.opened(this.openUntil)
    return true
  }

  /** The kernel's timers run on this host's clock and may be late by a tick. */
  private late(ms: number): number {
    return (ms + this.random.next() * (SLOP_MS / 2)) / this.clock.rate
  }
}

/** Two steps, with the process perhaps held up before each of them. */
export function applyGrant(parts: {
  gate: KernelGate
  clock: HostClock
  until: number
  pause: (then: () => void) => void
  done: (applied: boolean) => void
}): void {
  const { gate, clock, until, pause, done } = parts
  const key = gate.arm()
  pause(() => {
    const ms = grantMs({ armedMs: clock.now, untilMs: until })
    if (ms === 0) return done(false)
    pause(() => done(gate.grant(key, ms)))
  })
}
