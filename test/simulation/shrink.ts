import type { Fault } from './faults/fault.ts'
import { run } from './run.ts'

/** More tries than this make a list hardly shorter. */
const triesMax = 120

export interface Shrunk {
  faults: Fault[]
  checker: string
  message: string
  at: number
}

/** A short part of `all` that still fails: first halves are left out, then single members, until none can be spared. */
export function shortest(all: readonly number[], fails: (part: readonly number[]) => boolean): readonly number[] {
  let best = all
  let tries = 0
  for (let size = Math.ceil(best.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < best.length && tries < triesMax; tries++) {
      const less = [...best.slice(0, from), ...best.slice(from + size)]
      if (fails(less)) best = less
      else from += size
    }
  }
  return best
}

/** The faults that a failed run needs for the same checker to object. Everything else of it stays as the seed drew it. */
export function shrink(seed: number, checker: string): Shrunk | null {
  const attempt = (keep: readonly number[]): Shrunk | null => {
    const { violation, faults } = run({ seed, keep })
    return violation?.checker === checker ? { faults, ...violation } : null
  }
  const all = run({ seed }).faults.map(fault => fault.id)
  return attempt(shortest(all, part => attempt(part) !== null))
}
