import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Action, after, choicesOf } from '../search/actions.ts'
import { serves, type World } from '../search/pair.ts'
import { begun, command, isProtected, protectedPair, withBudget } from '../search/starts.ts'

/**
 * What both cores decide and ask for in the plain courses of events, as text that is reviewed as a difference. Written
 * anew by `UPDATE_TRANSCRIPTS=1 npm test -- test/scenarios/transcripts.test.ts`. Heartbeats, their answers, times and
 * counters are left out.
 */
interface Transcript {
  name: string
  from: () => World
  /** Done first. */
  actions: readonly Action[]
  until: (world: World) => boolean
}

const budget = { reboots: 1, databaseDeaths: 1, crashes: 1 }
const calm = (): World => withBudget(protectedPair(), budget)
const isWholeAgain = (primary: 'a' | 'b') => (world: World) =>
  world.truth.latest?.value.primary === primary && world.truth.latest.value.successor && serves(world, primary)

const transcripts: readonly Transcript[] = [
  { name: 'set-up', from: begun, actions: [], until: isProtected },
  {
    name: 'the backup loses power',
    from: calm,
    actions: [
      { does: 'reboot', node: 'b' },
      { does: 'rest', node: 'b' },
    ],
    until: ({ hosts }) => hosts.a.core.durable.known?.value.successor === false && hosts.a.database.names === 'empty',
  },
  {
    name: 'the primary loses power',
    from: calm,
    actions: [
      { does: 'reboot', node: 'a' },
      { does: 'rest', node: 'a' },
    ],
    until: world => serves(world, 'b') && world.hosts.b.gate.state === 'open',
  },
  {
    name: 'a switchover, and the old primary follows',
    from: () => command(protectedPair(), 'a', { command: 'switchover', epoch: 1 }),
    actions: [],
    until: isWholeAgain('b'),
  },
  {
    name: 'the database of the primary dies',
    from: calm,
    actions: [{ does: 'lose database', node: 'a' }],
    until: isWholeAgain('b'),
  },
]

const stepsMax = 400
const omitted = /heartbeat|\back \d|\bview \w|\+100 ms|> look|persisted|> announce/

function transcribe({ from, actions, until }: Transcript): string {
  const log: string[] = []
  let world = from()
  for (const action of actions) world = after(world, action, { crashAt: -1, log }).world
  for (let i = 0; i < stepsMax && !until(world); i++)
    world = after(world, choicesOf(world)[0]!.action, { crashAt: -1, log }).world
  assert.ok(until(world), `not there after ${stepsMax} steps`)
  const lines = log
    .filter(line => !omitted.test(line))
    .map(line => line.replace(/ \[\d+\.\d\]/, '').replace(/([<>] (?:persist|gate|database)) \d+/, '$1'))
  // A step of which nothing is told leaves no heading either.
  const told = lines.filter((line, i) => line.startsWith('  ') || lines[i + 1]?.startsWith('  '))
  return `${told.join('\n')}\n`
}

const folder = join(import.meta.dirname, 'transcripts')

for (const transcript of transcripts) {
  test(`transcript: ${transcript.name}`, () => {
    const file = join(folder, `${transcript.name.replaceAll(/[^a-z]+/g, '-')}.txt`)
    const text = transcribe(transcript)
    if (process.env.UPDATE_TRANSCRIPTS === '1') {
      mkdirSync(folder, { recursive: true })
      writeFileSync(file, text)
    }
    assert.equal(text, readFileSync(file, 'utf8'))
  })
}
