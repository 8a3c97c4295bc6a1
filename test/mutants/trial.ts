import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Check, Mutant } from './list.ts'
import type { SimulationVerdict } from './try-simulation.ts'

/** Whether a mutant was noticed, by what and at what price. `error`: the trial itself is worth nothing. */
export type Outcome = { id: string; seconds: number } & (
  | { result: 'killed'; by: string; after: string; says: string }
  | { result: 'survived'; tried: string }
  | { result: 'error'; why: string }
)

export interface Limits {
  runs: number
  seconds: number
}

const preload = pathToFileURL(join(import.meta.dirname, 'load.ts')).href
const interruptions = join(import.meta.dirname, '../interruption/main.ts')
const simulation = join(import.meta.dirname, 'try-simulation.ts')
const search = join(import.meta.dirname, '../search/main.ts')
/** From each start, about half a minute in all. */
const searchStates = 20_000
/** A test file that takes longer than this with a mutant in it hangs, which counts as noticed. */
const testLimitMs = 300_000

export async function tryMutant(mutant: Mutant, limits: Limits): Promise<Outcome> {
  const began = performance.now()
  const seconds = (): number => Math.round((performance.now() - began) / 100) / 10
  const tried: string[] = []
  for (const check of mutant.checks) {
    const outcome = await byCheck(mutant, check, limits)
    if (outcome.result === 'survived') tried.push(outcome.tried)
    else return { ...outcome, id: mutant.id, seconds: seconds() }
  }
  return { result: 'survived', tried: tried.join('; '), id: mutant.id, seconds: seconds() }
}

type Verdict =
  | { result: 'killed'; by: string; after: string; says: string }
  | { result: 'survived'; tried: string }
  | { result: 'error'; why: string }

function byCheck(mutant: Mutant, check: Check, limits: Limits): Promise<Verdict> {
  switch (check.by) {
    case 'sim':
      return bySimulation(mutant, { first: check.first ?? 1, ...limits })
    case 'search':
      return bySearch(mutant)
    case 'interruptions':
      return byInterruptions(mutant)
    case 'tests':
    case 'lab':
      return byTests(mutant, check)
  }
}

async function bySearch(mutant: Mutant): Promise<Verdict> {
  const { code, stdout, stderr, applied } = await program(mutant.id, [search, '--states', `${searchStates}`])
  if (applied === '') return { result: 'error', why: 'no changed file was loaded' }
  const broken = /^(.*) does not hold, (\d+ actions from "[^"]*"): (.*)$/m.exec(stdout)
  if (broken !== null)
    return { result: 'killed', by: `search: ${broken[1]}`, after: broken[2] ?? '', says: broken[3] ?? '' }
  if (code !== 0) return { result: 'error', why: `the search ended with ${code}: ${lastLines(stderr)}` }
  return { result: 'survived', tried: `the search of ${searchStates} states from each start` }
}

async function byInterruptions(mutant: Mutant): Promise<Verdict> {
  const { code, stdout, stderr, applied } = await program(mutant.id, [interruptions, '--stop'])
  if (applied === '') return { result: 'error', why: 'no changed file was loaded' }
  const tried = /^(\d+) interruptions/m.exec(stdout.split('\n').slice(-2).join('\n'))?.[1]
  if (tried === undefined) return { result: 'error', why: `the trial ended with ${code}: ${lastLines(stderr)}` }
  if (code === 0) return { result: 'survived', tried: `${tried} interruptions` }
  const [, checker = '', says = ''] = /: (\w+): (.*)$/m.exec(stdout) ?? []
  return { result: 'killed', by: `interruptions: ${checker}`, after: `${tried} interruptions`, says }
}

async function bySimulation(mutant: Mutant, options: Limits & { first: number }): Promise<Verdict> {
  const found = await simulate(mutant.id, options)
  if (typeof found === 'string') return { result: 'error', why: found }
  if (!found.killed) return { result: 'survived', tried: `${found.runs} runs of the simulation` }
  // The same seed without the mutant has to pass: otherwise it is the seed that was noticed.
  const innocent = await simulate(null, { first: found.seed, runs: 1, seconds: 600 })
  if (typeof innocent === 'string') return { result: 'error', why: innocent }
  if (innocent.killed)
    return { result: 'error', why: `seed ${found.seed} fails without the mutant: ${innocent.message}` }
  const after = `${found.runs} ${found.runs === 1 ? 'run' : 'runs'}`
  return { result: 'killed', by: `simulation: ${found.checker}`, after, says: found.message }
}

async function simulate(id: string | null, options: Limits & { first: number }): Promise<SimulationVerdict | string> {
  const { code, stdout, stderr, applied } = await program(id, [
    simulation,
    `${options.first}`,
    `${options.runs}`,
    `${options.seconds}`,
  ])
  if (code !== 0) return `the trial ended with ${code}: ${lastLines(stderr)}`
  if (id !== null && applied.length === 0) return 'no changed file was loaded'
  return JSON.parse(stdout) as SimulationVerdict
}

/** Files that pass without any mutant; each is tried once. */
const baseline = new Map<string, Promise<string>>()

async function byTests(mutant: Mutant, check: Check & { files: readonly string[] }): Promise<Verdict> {
  for (const file of check.files) {
    let clean = baseline.get(file)
    if (clean === undefined) {
      clean = runTests(null, file).then(({ failed }) => failed)
      baseline.set(file, clean)
    }
    const failedBefore = await clean
    if (failedBefore !== '') return { result: 'error', why: `${file} fails without the mutant: ${failedBefore}` }
    const { failed, applied } = await runTests(mutant.id, file)
    if (applied.length === 0) return { result: 'error', why: `${file} did not load the changed file` }
    if (failed !== '') return { result: 'killed', by: file, after: '1 run', says: failed }
  }
  return { result: 'survived', tried: check.files.join(', ') }
}

async function runTests(id: string | null, file: string): Promise<{ failed: string; applied: string }> {
  const { code, stdout, applied } = await program(id, ['--test', '--test-reporter=tap', file])
  if (code === 0) return { failed: '', applied }
  if (code === null) return { failed: `it did not end within ${testLimitMs / 1000} s`, applied }
  const names = stdout.split('\n').flatMap(line => /^\s*not ok \d+ - (.*)$/.exec(line)?.[1] ?? [])
  return { failed: names[0] ?? `it ended with ${code}`, applied }
}

interface Ended {
  code: number | null
  stdout: string
  stderr: string
  /** A line for each changed file that was loaded. */
  applied: string
}

/** Runs the pinned Node with a mutant, in the program and in all its children. */
function program(id: string | null, args: readonly string[]): Promise<Ended> {
  const dir = mkdtempSync(join(tmpdir(), 'understudy-mutant-'))
  const log = join(dir, 'applied')
  const env = {
    ...process.env,
    NODE_OPTIONS: `--disable-warning=ExperimentalWarning --import=${preload}`,
    UNDERSTUDY_MUTANT: id ?? '',
    UNDERSTUDY_MUTANT_LOG: log,
  }
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', chunk => {
      stdout += chunk
    })
    child.stderr.on('data', chunk => {
      stderr += chunk
    })
    const timer = setTimeout(() => child.kill('SIGTERM'), args[0] === '--test' ? testLimitMs : 3_600_000)
    child.on('error', reject)
    child.on('close', code => {
      clearTimeout(timer)
      let applied = ''
      try {
        applied = readFileSync(log, 'utf8')
      } catch {
        // Nothing was loaded.
      }
      rmSync(dir, { recursive: true, force: true })
      resolve({ code, stdout, stderr, applied })
    })
  })
}

const lastLines = (text: string): string => text.trim().split('\n').slice(-6).join(' | ')
