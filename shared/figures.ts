/** What a list of durations amounts to. */
export interface Figures {
  count: number
  p50Ms: number
  p99Ms: number
  maxMs: number
}

export function figuresOf(samplesMs: readonly number[]): Figures {
  const sorted = [...samplesMs].sort((x, y) => x - y)
  const at = (share: number): number => {
    const ms = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
    return Math.round(ms * 1000) / 1000
  }
  return { count: sorted.length, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) }
}

/** The latest durations of something that goes on for ever. */
export class RecentDurations {
  readonly #samples: number[] = []
  readonly #size: number
  #next = 0

  constructor(size: number) {
    this.#size = size
  }

  add(ms: number): void {
    this.#samples[this.#next] = ms
    this.#next = (this.#next + 1) % this.#size
  }

  figures(): Figures {
    return figuresOf(this.#samples)
  }
}
