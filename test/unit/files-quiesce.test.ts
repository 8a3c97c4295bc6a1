import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { Agent } from '../../node-agent/agent.ts'
import { quiesce } from '../../node-agent/files/quiesce.ts'
import { treeSchema } from '../../node-agent/files/settings.ts'
import { newDurable } from '../../shared/protocol/durable.ts'
import { newHost } from '../../shared/protocol/state.ts'
import { timingOf } from '../../shared/protocol/timing.ts'

/** What of an agent a quiesce asks for: a primary, its trees, and a worker that answers for them. */
function primaryWith(part: {
  trees: Record<string, 'async' | 'required'>
  services: number
  answer: (tree: string) => string | Promise<string>
}): { agent: Agent; did: string[] } {
  const did: string[] = []
  const state = newHost({ node: 'a', timing: timingOf('default') })
  const voters = { a: 'inc-a', b: 'inc-b', w: 'inc-w' }
  const value = { gen: 1, version: 3, epoch: 1, primary: 'a', successor: true, voters } as const
  const accepted = { ballot: 3, value }
  state.durable = { ...newDurable('inc-a'), acc: accepted, known: accepted }
  const trees = Object.entries(part.trees).map(([name, policy]) =>
    treeSchema.parse({ name, path: `/srv/${name}`, policy, lagLimitS: 60 }),
  )
  const agent = {
    state,
    config: { sync: { port: 7401, trees }, services: Array.from({ length: part.services }) },
    workers: {
      // What it told last is fine.
      state: () => [
        {
          name: 'files',
          report: { trees: trees.map(({ name }) => ({ tree: name, role: 'primary', state: 'in sync' })) },
        },
      ],
      ask: async (_worker: string, { body }: { body: { tree: string } }) => {
        const why = await part.answer(body.tree)
        return why === '' ? { ok: true, body: {} } : { ok: false, why }
      },
    },
    note: (why: string) => did.push(why),
    pauseServices: async () => void did.push('paused'),
    resumeServices: () => void did.push('resumed'),
  }
  return { agent: agent as unknown as Agent, did }
}

test('a switchover is refused while a required tree is not brought over, whatever was told of it before and however small its lag', async () => {
  const trees = { data: 'required', logs: 'async' } as const
  const hangs = primaryWith({ trees, services: 1, answer: tree => (tree === 'data' ? 'did not answer' : '') })
  await assert.rejects(quiesce(hangs.agent), /^Error: the files of data are required on the backup: did not answer$/)
  assert.deepEqual(hangs.did, [], 'its services were not even stopped')
  let asked = 0
  const atTheEnd = primaryWith({
    trees: { data: 'required' },
    services: 1,
    answer: () => {
      asked += 1
      return asked > 1 ? 'late' : ''
    },
  })
  await assert.rejects(quiesce(atTheEnd.agent), /required on the backup: late/)
  assert.deepEqual(atTheEnd.did, ['paused', 'resumed'])
})

test('a switchover goes on without a tree that is not required, and says that it is behind', async () => {
  const trees = { data: 'required', logs: 'async' } as const
  const { agent, did } = primaryWith({ trees, services: 1, answer: tree => (tree === 'logs' ? 'logs is behind' : '') })
  assert.equal((await quiesce(agent)).behind, 'logs is behind')
  assert.deepEqual(did, ['paused', 'switchover with files behind: logs is behind'])
})

test('services that a second attempt has stopped are not started by the first one, before what they wrote is brought over', async t => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  let answer = (): string | Promise<string> => ''
  const { agent, did } = primaryWith({ trees: { data: 'required' }, services: 1, answer: () => answer() })
  const first = await quiesce(agent)
  t.mock.timers.tick(14_000)
  const drained = Promise.withResolvers<string>()
  let asked = 0
  answer = () => {
    asked += 1
    return asked > 1 ? drained.promise : ''
  }
  const second = quiesce(agent)
  while (asked < 2) await turn()
  t.mock.timers.tick(2000)
  first.resume()
  assert.deepEqual(did, ['paused', 'paused'])
  drained.resolve('')
  await second
  t.mock.timers.tick(12_000)
  assert.deepEqual(did, ['paused', 'paused'])
  t.mock.timers.tick(2000)
  assert.deepEqual(did, ['paused', 'paused', 'resumed'])
})
