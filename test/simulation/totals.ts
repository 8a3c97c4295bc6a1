import type { RunClass } from './options.ts'
import type { RunResult } from './run.ts'

/** A run in which a checker objected. */
export interface Found {
  seed: number
  checker: string
  message: string
  at: number
  runClass: RunClass
  profile: string
  faults: number
}

/** What a set of runs adds up to. */
export interface Totals {
  runs: number
  steps: number
  simulatedMs: number
  counts: { [name: string]: number }
  found: Found[]
}

export const noTotals = (): Totals => ({ runs: 0, steps: 0, simulatedMs: 0, counts: {}, found: [] })

export const found = (result: RunResult, what: { checker: string; message: string; at: number }): Found => ({
  ...what,
  seed: result.seed,
  runClass: result.options.runClass,
  profile: result.options.profile,
  faults: result.faults.length,
})

export function addRun(to: Totals, result: RunResult): void {
  to.runs++
  to.steps += result.steps
  to.simulatedMs += result.simulatedMs
  addCounts(to.counts, result.counts)
  addCounts(to.counts, { [`class: ${result.options.runClass}`]: 1, [`profile: ${result.options.profile}`]: 1 })
  if (result.violation !== null) to.found.push(found(result, result.violation))
}

export function addTotals(to: Totals, more: Totals): void {
  to.runs += more.runs
  to.steps += more.steps
  to.simulatedMs += more.simulatedMs
  addCounts(to.counts, more.counts)
  to.found.push(...more.found)
}

function addCounts(to: { [name: string]: number }, more: { readonly [name: string]: number }): void {
  for (const [name, count] of Object.entries(more)) to[name] = (to[name] ?? 0) + count
}
