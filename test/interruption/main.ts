/**
 * `npm run interruptions [-- --all] [--plan NAME] [--host a|b --effect N --when after --how kill] [--seed N,N] [--trace] [--stop]`:
 * runs each plan once to see its effects, then again and again, each time ended at another effect by a crash of the agent
 * or of the machine. Restarted from what was durable the pair has to become whole again, and every checker has to hold.
 *
 * Without --all the effects that only repeat themselves (heartbeats, their answers, reads, looks, renewals of an open
 * gate, writes of the flushed position alone) are left out. An odd seed lets no effect overtake the queue.
 */
import { argumentsOf } from '../fixtures/arguments.ts'
import { Violation } from '../simulation/checkers/check.ts'
import { type EffectOf, effectsOf, type Interruption, interrupt } from './interrupt.ts'
import { type Plan, plans } from './plans.ts'

const { values } = argumentsOf({
  options: {
    all: { type: 'boolean', default: false },
    plan: { type: 'string' },
    host: { type: 'string' },
    effect: { type: 'string' },
    when: { type: 'string', default: 'after' },
    how: { type: 'string', default: 'kill' },
    seed: { type: 'string', default: '1' },
    trace: { type: 'boolean', default: false },
    stop: { type: 'boolean', default: false },
  },
})

/** What is done over and over without anything having changed. */
const routine = /^(to [abw]: (heartbeat|ack|read) |look)/
const isOpening = (text: string): boolean => /^gate \d+ open/.test(text)

/** Leaves out what repeats itself: also renewals of an open gate, and writes for the flushed position alone. */
function withoutRepeats(effects: readonly EffectOf[]): EffectOf[] {
  const open = { a: false, b: false }
  const written = { a: '', b: '' }
  return effects.filter(({ node, text }) => {
    if (routine.test(text)) return false
    if (text.startsWith('persist ')) {
      const content = text.replace(/^persist \d+/, '')
      const same = written[node] === content
      written[node] = content
      return !same
    }
    if (!text.startsWith('gate ')) return true
    const renewal = open[node] && isOpening(text)
    open[node] = isOpening(text)
    return !renewal
  })
}

function interruptionsAt(effect: EffectOf): Interruption[] {
  const { node, index, text } = effect
  const takesTime = text.startsWith('persist') || isOpening(text)
  const moments = takesTime ? (['during', 'after'] as const) : (['after'] as const)
  return moments.flatMap(when => (['kill', 'power'] as const).map(how => ({ node, index, when, how })))
}

interface Tally {
  tried: number
  simulatedMs: number
  failures: string[]
}

/** With --stop one failure is enough. */
const isEnough = (failures: readonly string[]): boolean => values.stop && failures.length > 0

function tryPlan(plan: Plan, seed: number): Tally {
  const tally: Tally = { tried: 0, simulatedMs: 0, failures: [] }
  const effects = effectsOf(plan, seed)
  if (effects instanceof Violation) {
    tally.failures.push(`without any interruption: ${effects.checker}: ${effects.message}`)
    return tally
  }
  for (const effect of values.all ? effects : withoutRepeats(effects)) {
    for (const at of interruptionsAt(effect)) {
      if (isEnough(tally.failures)) return tally
      tally.tried++
      const { violation, happened, simulatedMs } = interrupt(plan, at, { seed })
      tally.simulatedMs += simulatedMs
      if (violation === null && happened) continue
      const why =
        violation === null ? 'the interruption did not come about' : `${violation.checker}: ${violation.message}`
      const again = `--host ${at.node} --effect ${at.index} --when ${at.when} --how ${at.how} --seed ${seed} --trace`
      tally.failures.push(
        `${effect.text.slice(0, 100)}: ${why}\n    npm run interruptions -- --plan '${plan.name}' ${again}`,
      )
    }
  }
  return tally
}

function replay(plan: Plan, seed: number): number {
  const at: Interruption = {
    node: values.host === 'b' ? 'b' : 'a',
    index: Number(values.effect),
    when: values.when === 'during' ? 'during' : 'after',
    how: values.how === 'power' ? 'power' : 'kill',
  }
  const { violation, lines, happened } = interrupt(plan, at, { seed, text: values.trace })
  if (lines !== null) console.log(lines.join('\n'))
  if (violation !== null) console.log(`${violation.checker}: ${violation.message}`)
  else console.log(happened ? 'it converged' : 'the interruption did not come about')
  return violation === null && happened ? 0 : 1
}

function main(): number {
  const wanted = plans.filter(plan => values.plan === undefined || plan.name === values.plan)
  const [first] = wanted
  if (first === undefined) {
    throw new Error(`There is no plan "${values.plan}"; there are: ${plans.map(plan => plan.name).join(', ')}.`)
  }
  const seeds = values.seed.split(',').map(Number)
  if (values.effect !== undefined) return replay(first, seeds[0] ?? 1)
  const began = performance.now()
  const sum: Tally = { tried: 0, simulatedMs: 0, failures: [] }
  for (const seed of seeds) {
    for (const plan of wanted) {
      if (isEnough(sum.failures)) break
      const from = performance.now()
      const { tried, simulatedMs, failures } = tryPlan(plan, seed)
      sum.tried += tried
      sum.simulatedMs += simulatedMs
      sum.failures.push(...failures)
      const seconds = ((performance.now() - from) / 1000).toFixed(1)
      const verdict = failures.length === 0 ? 'each converged' : `${failures.length} FAILED`
      console.log(
        `${plan.name.padEnd(56)}${String(tried).padStart(5)} interruptions ${seconds.padStart(6)} s  ${verdict}`,
      )
      for (const failure of failures.slice(0, failuresShown)) console.log(`  ${failure}`)
    }
  }
  const seconds = ((performance.now() - began) / 1000).toFixed(0)
  const hours = (sum.simulatedMs / 3_600_000).toFixed(1)
  console.log(
    `${sum.tried} interruptions (${hours} simulated hours) in ${seconds} s, ${sum.failures.length} failed; seeds ${values.seed}`,
  )
  return sum.failures.length === 0 ? 0 : 1
}
const failuresShown = 5

process.exit(main())
