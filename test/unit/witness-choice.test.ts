import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Taken, WitnessChoice, type Witnesses, wantedAtStart } from '../../node-agent/witness/choice.ts'
import { type HostState, newHost } from '../../shared/protocol/state.ts'
import { timingOf } from '../../shared/protocol/timing.ts'
import type { EventBody, Value } from '../../shared/protocol/types.ts'

const witnesses: Witnesses = { first: 'w-1', alternate: 'w-2', former: 'w-0', awayMs: 60_000 }
const minute = 60_000

/** Host a as the register has it, and as it sees its witness. */
function hostWith(part: {
  voter?: string
  wanted?: string
  primary?: 'a' | 'b'
  successor?: boolean
  unansweredAt?: number
  otherReaches?: 'yes' | 'no'
}): HostState {
  const {
    voter = 'w-1',
    wanted = 'w-1',
    primary = 'a',
    successor = false,
    unansweredAt = 0,
    otherReaches = 'no',
  } = part
  const host = newHost({ node: 'a', timing: timingOf('default') })
  const value: Value = { gen: 1, version: 9, epoch: 1, primary, successor, voters: { a: 'i-a', b: 'i-b', w: voter } }
  const chosen = { ballot: 50, value }
  return {
    ...host,
    durable: { ...host.durable, inc: 'i-a', known: chosen, acc: chosen },
    witness: { ...host.witness, wanted, unansweredAt },
    lease: { ...host.lease, ack: { witness: otherReaches } as HostState['lease']['ack'] },
  }
}

function choosing(answeredAgoMs: number | null = 1000) {
  const [posted, retired]: [EventBody[], string[]] = [[], []]
  const port = {
    answeredAgoMs: () => answeredAgoMs,
    retire: async (inc: string) => {
      retired.push(inc)
      return true
    },
  }
  const taken: Taken[] = []
  const choice = new WitnessChoice({
    witnesses,
    port,
    post: event => posted.push(event),
    note: () => {},
    remember: one => taken.push(one),
  })
  return { choice, posted, retired, taken }
}

test('the alternate is wanted once the first was away for both hosts for as long as is configured, and answers itself', () => {
  const away = { unansweredAt: minute }
  const { choice, posted } = choosing()
  choice.tick(hostWith(away), 2 * minute - 1)
  assert.deepEqual(posted, [])
  choice.tick(hostWith(away), 2 * minute)
  assert.deepEqual(posted, [{ event: 'witness', inc: 'w-2' }])
})

const stays: [string, Parameters<typeof hostWith>[0], number | null][] = [
  ['it answers', {}, 1000],
  ['the other host reaches it', { unansweredAt: minute, otherReaches: 'yes' }, 1000],
  ['this host is the backup', { unansweredAt: minute, primary: 'b' }, 1000],
  ['the alternate has not answered lately', { unansweredAt: minute }, minute],
  ['the alternate never answered', { unansweredAt: minute }, null],
  ['it is not in the register yet', { unansweredAt: minute, voter: 'w-0' }, 1000],
]
for (const [name, part, answeredAgoMs] of stays) {
  test(`the first witness stays where ${name}`, () => {
    const { choice, posted } = choosing(answeredAgoMs)
    choice.tick(hostWith(part), 100 * minute)
    assert.deepEqual(posted, [])
  })
}

test('a backup wants the alternate that the primary brought in, so that it does not undo it once it is primary', () => {
  const { choice, posted, taken } = choosing()
  choice.tick(hostWith({ primary: 'b', voter: 'w-2' }), minute)
  assert.deepEqual(posted, [{ event: 'witness', inc: 'w-2' }])
  assert.deepEqual(taken, [{ v: 1, first: 'w-1', alternate: 'w-2' }])
  // And back, where a change of the other host has brought the first one in.
  choice.tick(hostWith({ primary: 'b', voter: 'w-1', wanted: 'w-2' }), minute)
  assert.deepEqual(posted.at(-1), { event: 'witness', inc: 'w-1' })
})

test('at a start an alternate stays that took the place of this first one; one that a change has made the alternate goes', () => {
  const taken = { v: 1, first: 'w-1', alternate: 'w-2' } as const
  assert.equal(wantedAtStart(witnesses, { voter: 'w-2', taken }), 'w-2')
  assert.equal(wantedAtStart(witnesses, { voter: 'w-2', taken: null }), 'w-1')
  assert.equal(wantedAtStart(witnesses, { voter: 'w-2', taken: { ...taken, first: 'w-0' } }), 'w-1')
  assert.equal(wantedAtStart(witnesses, { voter: 'w-0', taken }), 'w-1')
  assert.equal(wantedAtStart(null, { voter: 'w-2', taken }), null)
})

test('who was replaced is ended when the pair has been well without it for ten minutes, and not before', async () => {
  const { choice, retired } = choosing()
  const after = (part: Parameters<typeof hostWith>[0], now: number): Promise<void> => {
    choice.tick(hostWith(part), now)
    return new Promise(resolve => setImmediate(resolve))
  }
  const there = { voter: 'w-2', wanted: 'w-2', successor: true }
  await after(there, minute)
  await after({ ...there, successor: false }, 5 * minute)
  await after(there, 6 * minute)
  await after(there, 14 * minute)
  assert.deepEqual(retired, [])
  await after(there, 16 * minute)
  assert.deepEqual(retired, ['w-1', 'w-0'])
  await after(there, 20 * minute)
  assert.deepEqual(retired, ['w-1', 'w-0'])
})
