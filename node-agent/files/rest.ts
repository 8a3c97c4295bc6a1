import { getHeapStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** Less is not worth the moment that a collection takes … */
const growthBytesMin = 16 * 2 ** 20
/** … nor is less than this share of what is kept, through which it looks. */
const growthShareMin = 0.25

/**
 * Gives back what a seed or a burst has left. V8 collects when memory is asked for, which a worker at rest does not do: it
 * would keep five times what it needs for as long as nothing changes. One collection that gives back all it can is enough;
 * V8's own way to it, in two more of them some seconds later, is switched off (filesFlags).
 */
export class RestCollector {
  #collect: (() => void) | null = null
  #afterBytes = getHeapStatistics().total_heap_size
  #wasAtRest = false

  /** To be called each second or so: two looks at rest are a rest. */
  look({ isAtRest }: { isAtRest: boolean }): void {
    const isResting = isAtRest && this.#wasAtRest
    this.#wasAtRest = isAtRest
    const growthBytes = Math.max(growthBytesMin, growthShareMin * this.#afterBytes)
    if (!isResting || getHeapStatistics().total_heap_size < this.#afterBytes + growthBytes) return
    this.#collect ??= collector()
    this.#collect()
    this.#afterBytes = getHeapStatistics().total_heap_size
  }
}

/** Contexts that are made after the flag have the function (V8's own flag, in every version of Node). */
function collector(): () => void {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as (how: { type: 'major'; flavor: 'last-resort'; execution: 'sync' }) => void
  // A regular one would keep the pages that it has emptied.
  return () => gc({ type: 'major', flavor: 'last-resort', execution: 'sync' })
}
