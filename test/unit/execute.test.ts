import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Executor } from '../../node-agent/execute.ts'
import { newDurable } from '../../shared/protocol/durable.ts'
import { nothingSeen } from '../../shared/protocol/state.ts'
import type { Effect, EventBody, Message } from '../../shared/protocol/types.ts'
import { fakePorts } from './fake-ports.ts'

function setUp() {
  const fakes = fakePorts()
  const events: EventBody[] = []
  const exits: string[] = []
  const executor = new Executor({
    ports: fakes.ports,
    post: event => {
      events.push(event)
      if (event.event === 'persisted') fakes.log.push(`persisted ${event.seq}`)
    },
    context: () => ({ role: 'primary', epoch: 1, why: '' }),
    peerClients: () => [{ client: '10.0.0.9', clientPort: 4000, local: '10.0.0.100', localPort: 5432 }],
    answer: answer => fakes.log.push(`answer ${answer.command} ${answer.ok}`),
    note: why => fakes.log.push(why),
    exit: why => exits.push(why),
  })
  return { ...fakes, executor, events, exits }
}

const persist = (seq: number): Effect => ({ do: 'persist', seq, durable: { ...newDurable('i'), promised: seq } })
const send = (message: Message): Effect => ({ do: 'send', to: 'b', message })
const prepare: Message = { kind: 'prepare', req: 1, inc: 'b1', ballot: 5 }
const promise: Message = { kind: 'promise', req: 1, inc: 'a1', ballot: 5, acc: null }
const read: Message = { kind: 'read', req: 2, inc: 'b1' }
const learn: Message = {
  kind: 'learn',
  ballot: 5,
  value: { gen: 1, version: 1, epoch: 1, primary: 'a', successor: false, voters: {} },
}

test('nothing queued behind a durable write starts before the write is done', async () => {
  const { executor, log, wrote } = setUp()
  executor.run([persist(1), send(promise), { do: 'gate', seq: 1, set: 'open', until: 9 }, persist(2), send(prepare)])
  assert.deepEqual(log, ['write 1'])
  await wrote()
  assert.deepEqual(log, ['write 1', 'persisted 1', 'send promise', 'gate open until 9', 'write 2'])
  await wrote()
  assert.deepEqual(log.slice(5), ['persisted 2', 'send prepare'])
})

test('the effects of a later step wait behind the durable write of an earlier one', async () => {
  const { executor, log, wrote } = setUp()
  executor.run([persist(1)])
  executor.run([send(promise)])
  assert.deepEqual(log, ['write 1'])
  await wrote()
  assert.deepEqual(log, ['write 1', 'persisted 1', 'send promise'])
})

test('a hanging disk never delays reads, shutting the gate and killing the database', () => {
  const { executor, log } = setUp()
  executor.run([persist(1), send(prepare), send(read), send(learn), { do: 'gate', seq: 1, set: 'frozen' }])
  executor.run([
    { do: 'database', id: 1, op: { op: 'kill' } },
    { do: 'gate', seq: 2, set: 'closed' },
  ])
  assert.deepEqual(log, ['write 1', 'send read', 'gate frozen', 'database kill', 'gate closed'])
  assert.equal(executor.queued, 2)
})

test('an opening that waited for the disk is dropped when the gate was shut meanwhile', async () => {
  const { executor, log, wrote } = setUp()
  executor.run([persist(1), { do: 'gate', seq: 1, set: 'open', until: 9 }])
  executor.run([{ do: 'gate', seq: 2, set: 'frozen' }])
  await wrote()
  assert.deepEqual(log, ['write 1', 'gate frozen', 'persisted 1'])
})

test('a database operation that a kill overtook does not start afterwards', async () => {
  const { executor, log, wrote } = setUp()
  executor.run([persist(1), { do: 'database', id: 1, op: { op: 'startPrimary', epoch: 1, syncNames: 'empty' } }])
  executor.run([{ do: 'database', id: 2, op: { op: 'kill' } }])
  await wrote()
  assert.deepEqual(log, ['write 1', 'database kill', 'persisted 1'])
})

test('each gate effect is answered with what the kernel says', () => {
  const { executor, events } = setUp()
  executor.run([
    { do: 'gate', seq: 1, set: 'open', until: 77 },
    { do: 'gate', seq: 2, set: 'closed' },
  ])
  assert.deepEqual(events, [
    { event: 'gate', seq: 1, report: { state: 'open', expiresUntil: 77 } },
    { event: 'gate', seq: 2, report: { state: 'closed', expiresUntil: 0 } },
  ])
})

test('a failed durable write ends the process and nothing that waited is sent', async () => {
  const { executor, log, wrote, exits } = setUp()
  executor.run([persist(1), send(promise)])
  await wrote(new Error('EIO'))
  assert.deepEqual(exits, ['the durable state could not be written: EIO'])
  executor.run([send(read), { do: 'gate', seq: 3, set: 'open', until: 9 }])
  assert.deepEqual(log, ['write 1'])
})

test('clients of the other host are reset after a promotion, and never after a mere thaw', async () => {
  const { executor, log, events, databaseDone } = setUp()
  executor.run([{ do: 'announce' }])
  executor.run([{ do: 'database', id: 7, op: { op: 'promote', epoch: 2, syncNames: 'empty' } }])
  await databaseDone({ ok: true, position: null, view: nothingSeen })
  executor.run([{ do: 'gate', seq: 1, set: 'open', until: 9 }, { do: 'vip', set: 'up' }, { do: 'announce' }])
  executor.run([{ do: 'announce' }])
  const expected = [
    'vip up',
    'announce',
    'database promote',
    'gate open until 9',
    'vip up',
    'vip up',
    'announce',
    'tickle 10.0.0.9',
    'vip up',
    'announce',
  ]
  const done = log.filter(line => !/^database: promote took \d+ ms$/.test(line))
  assert.equal(log.length - done.length, 1, 'how long it took is said once')
  assert.deepEqual(done, expected)
  assert.deepEqual(events[0], { event: 'databaseDone', id: 7, result: { ok: true, position: null, view: nothingSeen } })
})
