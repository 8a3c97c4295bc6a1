import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import type { SimulationVerdict } from '../mutants/try-simulation.ts'
import { runBatch } from './batch.ts'
import { commitOfTree } from './commit.ts'
import { coverageRuns, missingIn } from './coverage.ts'
import { keptSeeds } from './kept-seeds.ts'
import { drawOptions, type RunClass, safetyMinMs } from './options.ts'
import { run } from './run.ts'
import { appendLog, readLog, sumLog } from './run-log.ts'
import { shortest } from './shrink.ts'

const again = (seed: number): string => `npm run sim -- --seed=${seed} --trace`

/** The first seeds of each kind of run. */
function seedsOf(runClass: RunClass, count: number): number[] {
  const seeds: number[] = []
  for (let seed = 1; seeds.length < count; seed++) if (drawOptions(seed).runClass === runClass) seeds.push(seed)
  return seeds
}

test('the same seed twice is the same run, byte for byte of its trace', () => {
  for (const runClass of ['storm', 'single', 'wild'] as const) {
    for (const seed of seedsOf(runClass, 2)) {
      const one = run({ seed, text: true })
      const two = run({ seed, text: true })
      assert.ok(one.lines !== null && one.lines.length > 1000, 'a run has a trace')
      assert.equal(one.lines.join('\n'), two.lines?.join('\n'), again(seed))
      assert.equal(run({ seed }).hash, one.hash, `the text must not change the run: ${again(seed)}`)
      for (const ticks of ['all', 'outside of rests'] as const)
        assert.equal(run({ seed, ticks }).hash, one.hash, `ticks within a rest must change nothing: ${again(seed)}`)
    }
  }
})

test('the totals do not depend on how many workers share the runs', async () => {
  const one = await runBatch({ first: 1, runs: 45, jobs: 1 })
  const three = await runBatch({ first: 1, runs: 45, jobs: 3 })
  assert.equal(one.runs, 45)
  assert.deepEqual(one, three)
})

test('a run lasts a minute of faults at least, and has three of them', () => {
  for (let seed = 1; seed <= 1000; seed++) {
    const options = drawOptions(seed)
    assert.ok(options.safetyMs >= safetyMinMs && safetyMinMs >= 60_000 && options.faults >= 3, again(seed))
  }
  for (const seed of [...seedsOf('storm', 3), ...seedsOf('single', 3), ...seedsOf('wild', 3)]) {
    const { counts, faults, simulatedMs } = run({ seed })
    const begun = Object.entries(counts).reduce((sum, [name, n]) => sum + (name.startsWith('fault: ') ? n : 0), 0)
    assert.ok(begun === faults.length && begun >= 3 && simulatedMs >= 60_000, `${begun} faults: ${again(seed)}`)
  }
})

test('a failure is shrunk to what it needs', () => {
  const needs = (part: readonly number[]): boolean => part.includes(3) && part.includes(11)
  assert.deepEqual(shortest([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], needs), [3, 11])
  assert.deepEqual(
    shortest([0, 1, 2], () => true),
    [],
  )
})

/** A program of the tests with a defect in it, to its end. */
function withDefect(mutant: string, file: string, args: readonly string[]): { code: number | null; output: string } {
  const preload = pathToFileURL(join(import.meta.dirname, '../mutants/load.ts')).href
  const flags = ['--disable-warning=ExperimentalWarning', '--import', preload]
  const env = { ...process.env, UNDERSTUDY_MUTANT: mutant }
  const { status, stdout } = spawnSync(process.execPath, [...flags, join(import.meta.dirname, file), ...args], {
    env,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 16 * 1024 * 1024,
  })
  return { code: status, output: stdout }
}

test('a run that fails is told with the few faults that it needs, and the command beside them fails in the same way', () => {
  const mutant = 'compare-and-set-ignores-the-value'
  const found = withDefect(mutant, '../mutants/try-simulation.ts', ['1', '200', '120'])
  const { killed, checker, seed } = JSON.parse(found.output) as SimulationVerdict
  assert.ok(killed, 'no run noticed the defect')
  const told = withDefect(mutant, 'main.ts', ['--seed', `${seed}`, '--runs', '1'])
  assert.equal(told.code, 1)
  const [, some, all] = /(\d+) of its (\d+) faults are enough/.exec(told.output) ?? []
  assert.ok(Number(some) < Number(all), `${some} of ${all} faults`)
  const again = /again: npm run sim -- --seed=(\d+) --keep=(\S+) --trace/.exec(told.output)
  assert.equal(again?.[1], `${seed}`)
  const replayed = withDefect(mutant, 'main.ts', ['--seed', `${seed}`, '--keep', again?.[2] ?? ''])
  assert.equal(replayed.code, 1)
  assert.match(replayed.output, new RegExp(`^VIOLATION ${checker} seed ${seed} `, 'm'))
})

test('an accumulation goes on where its log ends, and a log that is not one is refused', () => {
  const dir = mkdtempSync(join(tmpdir(), 'understudy-run-log-'))
  try {
    const file = join(dir, 'log.txt')
    assert.deepEqual(sumLog(readLog(file)), { runs: 0, violations: 0, hours: 0, next: 1 })
    const line = { commit: 'abc', violations: 0, hours: 2.5, steps: 7, minutes: 1, at: '2026-01-01T00:00:00' }
    appendLog(file, { ...line, first: 1, next: 101 })
    appendLog(file, { ...line, first: 101, next: 151, violations: 1 })
    assert.deepEqual(sumLog(readLog(file)), { runs: 150, violations: 1, hours: 5, next: 151 })
    writeFileSync(file, 'seeds=1..2\n')
    assert.throws(() => readLog(file), /log\.txt:1: "seeds=1\.\.2" is not a line of a run log/)
  } finally {
    rmSync(dir, { recursive: true })
  }
})

test('no seed that ever failed fails again', () => {
  const failed = keptSeeds().flatMap(kept => {
    const { violation } = run({ seed: kept.seed })
    return violation === null ? [] : [`${again(kept.seed)}: ${violation.checker}: ${violation.message}`]
  })
  assert.deepEqual(failed, [])
})

/** Other seeds for each commit, the same ones for everybody who has it: a failure can be looked at where it was not seen. */
function freshSeed(): number {
  const commit = Number.parseInt(commitOfTree(), 16)
  return Number.isNaN(commit) ? Math.floor(Date.now() / 1000) : commit
}

test(`${coverageRuns} fresh seeds hold every checker, and all that matters happens in them`, async t => {
  const first = freshSeed()
  const began = performance.now()
  const totals = await runBatch({ first, runs: coverageRuns, jobs: availableParallelism() })
  const seconds = (performance.now() - began) / 1000
  const hours = totals.simulatedMs / 3_600_000
  t.diagnostic(
    `seeds ${first} to ${first + coverageRuns - 1}: ${totals.steps} steps, ${hours.toFixed(1)} pair-hours, ${((hours / seconds) * 60).toFixed(1)} a minute`,
  )
  assert.deepEqual(
    totals.found.map(one => `${again(one.seed)}: ${one.checker}: ${one.message}`),
    [],
  )
  assert.deepEqual(missingIn(totals.counts), [], 'what never happened proves nothing')
})
