import type { Agent } from './agent.ts'
import { Violation } from './checkers/check.ts'
import { demandWholeAgain, demandWrites } from './checkers/l1-whole-again.ts'
import { demandOutageBounded } from './checkers/l2-outage-bounded.ts'
import { demandWitnessNotNeeded } from './checkers/l3-witness-not-needed.ts'
import type { Fault } from './faults/fault.ts'
import { begin, drawFaults } from './faults/faults.ts'
import { convergenceLimitMs, drawOptions, type Options, type Ticks } from './options.ts'
import { Pair } from './pair.ts'

export interface RunResult {
  seed: number
  options: Options
  faults: Fault[]
  hash: string
  steps: number
  simulatedMs: number
  violation: { checker: string; message: string; at: number } | null
  counts: { readonly [name: string]: number }
  lines: readonly string[] | null
  convergedMs: number
}

export interface RunOptions {
  seed: number
  text?: boolean
  /** Only these faults; all if absent. */
  keep?: readonly number[]
  /** Instead of what the seed says; the run is the same one. */
  ticks?: Ticks
}

const sampleMs = 100
/** A set-up takes the boots, one clone and a few rounds. */
const setUpLimitMs = 90_000
/** Protected for this long at the end: it is no accident. */
const steadyMs = 1500
/** After a single fault: what follows it has had its time. */
const settleMs = 1500
const firstWriteLimitMs = 10_000

/** One run: set up, a safety phase with faults, then everything heals and the pair has to be whole again in time. */
export function run(wish: RunOptions): RunResult {
  const options = { ...drawOptions(wish.seed), ...(wish.ticks !== undefined && { ticks: wish.ticks }) }
  const all = drawFaults(options)
  const faults = wish.keep === undefined ? all : all.filter(fault => wish.keep!.includes(fault.id))
  const pair = new Pair(options, { text: wish.text === true })
  const result: RunResult = {
    seed: wish.seed,
    options,
    faults,
    hash: '',
    steps: 0,
    simulatedMs: 0,
    violation: null,
    counts: pair.coverage.counts,
    lines: pair.tracer.lines,
    convergedMs: 0,
  }
  try {
    result.convergedMs = play(pair, faults)
  } catch (error) {
    if (!(error instanceof Violation)) throw error
    result.violation = { checker: error.checker, message: error.message, at: pair.world.now }
    pair.trace('check', `${error.checker}: ${error.message}`)
  }
  result.hash = pair.tracer.hash
  result.steps = pair.world.steps
  result.simulatedMs = pair.world.now
  return result
}

function play(pair: Pair, faults: readonly Fault[]): number {
  prepare(pair)
  const ends = new Set<() => void>()
  if (pair.options.runClass === 'single') oneByOne(pair, faults, ends)
  else storm(pair, faults, ends)
  return heal(pair, ends)
}

/** Sets the pair up and lets it become protected; a client writes from the beginning. */
export function prepare(pair: Pair): void {
  const { world } = pair
  const sample = () => {
    pair.checks.sample()
    world.after(sampleMs, sample)
  }
  sample()
  pair.operator.setUp()
  pair.client.start()
  if (!reach(pair, () => pair.isProtected(), setUpLimitMs)) {
    demandWholeAgain(pair, { whole: false, limitMs: setUpLimitMs, after: 'the pair was set up' })
  }
  pair.client.resetGap()
}

/** Runs until `wanted` holds at a sample; false if it does not in time. */
export function reach(pair: Pair, wanted: () => boolean, limitMs: number): boolean {
  const { world } = pair
  const end = world.now + limitMs
  while (world.now < end) {
    world.runUntil(Math.min(world.now + sampleMs, end))
    if (wanted()) return true
  }
  return wanted()
}

export function schedule(pair: Pair, fault: Fault, ends: Set<() => void>): void {
  const end = begin(pair, fault)
  const once = () => {
    if (!ends.delete(once)) return
    pair.trace('fault', `${fault.id} ${fault.kind} ends`)
    end()
  }
  ends.add(once)
  pair.world.after(fault.ms, once)
}

function storm(pair: Pair, faults: readonly Fault[], ends: Set<() => void>): void {
  const { world, options } = pair
  const begun = world.now
  for (const fault of faults) world.at(begun + fault.at, () => schedule(pair, fault, ends))
  world.runUntil(begun + options.safetyMs)
}

/** From the end of an agent, or of its power, to its next start. A fault may take a moment to end it. */
const awayMs = ({ upSince, diedAt }: Agent, from: number): number => upSince - Math.max(from, diedAt)

/** One fault after the other, each on a pair that is protected; what it may cost a client is promised. */
function oneByOne(pair: Pair, faults: readonly Fault[], ends: Set<() => void>): void {
  const { world, options } = pair
  const begun = world.now
  for (const fault of faults) {
    world.runUntil(world.now + 500 + fault.x * 2000)
    demandProtected(pair, fault)
    const primaryBefore = pair.named
    pair.client.resetGap()
    const shutBefore = pair.shutMs()
    const from = world.now
    schedule(pair, fault, ends)
    const limitMs = fault.ms + convergenceLimitMs(options, pair.timing)
    const whole = reach(pair, () => world.now - from > fault.ms + settleMs && pair.isProtected(), limitMs)
    demandWholeAgain(pair, { whole, limitMs, after: `${fault.kind} was over` })
    demandOutageBounded(pair, fault, {
      gapMs: pair.client.gapMs,
      stayed: pair.named === primaryBefore,
      backAfterMs: primaryBefore === null ? 0 : awayMs(pair.hosts[primaryBefore].agent, from),
    })
    demandWitnessNotNeeded(pair, fault.kind, { primaryBefore, shutMs: pair.shutMs() - shutBefore })
    // A disk whose errors nobody has met yet would make the next fault the second one.
    pair.each(host => host.healDisks())
  }
  world.runUntil(Math.max(world.now, begun + options.safetyMs))
}

/** What was promised for one fault is promised for a pair that is protected as it begins: an aftermath is waited for. */
function demandProtected(pair: Pair, fault: Fault): void {
  const limitMs = convergenceLimitMs(pair.options, pair.timing)
  const whole = reach(pair, () => pair.isProtected(), limitMs)
  demandWholeAgain(pair, { whole, limitMs, after: `${fault.kind} was due` })
}

/** Every fault ends, everything gets power and runs; then one host serves and the other is its successor, in time. */
export function heal(pair: Pair, ends: Set<() => void>): number {
  const { world, options, network, witness } = pair
  for (const end of [...ends]) end()
  pair.trace('fault', 'everything heals')
  network.calm()
  witness.slowMs = 0
  pair.each(host => {
    host.agent.crashPlan = null
    host.healDisks()
    if (host.power === 'paused') host.goOn()
    host.agent.goOn({ jump: false })
    host.boot()
  })
  const from = world.now
  const limitMs = convergenceLimitMs(options, pair.timing)
  let since = 0
  const whole = () => {
    pair.each(host => {
      host.boot()
      host.agent.goOn({ jump: false })
      host.healDisks()
      if (!host.cluster.stopped) return
      host.cluster.stopped = false
      host.cluster.stream.pump()
    })
    if (!pair.isProtected()) since = 0
    else if (since === 0) since = world.now
    return since > 0 && world.now - since > steadyMs
  }
  demandWholeAgain(pair, { whole: reach(pair, whole, limitMs), limitMs, after: 'everything was healed' })
  const convergedMs = world.now - from
  const acks = pair.client.acks
  demandWrites({
    acknowledged: reach(pair, () => pair.client.acks > acks, firstWriteLimitMs),
    limitMs: firstWriteLimitMs,
  })
  pair.client.stop()
  pair.checks.end()
  return convergedMs
}
