/**
 * `npm test [-- STAGE | FILE ...]`: everything that is checked, in stages, cheapest first; it stops at the first stage
 * that fails. What a stage needs of the machine is installed first. `npm test -- unit` runs one stage,
 * `npm test -- test/unit/grants.test.ts` one file.
 */

import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { glob } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, matchesGlob, relative } from 'node:path'
import { ALL_PACKAGES, ensureDebianPackages, unsuitable } from '../infra/dev/debian-packages.ts'
import { checkLocation } from '../node-agent/state-file/location.ts'

interface Stage {
  name: string
  /** What it shows, for people. */
  shows: string
  /** Needs root, namespaces and Debian's packages. */
  realParts: boolean
  /** Arguments of the pinned Node; a pattern of test files is run by node's own runner. */
  run: { script: string; args: string[] } | TestFiles
}

interface TestFiles {
  /** A pattern. */
  tests: string
  concurrency: number
  /** It is run on the one file that users install, which is made first. */
  bundle?: true
  /** Files of it that measure no time and share nothing with each other: two at once, after the others; longest first. */
  sideBySide?: readonly string[]
}

/** No test takes 75 s on two idle processors; on two busy ones, five times that. */
const TEST_LIMIT_MS = 360_000

const program = (script: string, ...args: string[]): Stage['run'] => ({ script, args })

const stages: readonly Stage[] = [
  {
    name: 'types',
    shows: 'the compiler accepts every file',
    realParts: false,
    run: program('node_modules/typescript/bin/tsc', '--noEmit'),
  },
  {
    name: 'lint',
    shows: 'format and line rules hold',
    realParts: false,
    run: program('node_modules/@biomejs/biome/bin/biome', 'check'),
  },
  {
    name: 'tidy',
    shows: 'the house rules hold',
    realParts: false,
    run: { tests: 'test/tidy/*.test.ts', concurrency: 2 },
  },
  { name: 'unit', shows: 'parts alone', realParts: false, run: { tests: 'test/unit/**/*.test.ts', concurrency: 2 } },
  {
    name: 'scenarios',
    shows: 'scripted courses of events on the simulated pair, every checker watching',
    realParts: false,
    run: { tests: 'test/scenarios/*.test.ts', concurrency: 2 },
  },
  {
    name: 'search',
    shows: 'everything that can happen around prepared situations, up to a bound',
    realParts: false,
    run: { tests: 'test/search/*.test.ts', concurrency: 1 },
  },
  {
    name: 'simulation',
    shows: 'the protocol holds over every seed that ever failed and 2 000 fresh ones',
    realParts: false,
    run: { tests: 'test/simulation/*.test.ts', concurrency: 1 },
  },
  {
    name: 'mutants',
    shows: 'five defects out of the list, one a kind of check, are noticed',
    realParts: false,
    run: program(
      'test/mutants/main.ts',
      '--only',
      'executor-lets-promises-overtake,no-hold-after-a-start,f8-resign-of-an-old-version,takeover-without-being-successor,persist-after-send',
    ),
  },
  {
    name: 'interruptions',
    shows: 'a crash after any effect of any plan, and the pair becomes whole again',
    realParts: false,
    run: program('test/interruption/main.ts', '--seed', '1,2'),
  },
  {
    name: 'control-plane',
    shows: 'the API over a real PostgreSQL, in each runtime',
    realParts: true,
    // Each file has clusters, brokers and ports of its own, and waits more than it computes.
    run: { tests: 'test/control-plane/**/*.test.ts', concurrency: 2 },
  },
  // Namespaces, nftables and clusters at once on two cores would measure each other, so one file at a time where that matters.
  {
    name: 'integration',
    shows: 'drivers on real parts',
    realParts: true,
    run: {
      tests: 'test/integration/**/*.test.ts',
      concurrency: 1,
      sideBySide: [
        'test/integration/systemd.test.ts',
        'test/integration/wal-reader.test.ts',
        'test/integration/bad-input.test.ts',
        'test/integration/files.test.ts',
        'test/integration/files-contents.test.ts',
        'test/integration/files-edges.test.ts',
        'test/integration/files-faults.test.ts',
        'test/integration/files-io-errors.test.ts',
        'test/integration/files-power-cut.test.ts',
        'test/integration/files-recovery.test.ts',
        'test/integration/files-wide.test.ts',
        'test/integration/cli.test.ts',
        'test/integration/network.test.ts',
        'test/integration/network-ovs.test.ts',
        'test/integration/network-wishes.test.ts',
        'test/integration/networkd.test.ts',
        'test/integration/postgres-adopt.test.ts',
        'test/integration/state-file.test.ts',
        'test/integration/files-set-up.test.ts',
      ],
    },
  },
  {
    name: 'torture',
    shows: 'trees of files stay alike under random changes, cuts, kills and takeovers',
    realParts: true,
    run: { tests: 'test/torture/*.test.ts', concurrency: 1 },
  },
  {
    name: 'lab',
    shows: 'a pair under load survives the faults of the matrix',
    realParts: true,
    run: {
      tests: 'test/lab/**/*.test.ts',
      concurrency: 1,
      bundle: true,
    },
  },
]

/** Where tests put what has to be durable; on many systems /tmp lies in memory, where nothing of ours keeps its state. */
const onDisk = '/var/tmp'

const say = (line: string): void => {
  process.stderr.write(`${line}\n`)
}

function node(args: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', ...args], { stdio: 'inherit' })
    child.on('error', reject)
    child.on('close', (code, signal) => resolve(signal === null ? (code ?? 1) : 1))
  })
}

interface Outcome {
  code: number
  /** What failed and why, in words; '' where nothing did. */
  failures: string
}

async function runTests(files: readonly string[], concurrency: number): Promise<Outcome> {
  if (files.length === 0) throw new Error('This stage has no test files: a run without tests proves nothing.')
  const folder = mkdtempSync(join(tmpdir(), 'understudy-test-'))
  const kept = join(folder, 'failures')
  const limits = ['--import=./test/bounds.ts', `--test-timeout=${TEST_LIMIT_MS}`, `--test-concurrency=${concurrency}`]
  const shown = ['--test-reporter=spec', '--test-reporter-destination=stdout']
  const told = ['--test-reporter=./test/failures.ts', `--test-reporter-destination=${kept}`]
  try {
    const code = await node([...limits, '--test', ...shown, ...told, ...files])
    return { code, failures: existsSync(kept) ? readFileSync(kept, 'utf8') : '' }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const belongsTo = (file: string, { run }: Stage): boolean =>
  'tests' in run && matchesGlob(relative('', file), run.tests)

/** Both parts are run even where the first one fails: each failure that is there is told in one run. */
async function runPattern({ tests, concurrency, bundle, sideBySide = [] }: TestFiles): Promise<Outcome> {
  if (bundle === true) {
    const made = await node(['infra/dev/build.ts'])
    if (made !== 0) return { code: made, failures: '' }
    process.env.UNDERSTUDY_LAB_BUNDLE = '1'
  }
  const files: string[] = []
  for await (const file of glob(tests)) files.push(file)
  const missing = sideBySide.find(file => !files.includes(file))
  if (missing !== undefined) throw new Error(`There is no test file ${missing} below ${tests}.`)
  const others = files.filter(file => !sideBySide.includes(file)).sort()
  const alone = await runTests(others, concurrency)
  if (sideBySide.length === 0) return alone
  const together = await runTests(sideBySide, 2)
  return { code: Math.max(alone.code, together.code), failures: alone.failures + together.failures }
}

/** @throws what is missing of the machine, as a sentence */
async function ensureParts({ name, realParts }: Stage): Promise<void> {
  if (!realParts) return
  const reason = unsuitable()
  if (reason !== null) throw new Error(reason)
  await ensureDebianPackages(ALL_PACKAGES, { why: `the stage ${name}`, say })
}

async function runStage(stage: Stage): Promise<Outcome> {
  await ensureParts(stage)
  if ('script' in stage.run) return { code: await node([stage.run.script, ...stage.run.args]), failures: '' }
  return runPattern(stage.run)
}

async function main(wishes: readonly string[]): Promise<number> {
  if (!checkLocation(tmpdir()).ok) process.env.TMPDIR = onDisk
  const files = wishes.filter(wish => wish.endsWith('.test.ts'))
  const missing = files.find(file => !existsSync(file))
  if (missing !== undefined) throw new Error(`There is no test file ${missing}.`)
  if (files.length > 0) {
    for (const stage of stages) if (files.some(file => belongsTo(file, stage))) await ensureParts(stage)
    return (await runTests(files, 1)).code
  }
  const unknown = wishes.find(wish => !stages.some(stage => stage.name === wish))
  if (unknown !== undefined) {
    throw new Error(`"${unknown}" is neither a stage (${stages.map(stage => stage.name).join(', ')}) nor a test file.`)
  }
  const seconds: string[] = []
  for (const stage of stages) {
    if (wishes.length > 0 && !wishes.includes(stage.name)) continue
    say(`\n── ${stage.name}: ${stage.shows}`)
    const began = performance.now()
    const { code, failures } = await runStage(stage)
    seconds.push(`${stage.name} ${((performance.now() - began) / 1000).toFixed(0)} s`)
    if (code !== 0) {
      say(
        `\n${failures}\n── ${stage.name} failed (${seconds.join(', ')}). Again, this stage alone: npm test -- ${stage.name}`,
      )
      return code
    }
  }
  say(`\n── all passed: ${seconds.join(', ')}`)
  return 0
}

main(process.argv.slice(2)).then(
  code => process.exit(code),
  error => {
    say(error instanceof Error ? error.message : String(error))
    process.exit(1)
  },
)
