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

/**
 * The shortest list of faults that still makes the same checker object: first halves are left out, then single faults,
 * until none can be spared. Everything else of the run stays as the seed drew it.
 */
export function shrink(seed: number, checker: string): Shrunk | null {
  let best: Shrunk | null = null
  let tries = 0
  const attempt = (keep: readonly number[]): boolean => {
    if (tries++ >= triesMax) return false
    const { violation, faults } = run({ seed, keep })
    if (violation?.checker !== checker) return false
    best = { faults, ...violation }
    return true
  }
  let keep = run({ seed }).faults.map(fault => fault.id)
  if (!attempt(keep)) return null
  for (let size = Math.ceil(keep.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < keep.length; ) {
      const less = [...keep.slice(0, from), ...keep.slice(from + size)]
      if (attempt(less)) keep = less
      else from += size
    }
  }
  return best
}
