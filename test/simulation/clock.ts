import type { World } from './world.ts'

/**
 * CLOCK_BOOTTIME of one host: it drifts, counts suspend, and starts anew with each boot.
 * With `pauseCounted: false` a guest's clock stands still while the guest does, which is outside of what is promised.
 */
export class HostClock {
  /** Local milliseconds per true millisecond. */
  readonly rate: number
  private readonly world: World
  private bootedAt = 0
  private lostMs = 0
  private stoppedAt = -1

  constructor(world: World, rate: number) {
    this.world = world
    this.rate = rate
  }

  get now(): number {
    const real = this.stoppedAt >= 0 ? this.stoppedAt : this.world.now
    // A host never boots at 0: the protocol uses 0 for "never".
    return 1000 + (real - this.bootedAt - this.lostMs) * this.rate
  }

  /** True time at which this clock shows `local`, if it goes on. */
  trueTimeOf(local: number): number {
    return (local - 1000) / this.rate + this.bootedAt + this.lostMs
  }

  boot(): void {
    this.bootedAt = this.world.now
    this.lostMs = 0
    this.stoppedAt = -1
  }

  stand(): void {
    this.stoppedAt = this.world.now
  }

  goOn(): void {
    this.lostMs += this.world.now - this.stoppedAt
    this.stoppedAt = -1
  }
}
