/**
 * Virtual time: a heap of events, run one after the other. Times are milliseconds of a true clock that no host can read.
 * Two events at the same time run in the order in which they were made, so that one seed means one run.
 */
export class World {
  now = 0
  /** Events run so far. */
  steps = 0
  private readonly heap: Entry[] = []
  private made = 0

  at(time: number, run: () => void): void {
    this.push({ time: Math.max(time, this.now), order: this.made++, run })
  }

  after(delayMs: number, run: () => void): void {
    this.push({ time: this.now + Math.max(delayMs, 0), order: this.made++, run })
  }

  /** Runs events up to `time`, or until `stop` says so; time then stands at the last event or at `time`. */
  runUntil(time: number, stop?: () => boolean): void {
    const heap = this.heap
    while (heap.length > 0 && heap[0]!.time <= time) {
      const entry = this.pop()
      this.now = entry.time
      this.steps++
      entry.run()
      if (stop?.()) return
    }
    this.now = time
  }

  private push(entry: Entry): void {
    const heap = this.heap
    let i = heap.length
    heap.push(entry)
    while (i > 0) {
      const up = (i - 1) >> 1
      const parent = heap[up]!
      if (before(parent, entry)) break
      heap[i] = parent
      i = up
    }
    heap[i] = entry
  }

  private pop(): Entry {
    const heap = this.heap
    const first = heap[0]!
    const last = heap.pop()!
    const size = heap.length
    if (size === 0) return first
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= size) break
      if (child + 1 < size && before(heap[child + 1]!, heap[child]!)) child++
      if (before(last, heap[child]!)) break
      heap[i] = heap[child]!
      i = child
    }
    heap[i] = last
    return first
  }
}

interface Entry {
  time: number
  order: number
  run: () => void
}

const before = (x: Entry, y: Entry): boolean => x.time < y.time || (x.time === y.time && x.order < y.order)
