import { KernelTimer } from './kernel/timer.ts'

/**
 * Recurring work that may come a little early or late, done together with what wakes the process anyway. On an idle
 * machine a wake-up costs more than most of this work does: a core that sleeps has to be woken, with cold caches.
 */
interface Work {
  everyMs: number
  run: () => void
  dueAt: number
}

/** Of the interval: so much early it is done when the process is awake in any case. */
const earlyShare = 0.15
/** So much late it is done even though nothing else wakes the process; less than what counts as hunger (30 ms). */
const graceMs = 20

export class Pulse {
  #works: readonly Work[] = []
  readonly #timer = new KernelTimer(() => this.#elapsed())
  #timerAt = 0
  /** Nothing can be done before. */
  #nextAt = Number.POSITIVE_INFINITY
  #running = false

  /** @returns ends it. `run` must not throw. */
  every(everyMs: number, run: () => void): () => void {
    const work: Work = { everyMs, run, dueAt: performance.now() + everyMs }
    this.#works = [...this.#works, work]
    this.#arm()
    return () => {
      this.#works = this.#works.filter(one => one !== work)
      this.#arm()
    }
  }

  /** The process is awake, and what was urgent is done. */
  wake(): void {
    if (this.#running || performance.now() < this.#nextAt) return
    this.#run()
  }

  #run(): void {
    this.#running = true
    try {
      for (const work of this.#works) {
        const now = performance.now()
        if (now < work.dueAt - work.everyMs * earlyShare) continue
        work.dueAt = now + work.everyMs
        work.run()
      }
    } finally {
      this.#running = false
    }
    this.#arm()
  }

  #arm(): void {
    this.#nextAt = Math.min(...this.#works.map(work => work.dueAt - work.everyMs * earlyShare))
    const dueAt = Math.min(...this.#works.map(work => work.dueAt)) + graceMs
    if (dueAt === this.#timerAt) return
    this.#timerAt = dueAt
    if (this.#works.length === 0) this.#timer.clear()
    else this.#timer.set(dueAt - performance.now())
  }

  #elapsed(): void {
    this.#timerAt = 0
    this.#run()
  }
}
