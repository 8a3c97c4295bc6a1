import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ballotOf } from '../../shared/protocol/ballot.ts'
import { isSealed } from '../../shared/protocol/facts.ts'
import type { HostState } from '../../shared/protocol/state.ts'
import { step } from '../../shared/protocol/step.ts'
import type { DataNode, EventBody, OperatorCommand, Voters } from '../../shared/protocol/types.ts'
import { calmUntil, isProtected, setUp } from '../search/starts.ts'

/** What an operator may ask of one host, on the cores of a protected pair. */

const world = calmUntil(setUp(), isProtected)
const take = (s: HostState, body: EventBody) => step(s, { now: world.now, random: 0, ...body })

function answerTo(node: DataNode, command: OperatorCommand): { ok: boolean; why: string; after: HostState } {
  const { state, effects } = take(world.hosts[node].core, { event: 'operator', command })
  const answer = effects.find(effect => effect.do === 'answer')
  assert.ok(answer?.do === 'answer', 'every command is answered')
  return { ok: answer.ok, why: answer.why, after: state }
}

const refused: readonly [string, DataNode, OperatorCommand, RegExp][] = [
  ['to begin a pair a second time', 'a', { command: 'init' }, /belongs to a pair already/],
  ['a switchover meant for another epoch', 'a', { command: 'switchover', epoch: 7 }, /meant for epoch 7/],
  [
    'a force meant for another epoch',
    'b',
    { command: 'force', gen: 1, epoch: 7, withWitness: true },
    /meant for gen 1, epoch 7/,
  ],
  [
    'a force meant for another gen',
    'b',
    { command: 'force', gen: 7, epoch: 1, withWitness: true },
    /meant for gen 7, epoch 1/,
  ],
  ['to give data up for another gen', 'b', { command: 'giveUp', gen: 2 }, /meant for gen 2/],
  ['to give up the data of the primary', 'a', { command: 'giveUp', gen: 1 }, /its data is the data/],
]

for (const [what, node, command, says] of refused) {
  test(`refused, and nothing of the register changes: ${what}`, () => {
    const { ok, why, after } = answerTo(node, command)
    assert.equal(ok, false)
    assert.match(why, says)
    assert.equal(after.durable, world.hosts[node].core.durable)
  })
}

test('a forced takeover begins a gen of its own, with the named members alone', () => {
  const { ok, after } = answerTo('b', { command: 'force', gen: 1, epoch: 1, withWitness: true })
  assert.equal(ok, true)
  assert.deepEqual(after.durable.known?.value, {
    gen: 2,
    version: 5,
    epoch: 2,
    primary: 'b',
    successor: false,
    voters: { b: 'b1', w: 'w1' },
  })
})

test('a host that is about to become a standby, perhaps by a copy, is not forced until that has ended', () => {
  const { core } = world.hosts.b
  const op = { op: 'rejoin', gen: 1, epoch: 1, timeline: 1, clone: 'ifNeeded' } as const
  const joining = { ...core, database: { ...core.database, op: { id: 9, op, startedAt: world.now } } }
  const force = { command: 'force', gen: 1, epoch: 1, withWitness: true } as const
  const early = take(joining, { event: 'operator', command: force })
  const answer = early.effects.find(effect => effect.do === 'answer')
  assert.ok(answer?.do === 'answer' && !answer.ok)
  assert.match(answer.why, /no whole database, as far as is known/)
  assert.equal(early.state.durable, core.durable)
  const { state } = take(joining, {
    event: 'databaseDone',
    id: 9,
    result: { ok: false, why: 'there is no primary to follow', view: core.database.view },
  })
  assert.equal(take(state, { event: 'operator', command: force }).state.durable.known?.value.primary, 'b')
})

test('a forced host does not wait for what it had put off as a backup, such as the next try to follow the other one', () => {
  const { core } = world.hosts.b
  const waiting = { ...core, database: { ...core.database, retryAt: world.now + 30_000, failures: 6 } }
  const { effects } = take(waiting, {
    event: 'operator',
    command: { command: 'force', gen: 1, epoch: 1, withWitness: true },
  })
  const asked = effects.find(effect => effect.do === 'database')
  assert.equal(asked?.do === 'database' ? asked.op.op : 'nothing', 'promote')
})

/** The other host was forced and is gone again: this one has only promised in its gen, or seen W answer in it. */
const ballotOfGen2 = ballotOf({ gen: 2, n: 9, node: 'a' })
const elsewhere: readonly [string, HostState][] = [
  [
    'it has promised in',
    take(world.hosts.b.core, {
      event: 'message',
      from: 'a',
      message: { kind: 'prepare', req: 1, inc: 'b1', ballot: ballotOfGen2 },
    }).state,
  ],
  [
    'the witness has answered in',
    take(world.hosts.b.core, {
      event: 'message',
      from: 'w',
      message: {
        kind: 'state',
        req: 1,
        inc: 'w1',
        promised: ballotOfGen2,
        acc: {
          ballot: ballotOfGen2,
          value: { gen: 2, version: 9, epoch: 9, primary: 'a', successor: false, voters: { a: 'a1', w: 'w1' } },
        },
      },
    }).state,
  ],
]

for (const [how, host] of elsewhere) {
  test(`a gen of the other host that ${how}, and of which nothing else is known, is forced over only by name`, () => {
    const force = (gen: number) =>
      take(host, { event: 'operator', command: { command: 'force', gen, epoch: 1, withWitness: false } })
    const unaware = force(1)
    const answer = unaware.effects.find(effect => effect.do === 'answer')
    assert.ok(answer?.do === 'answer' && !answer.ok)
    assert.match(answer.why, /gen 2 was forced on a, and this host, at gen 1, has heard nothing/)
    assert.equal(unaware.state.durable, host.durable)
    const { state } = force(2)
    assert.equal(state.durable.known?.value.gen, 4)
    assert.ok(state.durable.promised > ballotOfGen2)
  })
}

/** A forced takeover by b of a value with these members: whether a may come back at once. */
const overruled: readonly [string, Voters, boolean][] = [
  ['both hosts and the witness', { a: 'a1', b: 'b1', w: 'w1' }, false],
  ['both hosts', { a: 'a1', b: 'b1' }, true],
  ['the other host and the witness', { a: 'a1', w: 'w1' }, false],
  ['the other host alone', { a: 'a1' }, false],
  ['this host alone', { b: 'b1' }, true],
]
/** A forced takeover by b of this known value, where b has accepted that one since. */
function forceOver(known: Voters, accepted: Voters) {
  const { core } = world.hosts.b
  const before = core.durable.known
  assert.ok(before !== null)
  const entry = (voters: Voters) => ({ ...before, value: { ...before.value, voters } })
  const host = { ...core, durable: { ...core.durable, known: entry(known), acc: entry(accepted) } }
  return take(host, { event: 'operator', command: { command: 'force', gen: 1, epoch: 1, withWitness: true } })
}
for (const [whose, voters, sealed] of overruled) {
  test(`a force over a value of ${whose} is ${sealed ? '' : 'not '}sealed as it is made`, () => {
    const { state, effects } = forceOver(voters, voters)
    assert.equal(isSealed(state), sealed)
    const answer = effects.find(effect => effect.do === 'answer')
    const says = sealed ? /may come back/ : voters.b === undefined ? /a new store before/ : /until this is sealed/
    assert.match(answer?.do === 'answer' ? answer.why : '', says)
  })
}

test('a force is not sealed while a value that this host has only accepted leaves the others a majority', () => {
  const known = { a: 'a1', b: 'b1' }
  assert.equal(isSealed(forceOver(known, known).state), true)
  const { state } = forceOver(known, { ...known, w: 'w1' })
  assert.equal(isSealed(state), false)
  assert.deepEqual(state.durable.overruled?.voters, { ...known, w: 'w1' })
})

test('a force that is repeated before the first one is sealed is not sealed either: the first value may still have a majority', () => {
  const all = { a: 'a1', b: 'b1', w: 'w1' }
  const first = forceOver(all, all).state
  const second = take(first, {
    event: 'operator',
    command: { command: 'force', gen: 2, epoch: 2, withWitness: true },
  }).state
  const { gen } = second.durable.known?.value ?? { gen: 0 }
  assert.ok(gen > (first.durable.known?.value.gen ?? 0))
  assert.deepEqual(second.durable.overruled, { gen, voters: all })
})

test('each of two switchovers that are asked for at once is answered for itself', () => {
  const asked = (s: HostState, ask: number) =>
    take(s, { event: 'operator', command: { command: 'switchover', epoch: 1 }, ask })
  const answersOf = ({ effects }: ReturnType<typeof take>): unknown[] =>
    effects.flatMap(effect => (effect.do === 'answer' ? [[effect.command, effect.ask, effect.ok]] : []))
  const first = asked(world.hosts.a.core, 1)
  assert.deepEqual(answersOf(first), [], 'it is answered when it is over')
  const second = asked(first.state, 2)
  assert.deepEqual(answersOf(second), [['switchover', 2, false]])
  const off = take(second.state, { event: 'operator', command: { command: 'cancelSwitchover' }, ask: 3 })
  assert.deepEqual(answersOf(off), [
    ['switchover', 1, false],
    ['cancelSwitchover', 3, true],
  ])
})

test('a wish to switch over is not repeated by a backup that missed what became of it', () => {
  const wishAfter = (beats: number, nonce: (before: number) => number): string => {
    const { core } = world.hosts.b
    const beat = core.backup.heartbeat
    assert.ok(beat !== null, 'the backup of a protected pair hears heartbeats')
    const told = take(core, { event: 'operator', command: { command: 'switchover', epoch: 1 } }).state
    const message = { ...beat, seq: beat.seq + beats, nonce: nonce(beat.nonce) }
    for (const effect of take(told, { event: 'message', from: 'a', message }).effects)
      if (effect.do === 'send' && effect.message.kind === 'ack') return effect.message.asks
    return 'no answer'
  }
  const same = (nonce: number): number => nonce
  assert.equal(wishAfter(1, same), 'switchover')
  // It stood still with its clock: half a second of the primary's heartbeats have passed, and nothing here says so.
  assert.equal(wishAfter(60, same), 'nothing')
  assert.equal(
    wishAfter(1, nonce => nonce + 1),
    'nothing',
    'the primary was started again',
  )
})
