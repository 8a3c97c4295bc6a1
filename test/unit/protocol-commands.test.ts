import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ballotOf } from '../../shared/protocol/ballot.ts'
import type { HostState } from '../../shared/protocol/state.ts'
import { step } from '../../shared/protocol/step.ts'
import type { DataNode, EventBody, OperatorCommand } from '../../shared/protocol/types.ts'
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

test('a force goes past a gen that this host has only promised in: the other host was forced too, and is gone again', () => {
  const ballot = ballotOf({ gen: 2, n: 9, node: 'a' })
  const message = { kind: 'prepare', req: 1, inc: 'b1', ballot } as const
  const promised = take(world.hosts.b.core, { event: 'message', from: 'a', message }).state
  assert.equal(promised.durable.promised, ballot)
  const command = { command: 'force', gen: 1, epoch: 1, withWitness: false } as const
  const { state } = take(promised, { event: 'operator', command })
  assert.equal(state.durable.known?.value.gen, 4)
  assert.ok(state.durable.promised > ballot)
})
