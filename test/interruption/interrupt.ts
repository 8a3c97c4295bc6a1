import type { DataNode } from '../../shared/protocol/types.ts'
import { Violation } from '../simulation/checkers/check.ts'
import type { CrashPlan } from '../simulation/effect-kinds.ts'
import { calmOptions } from '../simulation/options.ts'
import { Pair } from '../simulation/pair.ts'
import { heal, reach } from '../simulation/run.ts'
import type { Plan } from './plans.ts'

/** Where a plan is interrupted: this host's agent, or its power, ends at the effect with this index since the plan began. */
export interface Interruption {
  node: DataNode
  index: number
  /** `during`: a write or a grant is still under way. */
  when: 'during' | 'after'
  how: 'kill' | 'power'
}

export interface EffectOf {
  node: DataNode
  index: number
  text: string
}

/** The longest plan: a witness that is away for a minute and has to be back for 30 s. */
const planLimitMs = 180_000
/** The interrupted host is back, and whatever had been begun goes on or is given up, before everything else heals. */
const aftermathMs = 4000
/** The machine is off for so long. */
const offMs = 300

const setUpLimitMs = 60_000

function prepared(plan: Plan, options: { seed: number; text: boolean }): Pair {
  const pair = new Pair(calmOptions(options.seed), { text: options.text })
  const sample = () => {
    pair.checks.sample()
    pair.world.after(100, sample)
  }
  sample()
  pair.client.start()
  if (plan.prepare === null) return pair
  pair.operator.setUp()
  const whole = reach(pair, () => pair.isProtected(), setUpLimitMs)
  if (!whole) throw new Violation('L1', 'the set-up did not end with a protected pair')
  plan.prepare?.(pair)
  return pair
}

/** The plan without an interruption: what each host did, effect by effect; or what is wrong with it even so. */
export function effectsOf(plan: Plan, seed: number): EffectOf[] | Violation {
  try {
    return uninterrupted(plan, seed)
  } catch (error) {
    if (error instanceof Violation) return error
    throw error
  }
}

function uninterrupted(plan: Plan, seed: number): EffectOf[] {
  const pair = prepared(plan, { seed, text: true })
  const from = pair.tracer.lines?.length ?? 0
  plan.begin(pair)
  if (!reach(pair, () => plan.isOver(pair), planLimitMs)) {
    throw new Violation('L1', `"${plan.name}" does not come to its end even without an interruption`)
  }
  const next = { a: 0, b: 0 }
  const effects: EffectOf[] = []
  for (const line of (pair.tracer.lines ?? []).slice(from)) {
    const found = /^\s*[\d.]+ ([ab])\s+> (.*)$/.exec(line)
    if (found === null) continue
    const node = found[1] === 'a' ? 'a' : 'b'
    effects.push({ node, index: next[node]++, text: found[2] ?? '' })
  }
  return effects
}

export interface Result {
  violation: Violation | null
  happened: boolean
  lines: readonly string[] | null
  simulatedMs: number
}

/** Interrupts the plan there and demands that the pair becomes whole again, with every checker watching. */
export function interrupt(plan: Plan, at: Interruption, options: { seed: number; text?: boolean }): Result {
  let pair: Pair | null = null
  let happened = false
  try {
    pair = prepared(plan, { seed: options.seed, text: options.text === true })
    const it = pair
    const host = it.hosts[at.node]
    const happens = (): void => {
      happened = true
      it.trace('fault', `${at.node} is interrupted (${at.how})`)
      if (at.how === 'kill') return host.agent.crash()
      host.powerCut()
      it.world.after(offMs, () => host.boot())
    }
    const crash: CrashPlan = { effect: '*', when: at.when, how: at.how, countdown: at.index, happened: happens }
    // A power cut that belongs to the plan takes the crash plan of that agent with it; the count goes on with the boot.
    const arm = (): void => {
      if (!happened) host.agent.crashPlan ??= crash
    }
    arm()
    plan.begin(it)
    const armed = () => {
      arm()
      return happened
    }
    reach(it, armed, planLimitMs)
    it.world.runUntil(it.world.now + aftermathMs)
    heal(it, new Set())
    return { violation: null, happened, lines: it.tracer.lines, simulatedMs: it.world.now }
  } catch (error) {
    if (!(error instanceof Violation)) throw error
    pair?.trace('check', `${error.checker}: ${error.message}`)
    return { violation: error, happened, lines: pair?.tracer.lines ?? null, simulatedMs: pair?.world.now ?? 0 }
  }
}
