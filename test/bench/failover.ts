/**
 * `npm run bench:failover`: what a client of the pair sees of each fault, in the lab, on real parts and the bundled agent,
 * beside the floor of promoting a standby and moving an address, measured in the same run.
 *
 * A figure is the longest time without an acknowledged write around the fault (eight connections through the VIP), with
 * the fault at a random phase of the heartbeat. `--json`: the last line of stdout is one JSON object.
 */
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { ensureDebianPackages, LAB_PACKAGES, unsuitable } from '../../infra/dev/debian-packages.ts'
import type { ObserverTargets } from '../../infra/lab/instruments.ts'
import { down, observerTargets, up } from '../../infra/lab/lab.ts'
import { lastWords, untilProtected } from '../../infra/lab/pair.ts'
import { type DatabaseOrigin, PROFILES, type Profile } from '../../infra/lab/product.ts'
import { runProgram } from '../../infra/lab/program.ts'
import { Trial } from '../../infra/lab/trial.ts'
import { buildBundles } from './bundles.ts'
import { measureFloor } from './failover-floor.ts'
import { type Run, type Scenario, scenarios } from './failover-scenarios.ts'
import { timeline } from './failover-timeline.ts'
import { type LoadedCounts, measureLoaded } from './loaded.ts'
import { Newcomers } from './newcomers-instrument.ts'
import { type Summary, showSummary, summary } from './statistics.ts'

const LAB = 'bench'
/** Eight connections in turn: a write every 5 ms, which with 20 looks a second leaves the hosts most of one machine. */
const WRITE_EVERY_MS = 40
const OBSERVE_EVERY_MS = 50
const RUNS_RANGE = { least: 1, most: 1000 }
const MINUTES_RANGE = { least: 0, most: 24 * 60 }

interface Options {
  json: boolean
  explain: boolean
  runs: number
  only: string[]
  profile: Profile
  loadedMinutes: number
}

interface Figure extends Summary {
  /** null: stated, without a target. */
  targetMs: number | null
  /** What clients saw, by code, over all runs: a planned switchover costs each connection one. */
  clientErrors: { [code: string]: number }
  protectedAgainMs?: Summary
  unprotectedMs?: Summary
}

interface Account {
  acknowledged: number
  lost: number
  doubleServing: number
}

const say = (line: string): void => {
  process.stderr.write(`${line}\n`)
}

async function main(): Promise<number> {
  const options = readOptions()
  const reason = unsuitable()
  if (reason !== null) throw new Error(reason)
  await ensureDebianPackages(LAB_PACKAGES, { why: 'the benchmark', say })
  const nextBundle = await buildBundles()
  const floor = await measureFloor(options.runs, say)
  const figures: { [name: string]: Figure } = {}
  const account: Account = { acknowledged: 0, lost: 0, doubleServing: 0 }
  let newcomers: ReturnType<Newcomers['figures']> = null
  for (const database of ['made', 'adopted'] as const) {
    const names = options.only.filter(name => scenarios[name]?.database === database)
    if (names.length === 0) continue
    const measured = await measureIn(database, { names, nextBundle, options })
    Object.assign(figures, measured.figures)
    for (const key of ['acknowledged', 'lost', 'doubleServing'] as const) account[key] += measured.account[key]
    newcomers ??= measured.newcomers
  }
  const loaded = options.loadedMinutes > 0 ? await measureLoaded(options, say) : null
  show({ options, floor, figures, account, newcomers, loaded })
  if (options.json) {
    const head = { profile: options.profile, runs: options.runs, cores: cpus().length, processor: cpus()[0]?.model }
    const result = { ...head, floorPromoteAndMoveMs: floor, ...figures, newcomers, loaded, ...account }
    process.stdout.write(`${JSON.stringify(result)}\n`)
  }
  return account.lost === 0 && account.doubleServing === 0 ? 0 : 1
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      explain: { type: 'boolean', default: false },
      runs: { type: 'string', default: '10' },
      only: { type: 'string', default: Object.keys(scenarios).join(',') },
      profile: { type: 'string', default: 'default' },
      'loaded-minutes': { type: 'string' },
    },
  })
  const profile = PROFILES.find(one => one === values.profile)
  if (profile === undefined) throw new Error(`--profile is "${values.profile}"; use one of ${PROFILES.join(', ')}.`)
  const only = values.only.split(',')
  const unknown = only.find(name => scenarios[name] === undefined)
  if (unknown !== undefined)
    throw new Error(`--only names "${unknown}"; use some of ${Object.keys(scenarios).join(',')}.`)
  const minutes = values['loaded-minutes'] ?? (profile === 'fast' ? '1' : '0')
  return {
    json: values.json,
    explain: values.explain,
    runs: numberIn('runs', values.runs, RUNS_RANGE),
    only,
    profile,
    loadedMinutes: numberIn('loaded-minutes', minutes, MINUTES_RANGE),
  }
}

function numberIn(option: string, text: string, { least, most }: { least: number; most: number }): number {
  const value = Number(text)
  if (value >= least && value <= most) return value
  throw new Error(`--${option} is "${text}" and must be a number from ${least} to ${most}.`)
}

/** All the scenarios for one kind of cluster, in one lab. */
async function measureIn(
  database: DatabaseOrigin,
  { names, nextBundle, options }: { names: readonly string[]; nextBundle: string; options: Options },
) {
  const figures: { [name: string]: Figure } = {}
  await up({ name: LAB, profile: options.profile, database, services: [], say })
  try {
    await untilProtected(LAB)
    const trial = await Trial.begin(LAB, {
      observe: ownAddresses(LAB),
      writer: { intervalMs: WRITE_EVERY_MS },
    })
    const newcomers = await Newcomers.start(LAB)
    const powerCuts: Run[] = []
    for (const name of names) {
      const scenario = scenarios[name]!
      const runs: Run[] = []
      for (let count = 0; count < options.runs; count += 1) {
        const run = await scenario.run({ lab: LAB, trial, nextBundle })
        runs.push(run)
        say(`${scenario.words}: ${runs.map(one => one.step.outage.gapMs.toFixed(0)).join(' ')} ms`)
        if (run.changedRolesMs !== undefined) for (const line of strayErrors(run, run.changedRolesMs)) say(line)
        if (options.explain) for (const line of timeline(LAB, run.step.outage)) say(line)
      }
      if (name === 'powerCutMs') powerCuts.push(...runs)
      figures[name] = figureOf(scenario, runs, options.profile)
    }
    await untilProtected(LAB)
    await newcomers.stop()
    const { writes, judgement } = await trial.end()
    const account: Account = {
      acknowledged: writes.a.acknowledged,
      lost: writes.a.lost.length + writes.b.lost.length,
      doubleServing: judgement.violations.length,
    }
    return { figures, account, newcomers: newcomers.figures(powerCuts.map(run => run.step.outage)) }
  } catch (error) {
    throw new Error(`${error instanceof Error ? error.message : String(error)}\n${lastWords(LAB, 20)}`)
  } finally {
    await down(LAB)
  }
}

/**
 * Each host's own address, from outside: enough to see two that serve. The tests of the lab look from everywhere; here
 * every observer is one more client that reconnects in the very moment that is measured, on the same two cores.
 */
function ownAddresses(lab: string): ObserverTargets {
  const { client } = observerTargets(lab)
  const own = Object.fromEntries(Object.entries(client).filter(([name]) => name.includes(':')))
  return { client: own, inside: { a: {}, b: {} }, rhythmMs: OBSERVE_EVERY_MS }
}

/** A fault that moves nothing costs no client an error: where one has seen one, it is told when, and since when roles are as they are. */
function strayErrors({ step }: Run, changedRolesMs: number): string[] {
  return step.errorsAt.map(
    ({ code, connection, atMs }) =>
      `  ${code} on connection ${connection}, ${(atMs - step.fromMs).toFixed(0)} ms into the row, ${(atMs - changedRolesMs).toFixed(0)} ms after the change of roles before it`,
  )
}

function figureOf(scenario: Scenario, runs: readonly Run[], profile: Profile): Figure {
  const clientErrors: { [code: string]: number } = {}
  for (const { step } of runs)
    for (const [code, count] of Object.entries(step.errors)) clientErrors[code] = (clientErrors[code] ?? 0) + count
  const of = (values: (number | undefined)[]): Summary | undefined => {
    const there = values.filter(value => value !== undefined)
    return there.length === 0 ? undefined : summary(there)
  }
  const protectedAgainMs = of(runs.map(run => run.protectedAgainMs))
  const unprotectedMs = of(runs.map(run => run.unprotectedMs))
  return {
    ...summary(runs.map(run => run.step.outage.gapMs)),
    targetMs: profile === 'fast' ? (scenario.fastTargetMs ?? scenario.targetMs) : scenario.targetMs,
    clientErrors,
    ...(protectedAgainMs && { protectedAgainMs }),
    ...(unprotectedMs && { unprotectedMs }),
  }
}

function show(parts: {
  options: Options
  floor: Summary
  figures: { [name: string]: Figure }
  account: Account
  newcomers: ReturnType<Newcomers['figures']>
  loaded: LoadedCounts | null
}): void {
  const { options, floor, figures, account, newcomers, loaded } = parts
  const out = (line: string): void => {
    process.stdout.write(`${line}\n`)
  }
  const row = (words: string, rest: string): void => out(`  ${words.padEnd(54)}${rest}`)
  out(
    `profile ${options.profile}, ${options.runs} runs each: time without an acknowledged write, median [min … max] ms`,
  )
  row('floor: promote a standby and move the addresses', showSummary(floor))
  for (const [name, figure] of Object.entries(figures)) {
    const reach = figure.targetMs === null ? '' : `   to reach: ${figure.targetMs}`
    row(scenarios[name]!.words, `${showSummary(figure)}${reach}`)
    const errors = Object.entries(figure.clientErrors).map(([code, count]) => `${count} × ${code}`)
    if (errors.length > 0) row('', `  client errors: ${errors.join(', ')}`)
    if (figure.protectedAgainMs) row('  healed until protected again', showSummary(figure.protectedAgainMs))
    if (figure.unprotectedMs && figure.unprotectedMs.max > 0)
      row('  longest time unprotected', showSummary(figure.unprotectedMs))
  }
  if (newcomers !== null) {
    row('connections begun while the primary was cut off: wait', showSummary(newcomers.waitMs))
    row('  of it after the others were served again', showSummary(newcomers.afterServiceMs))
  }
  if (loaded !== null)
    out(
      `  ${loaded.minutes} min under CPU load: ${loaded.falseTakeovers} takeovers, ${loaded.shrinks} times unprotected, longest time without a write ${loaded.longestGapMs.toFixed(0)} ms`,
    )
  out(
    `  ${account.acknowledged} writes acknowledged, ${account.lost} lost; two hosts serving at one instant: ${account.doubleServing}`,
  )
}

runProgram(main, { say })
