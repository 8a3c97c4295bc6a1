import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { after, choicesOf } from './actions.ts'
import { explore } from './explore.ts'
import { keyOf } from './key.ts'
import type { World } from './pair.ts'
import { isProtected, startOf, starts } from './starts.ts'

/** From each of the starts: the same states on every machine, a minute on two cores. */
const statesShort = 40_000
const limitMs = 600_000

const search = join(import.meta.dirname, 'main.ts')
const preload = pathToFileURL(join(import.meta.dirname, '../mutants/load.ts')).href

function searched(args: readonly string[], mutant: string): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', '--import', preload, search, ...args],
      {
        env: { ...process.env, UNDERSTUDY_MUTANT: mutant },
        stdio: ['ignore', 'pipe', 'inherit'],
        timeout: limitMs,
      },
    )
    let output = ''
    child.stdout.on('data', chunk => {
      output += chunk
    })
    child.on('error', reject)
    child.on('close', code => resolve({ code, output }))
  })
}

test('around every prepared situation each invariant holds, whatever happens up to the bound', async () => {
  const { code, output } = await searched(['--states', `${statesShort}`], '')
  console.log(output)
  assert.equal(code, 0)
})

test('a grow whose outcome is in doubt is the lease of a successor: without that rule (F13) the search finds two who may serve', async () => {
  const { code, output } = await searched(['--start', 'before-grow'], 'f13-grow-in-doubt-forgotten')
  assert.equal(code, 1)
  assert.match(output, /^I7 does not hold, \d+ actions from "before-grow"/m)
  // The counterexample tells the course of events.
  assert.match(output, /the agent dies/)
  assert.match(output, /committed grow|began a round to shrink \(doubt\)/)
})

/** What happens in a calm world, until it looks as it did before. */
function calmCircle(from: World): number {
  const seen = new Set<string>()
  let world = from
  for (;;) {
    const { high, low } = keyOf(world)
    if (seen.has(`${high}.${low}`)) return seen.size
    seen.add(`${high}.${low}`)
    world = after(world, choicesOf(world)[0]!.action, { crashAt: -1, log: null }).world
  }
}

test('a healthy pair in a calm world goes in a circle: states that differ by time and counters alone are one', () => {
  for (const start of starts) {
    const world = start.world()
    if (isProtected(world)) assert.ok(calmCircle(world) < 100, start.name)
  }
})

test('a search ends when its time is over', () => {
  const { world } = startOf('protected')
  const { wallMs } = explore(world(), { wallMs: 50, states: Number.MAX_SAFE_INTEGER })
  assert.ok(wallMs < 20_000)
})

test('the search counts states and transitions, and tells how deep it went', () => {
  const [start] = starts
  assert.ok(start)
  const report = explore(start.world(), { wallMs: limitMs, states: 2000 })
  assert.equal(report.found, null)
  assert.ok(report.states >= 2000 && report.transitions >= report.states && report.depth > 10)
})
