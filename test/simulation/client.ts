import type { Host } from './host.ts'
import type { Pair } from './pair.ts'
import type { Random } from './random.ts'

/**
 * A client that writes and reads all the time: through the virtual address, now and then through each host's own
 * address and from within each host. Whatever answers is believed.
 */
export class Client {
  private readonly pair: Pair
  private readonly random: Random
  private writes = 0
  private stopped = false
  everyMs: number
  acks = 0
  lastAckAt = 0
  /** The longest stretch without an acknowledged write since `resetGap`. */
  longestGapMs = 0

  constructor(pair: Pair, random: Random) {
    this.pair = pair
    this.random = random
    this.everyMs = pair.options.clientEveryMs
  }

  start(): void {
    this.lastAckAt = this.pair.world.now
    this.next()
  }

  stop(): void {
    this.stopped = true
  }

  private next(): void {
    const { world, hosts } = this.pair
    world.after(this.everyMs * this.random.between(0.8, 1.2), () => {
      if (this.stopped) return
      const target = this.pair.vipAt
      if (target?.vipUp) this.ask(target)
      // Every other path to each host: what should be shut must be shut there too.
      if (this.random.chance(0.1)) {
        const host = this.random.chance(0.5) ? hosts.a : hosts.b
        if (host !== target) this.ask(host)
      }
      this.next()
    })
  }

  private ask(host: Host): void {
    const write = ++this.writes
    this.pair.world.after(this.random.between(0.05, 1), () => {
      if (host.uplink > 0 && this.random.chance(0.8)) return
      host.request(write)
    })
  }

  acknowledged(_write: number): void {
    const { now } = this.pair.world
    const gap = now - this.lastAckAt
    if (gap > this.longestGapMs) this.longestGapMs = gap
    this.lastAckAt = now
    this.acks++
  }

  resetGap(): void {
    this.longestGapMs = 0
    this.lastAckAt = this.pair.world.now
  }

  /** The gap so far, the one that is still open included. */
  get gapMs(): number {
    return Math.max(this.longestGapMs, this.pair.world.now - this.lastAckAt)
  }
}
