/**
 * `npm run sim -- [--seed=N] [--runs=N] [--jobs=N] [--minutes=N] [--log FILE] [--trace] [--keep=ID,ID|none]
 *                 [--coverage] [--outages [--json]]`
 *
 * Runs seeds N, N+1, … of the simulation and fails if a checker objects. Each failure is shrunk to the faults that it
 * needs, and shown with the command that replays it. `--log` goes on where the log ends and adds to it; `--minutes`
 * ends it; `--trace` prints every event and effect of each run; `--keep` replays a shrunk run; `--coverage` demands
 * that everything that matters happened, as any set of 2 000 runs and more does. `--outages` prints the table of
 * predicted client outages.
 */
import { availableParallelism } from 'node:os'
import { argumentsOf } from '../fixtures/arguments.ts'
import { runBatch } from './batch.ts'
import { commitOfTree } from './commit.ts'
import { coverageRuns, missingIn, showCoverage } from './coverage.ts'
import { showFault } from './faults/faults.ts'
import { keepSeeds } from './kept-seeds.ts'
import { showOptions } from './options.ts'
import { measureOutages, showOutages } from './outages.ts'
import { run } from './run.ts'
import { appendLog, readLog, sumLog } from './run-log.ts'
import { shrink } from './shrink.ts'
import { addRun, type Found, noTotals, type Totals } from './totals.ts'

/** Violations beyond are counted, not shrunk: they will mostly be the same one. */
const shownMax = 5
/** An accumulation writes a line to its log this often, so that little is lost when it is stopped. */
const logEveryMinutes = 5
const unlimited = 1_000_000_000

const { values } = argumentsOf({
  options: {
    seed: { type: 'string' },
    runs: { type: 'string' },
    jobs: { type: 'string', default: `${availableParallelism()}` },
    minutes: { type: 'string' },
    log: { type: 'string' },
    trace: { type: 'boolean', default: false },
    keep: { type: 'string' },
    coverage: { type: 'boolean', default: false },
    outages: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
})

function count(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const number = Number(text)
  if (!Number.isFinite(number) || number < 0) throw new Error(`--${name}=${text}: a number of 0 or more is wanted`)
  return number
}

const print = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

async function main(): Promise<number> {
  const minutes = count('minutes', values.minutes)
  const logged = values.log === undefined ? null : sumLog(readLog(values.log))
  const first = count('seed', values.seed) ?? logged?.next ?? 1
  const endless = minutes !== undefined || values.log !== undefined
  const runs = count('runs', values.runs) ?? (endless ? unlimited : 1)
  const jobs = Math.max(1, count('jobs', values.jobs) ?? 1)
  const commit = commitOfTree()
  if (values.outages) {
    if (!values.json) print(`seed=${first} runs=${count('runs', values.runs) ?? 200} commit=${commit} options: outages`)
    const rows = measureOutages({ first, runs: count('runs', values.runs) ?? 200 })
    print(values.json ? JSON.stringify(rows, null, 2) : showOutages(rows))
    return 0
  }
  const keep = values.keep === undefined ? undefined : idsOf(values.keep)
  print(
    `seed=${first} runs=${runs === unlimited ? 'until stopped' : runs} commit=${commit} options: jobs=${jobs}${values.keep === undefined ? '' : ` keep=${values.keep}`}${minutes === undefined ? '' : ` minutes=${minutes}`}`,
  )
  const began = performance.now()
  const totals =
    values.trace || keep !== undefined || runs === 1
      ? inline({ first, runs, keep })
      : await accumulate({ first, runs, jobs, minutes, commit })
  const seconds = (performance.now() - began) / 1000
  showFound(totals.found, keep)
  print(showCoverage(totals.counts))
  print(summary(totals, seconds))
  const demanded = values.coverage || totals.runs >= coverageRuns
  const missing = demanded ? missingIn(totals.counts) : []
  if (missing.length > 0)
    print(`Never happened in ${totals.runs} runs, so they prove nothing about it: ${missing.join(', ')}.`)
  if (values.log !== undefined) {
    const sum = sumLog(readLog(values.log))
    print(`${values.log}: ${sum.runs} runs, ${sum.hours.toFixed(0)} pair-hours, ${sum.violations} violations so far.`)
  }
  return totals.found.length > 0 || missing.length > 0 ? 1 : 0
}

function idsOf(text: string): number[] {
  if (text === 'none') return []
  return text.split(',').map(id => count('keep', id) ?? 0)
}

/** One after the other in this thread, with the text of each where it is asked for. */
function inline(wish: { first: number; runs: number; keep: readonly number[] | undefined }): Totals {
  const totals = noTotals()
  for (let seed = wish.first; seed < wish.first + wish.runs; seed++) {
    const result = run({ seed, text: values.trace, ...(wish.keep !== undefined && { keep: wish.keep }) })
    print(`seed=${seed} ${showOptions(result.options)}`)
    for (const line of result.lines ?? []) print(line)
    print(`seed=${seed} steps=${result.steps} hash=${result.hash}`)
    addRun(totals, result)
  }
  return totals
}

async function accumulate(wish: {
  first: number
  runs: number
  jobs: number
  minutes: number | undefined
  commit: string
}): Promise<Totals> {
  const { first, runs, jobs, minutes, commit } = wish
  const { log } = values
  let from = { seed: first, violations: 0, hours: 0, steps: 0, at: performance.now() }
  const note = (next: number, totals: Totals): void => {
    if (log === undefined || next === from.seed) return
    const hours = totals.simulatedMs / 3_600_000
    const fresh = totals.found.slice(from.violations)
    appendLog(log, {
      at: new Date().toISOString().slice(0, 19),
      commit,
      first: from.seed,
      next,
      violations: fresh.length,
      hours: hours - from.hours,
      steps: totals.steps - from.steps,
      minutes: (performance.now() - from.at) / 60_000,
    })
    keepSeeds(fresh)
    from = { seed: next, violations: totals.found.length, hours, steps: totals.steps, at: performance.now() }
  }
  let last = first
  let told = 0
  let soFar = noTotals()
  // Stopped by hand: what is done so far is not lost.
  const stop = (): void => {
    note(last, soFar)
    process.exit(130)
  }
  process.once('SIGTERM', stop)
  process.once('SIGINT', stop)
  const totals = await runBatch({
    first,
    runs,
    jobs,
    minutes,
    progress: ({ next, totals: sum }) => {
      last = next
      soFar = sum
      for (const one of sum.found.slice(told)) print(`seed ${one.seed}: ${one.checker}: ${one.message}`)
      told = sum.found.length
      if (performance.now() - from.at > logEveryMinutes * 60_000) note(next, sum)
    },
  })
  note(last, totals)
  return totals
}

function showFound(found: readonly Found[], keep: readonly number[] | undefined): void {
  for (const one of found.slice(0, shownMax)) {
    print(
      `\nVIOLATION ${one.checker} seed ${one.seed} (${one.runClass}, ${one.profile}) at ${one.at.toFixed(0)} ms: ${one.message}`,
    )
    if (keep !== undefined || one.checker === 'replay') continue
    const short = shrink(one.seed, one.checker)
    if (short === null) continue
    print(`  ${short.faults.length} of its ${one.faults} faults are enough: ${short.message}`)
    for (const fault of short.faults)
      print(`    ${fault.at.toFixed(0).padStart(6)} ms  ${showFault(fault, fault.role)}`)
    const ids = short.faults.map(fault => fault.id).join(',') || 'none'
    print(`  again: npm run sim -- --seed=${one.seed} --keep=${ids} --trace`)
  }
  if (found.length > shownMax) {
    const seeds = found.slice(shownMax, shownMax + 40).map(one => `${one.seed} ${one.checker}`)
    print(`\n${found.length - shownMax} violations more: ${seeds.join(', ')}`)
  }
}

function summary(totals: Totals, seconds: number): string {
  const hours = totals.simulatedMs / 3_600_000
  return `${totals.runs} runs, ${totals.steps} steps, ${hours.toFixed(2)} pair-hours in ${seconds.toFixed(1)} s: ${((hours / seconds) * 60).toFixed(1)} pair-hours a minute; ${totals.found.length} violations`
}

main().then(
  code => {
    process.exitCode = code
  },
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = 1
  },
)
