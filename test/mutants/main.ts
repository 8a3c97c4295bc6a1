/**
 * `npm run mutants [-- --only ID,ID] [--list] [--json] [--no-lab] [--lab] [--record] [--runs N] [--seconds N]`: puts each defect of the list
 * into the source at test time, one at a time, and shows which check notices it, after how many runs. One that none
 * notices is a hole in the checks and fails the command. `--record` keeps what it found in RESULTS.md; `--lab` tries only
 * those that need the machine for itself (root, namespaces), `--no-lab` all others.
 */
import { argumentsOf } from '../fixtures/arguments.ts'
import { commitOfTree } from '../simulation/commit.ts'
import { type Mutant, mutantOf, mutants } from './list.ts'
import { recordResults } from './results.ts'
import { type Outcome, tryMutant } from './trial.ts'

/** Enough that the rarest of the list dies several times over, see RESULTS.md; a survivor costs all of it. */
const runsDefault = 4000
const secondsDefault = 900

const { values } = argumentsOf({
  options: {
    only: { type: 'string' },
    list: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    'no-lab': { type: 'boolean', default: false },
    lab: { type: 'boolean', default: false },
    record: { type: 'boolean', default: false },
    runs: { type: 'string', default: `${runsDefault}` },
    seconds: { type: 'string', default: `${secondsDefault}` },
  },
})

/** Needs root, namespaces and the machine for itself. */
const needsLab = (mutant: Mutant): boolean => mutant.checks.some(check => check.by === 'lab')

const wanted = (): readonly Mutant[] =>
  (values.only === undefined ? mutants : values.only.split(',').map(mutantOf)).filter(mutant =>
    needsLab(mutant) ? !values['no-lab'] : !values.lab,
  )

function show(outcome: Outcome): string {
  const head = `${outcome.result.padEnd(8)} ${outcome.id.padEnd(44)} ${`${outcome.seconds} s`.padStart(8)}  `
  switch (outcome.result) {
    case 'killed':
      return `${head}${outcome.by}, after ${outcome.after}: ${outcome.says.slice(0, 160)}`
    case 'survived':
      return `${head}nothing noticed it (${outcome.tried})`
    case 'error':
      return `${head}${outcome.why}`
  }
}

async function main(): Promise<number> {
  const limits = { runs: Number(values.runs), seconds: Number(values.seconds) }
  if (!(limits.runs > 0) || !(limits.seconds > 0)) throw new Error('--runs and --seconds want a number above 0.')
  const outcomes: Outcome[] = []
  for (const mutant of wanted()) {
    if (values.list) {
      console.log(`${mutant.id.padEnd(44)} ${mutant.breaks}`)
      continue
    }
    const outcome = await tryMutant(mutant, limits)
    outcomes.push(outcome)
    if (values.record) recordResults([outcome], { commit: commitOfTree(), date: new Date().toISOString().slice(0, 10) })
    console.log(values.json ? JSON.stringify(outcome) : show(outcome))
  }
  const killed = outcomes.filter(one => one.result === 'killed').length
  if (!values.json && !values.list) console.log(`\n${killed} of ${outcomes.length} mutants were noticed.`)
  return killed === outcomes.length ? 0 : 1
}

main().then(
  code => process.exit(code),
  error => {
    console.error(error instanceof Error ? error.message : String(error))
    process.exit(2)
  },
)
