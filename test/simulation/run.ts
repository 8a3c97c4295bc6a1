import { obstacleToProtection } from '../../shared/protocol/duties.ts'
import { Violation } from './checkers/check.ts'
import { begin, drawFaults, type Fault } from './faults.ts'
import { convergenceLimitMs, drawOptions, type Options } from './options.ts'
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
}

const sampleMs = 100
/** A set-up takes the boots, one clone and a few rounds. */
const setUpLimitMs = 90_000
/** Protected for this long at the end: it is no accident. */
const steadyMs = 1500

/** One run: set up, a safety phase with faults, then everything heals and the pair has to be whole again in time. */
export function run(wish: RunOptions): RunResult {
  const options = drawOptions(wish.seed)
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
  const { world, options } = pair
  const sample = () => {
    pair.checks.sample()
    world.after(sampleMs, sample)
  }
  sample()
  pair.operator.setUp()
  pair.client.start()
  if (!reach(pair, () => pair.isProtected(), setUpLimitMs)) {
    throw new Violation('L1', `the set-up did not end with a protected pair within ${setUpLimitMs} ms`)
  }
  pair.client.resetGap()
  const ends = new Set<() => void>()
  if (options.runClass === 'single') oneByOne(pair, faults, ends)
  else storm(pair, faults, ends)
  return heal(pair, ends)
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
  if (end === null) return
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

function oneByOne(pair: Pair, faults: readonly Fault[], ends: Set<() => void>): void {
  const { world, options } = pair
  const begun = world.now
  for (const fault of faults) {
    world.runUntil(world.now + 500 + fault.x * 2000)
    const primaryBefore = pair.named
    pair.client.resetGap()
    const from = world.now
    schedule(pair, fault, ends)
    reach(
      pair,
      () => world.now - from > fault.ms + 1500 && pair.isProtected(),
      fault.ms + convergenceLimitMs(options, pair.timing),
    )
    demandOutage(pair, fault, { wasPrimary: fault.role === 'primary', moved: pair.named !== primaryBefore })
  }
  world.runUntil(Math.max(world.now, begun + options.safetyMs))
}

function demandOutage(pair: Pair, fault: Fault, what: { wasPrimary: boolean; moved: boolean }): void {
  void pair
  void fault
  void what
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
    host.registerDisk.heal()
    host.dataDisk.heal()
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
      host.registerDisk.heal()
      host.dataDisk.heal()
      if (!host.cluster.stopped) return
      host.cluster.stopped = false
      host.cluster.stream.pump()
    })
    if (!pair.isProtected()) since = 0
    else if (since === 0) since = world.now
    return since > 0 && world.now - since > steadyMs
  }
  if (!reach(pair, whole, limitMs)) {
    throw new Violation(
      'L1',
      `everything was healed, but the pair is not whole again within ${limitMs.toFixed(0)} ms: ${describe(pair)}`,
    )
  }
  const convergedMs = world.now - from
  const acks = pair.client.acks
  if (!reach(pair, () => pair.client.acks > acks, 10_000))
    throw new Violation('L1', 'the pair is whole, but no write is acknowledged')
  pair.client.stop()
  pair.checks.end()
  return convergedMs
}

export function describe(pair: Pair): string {
  const latest = pair.checks.register.latest?.value
  const host = (node: 'a' | 'b') => {
    const h = pair.hosts[node]
    const said = Object.entries(h.state.duty.said)
      .filter(([, text]) => text !== '')
      .map(([topic, text]) => `${topic}: ${text}`)
    return `${node}: power ${h.power}, agent ${h.agent.process}, database ${h.cluster.process} (${h.cluster.dir}, epoch ${h.cluster.marker}), gate ${h.gate.report().state}, round ${h.state.round?.change ?? 'none'}, obstacle ${obstacleToProtection(h.state, h.clock.now) ?? 'none'}${h.state.lease.ack ? `, ack ${h.state.lease.ack.why || 'ok'}` : ''} [${said.join('; ')}]`
  }
  return `register ${latest ? JSON.stringify(latest) : 'empty'}; ${host('a')}; ${host('b')}`
}
