import type { Random } from './random.ts'
import type { World } from './world.ts'

/**
 * One volume: how long a flush takes and how it can fail. A write that is interrupted by a crash of the process leaves
 * the old or the new content; by a power cut too. Content that a crashed process had written but not flushed is visible
 * to its successor and may still vanish with the power.
 */
export class Disk {
  private readonly world: World
  private readonly random: Random
  private readonly baseMs: number
  private readonly jitterMs: number
  /** Faults. Counted where they can overlap. */
  slowMs = 0
  hangs = 0
  full = 0
  ioError = false
  /** The next flush of the register fails. */
  failNext = 0
  private waiting: (() => void)[] = []

  constructor(world: World, random: Random, speed: { baseMs: number; jitterMs: number }) {
    this.world = world
    this.random = random
    this.baseMs = speed.baseMs
    this.jitterMs = speed.jitterMs
  }

  flushMs(): number {
    const x = this.random.next()
    return this.baseMs + this.jitterMs * x * x * x + (this.slowMs > 0 ? this.slowMs * this.random.between(0.5, 1.5) : 0)
  }

  /** Runs `done` once the flush has come to an end, well or not; later if the volume hangs meanwhile. */
  flush(done: () => void): void {
    this.world.after(this.flushMs(), () => this.whenAnswering(done))
  }

  private whenAnswering(done: () => void): void {
    if (this.hangs > 0) this.waiting.push(done)
    else done()
  }

  heal(): void {
    this.slowMs = 0
    this.full = 0
    this.ioError = false
    this.failNext = 0
    if (this.hangs > 0) {
      this.hangs = 1
      this.goOn()
    }
  }

  hang(): void {
    this.hangs++
  }

  goOn(): void {
    if (this.hangs === 0) return
    this.hangs--
    if (this.hangs > 0) return
    const waiting = this.waiting
    this.waiting = []
    for (const done of waiting) this.world.after(this.random.between(0.1, 5), () => this.whenAnswering(done))
  }
}

/** A file replaced as a whole (write, fsync, rename, fsync the folder), the way a data host keeps its register. */
export class DurableFile<T> {
  /** What a process reads that starts now. */
  content: T
  /** What is left after a power cut. */
  safe: T
  private inFlight: T | null = null
  private generation = 0
  private readonly disk: Disk
  private readonly random: Random

  constructor(disk: Disk, random: Random, content: T) {
    this.disk = disk
    this.random = random
    this.content = content
    this.safe = content
  }

  write(content: T, done: (ok: boolean) => void): void {
    const generation = ++this.generation
    this.inFlight = content
    this.disk.flush(() => {
      if (generation !== this.generation) return
      this.inFlight = null
      if (this.disk.ioError || this.disk.full > 0 || this.disk.failNext > 0) {
        if (this.disk.failNext > 0) this.disk.failNext--
        // It failed before or after the rename: nobody knows which.
        if (this.random.chance(0.5)) this.content = content
        done(false)
        return
      }
      this.content = content
      this.safe = content
      done(true)
    })
  }

  /** A new process flushes what it reads before it rests anything on it. */
  sync(done: () => void): void {
    const generation = ++this.generation
    this.disk.flush(() => {
      if (generation !== this.generation) return
      this.safe = this.content
      done()
    })
  }

  /** The writing process died: true if it was in the middle of a write. */
  abandon(): boolean {
    const torn = this.inFlight !== null
    if (this.inFlight !== null && this.random.chance(0.5)) this.content = this.inFlight
    this.inFlight = null
    this.generation++
    return torn
  }

  powerCut(): boolean {
    const torn = this.abandon()
    if (this.content !== this.safe && this.random.chance(0.5)) this.content = this.safe
    this.safe = this.content
    return torn
  }

  /** Another store in the same place: a new disk. */
  replace(content: T): void {
    this.inFlight = null
    this.generation++
    this.content = content
    this.safe = content
  }
}
