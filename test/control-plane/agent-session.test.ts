import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, test } from 'node:test'
import postgres from 'postgres'
import { Cloud } from '../../node-agent/control/cloud.ts'
import type { LocalPolicy } from '../../node-agent/control/commands.ts'
import { coreOverSocket } from '../../node-agent/control/core-over-socket.ts'
import { HostKeys } from '../../node-agent/control/host-keys.ts'
import { readIdentity, writeIdentity } from '../../node-agent/control/identity.ts'
import { ControlMemory, journalOf } from '../../node-agent/control/memory.ts'
import { ControlSession, type HostPort } from '../../node-agent/control/session.ts'
import { VerbError } from '../../node-agent/socket/messages.ts'
import { SocketServer } from '../../node-agent/socket/server.ts'
import { changeHostKeys, getHost } from '../../shared/contract/api/hosts.ts'
import { getOperation } from '../../shared/contract/api/operations.ts'
import { changeSettings, getPair, switchOver } from '../../shared/contract/api/pairs.ts'
import { until } from '../fixtures/until.ts'
import { temporaryFolder } from './support/folder.ts'
import { pairReport, type TestHost } from './support/host.ts'
import { adoptedPair } from './support/pair.ts'
import { nodeRuntime, type Runtime } from './support/runtime.ts'

let runtime: Runtime
before(async () => {
  runtime = await nodeRuntime()
})
after(async () => {
  await runtime?.close()
})

/** Of the sessions of this test, to be closed after it: each holds its folder open. */
const memories = new Set<ControlMemory>()
afterEach(async () => {
  for (const memory of memories) await memory.close()
  memories.clear()
})

async function sessionOf(
  host: TestHost,
  part: { core?: Partial<HostPort>; policy?: LocalPolicy; path?: string; fetch?: typeof fetch } = {},
) {
  const notes: string[] = []
  const path = part.path ?? join(temporaryFolder(), 'control.json')
  const memory = await ControlMemory.open(path)
  memories.add(memory)
  const core: HostPort = {
    present: async () => ({ gen: 1, epoch: 1, node: 'a' }),
    state: async () => ({
      pair: pairReport({ role: 'primary', primary: 'a' }),
      agent: { version: '0.1.0', startedAt: new Date().toISOString() },
    }),
    run: async () => ({ phase: 'done', message: 'it is done' }),
    apply: async () => ({ ok: true }),
    ...part.core,
  }
  // Reports of the test before this session were of boot 1.
  await memory.change({ boot: memory.present.boot + 10 })
  const cloud = new Cloud(host.identity, { fetch: part.fetch })
  const session = new ControlSession({
    identity: host.identity,
    cloud,
    memory,
    host: core,
    policy: part.policy ?? { refuse: [] },
    nowMs: Date.now,
    note: why => notes.push(why),
  })
  return { session, memory, notes, path, cloud }
}

test('a host takes its wish, applies it, and its reports show the generation; what it could not apply is shown with why', async () => {
  const { client, id, a } = await adoptedPair(runtime)
  let refuse = false
  const apply: HostPort['apply'] = async wish =>
    refuse ? { ok: false, why: `no such interface for ${wish.pair?.name}` } : { ok: true }
  const { session } = await sessionOf(a, { core: { apply } })
  await session.cycle()
  const shown = async () => (await client.call(getHost, { params: { host: a.identity.host } })).body
  const applied = async () => (await shown()).conditions.find(one => one.type === 'Applied')
  assert.deepEqual([(await shown()).observedGeneration, (await applied())?.status], [1, 'True'])
  refuse = true
  const { etag } = await client.call(getPair, { params: { pair: id } })
  await client.call(changeSettings, { params: { pair: id }, body: { profile: 'fast' }, ifMatch: etag! })
  await session.cycle()
  const failed = await applied()
  assert.deepEqual([failed?.status, failed?.message], ['False', 'generation 2: no such interface for orders'])
  assert.equal((await shown()).observedGeneration, 1)
})

test('a command runs once, however often and on however many ways it comes, also after the agent was started again', async () => {
  const { client, id, a } = await adoptedPair(runtime)
  let runs = 0
  const core: Partial<HostPort> = {
    run: async () => {
      runs++
      return { phase: 'done', message: 'handed over' }
    },
  }
  const { session, memory, path, cloud } = await sessionOf(a, { core })
  const begun = await client.call(switchOver, { params: { pair: id }, body: { reason: 'update' } })
  assert.ok('id' in begun.body)
  const pulled = await cloud.pull()
  assert.ok(pulled.ok && pulled.value?.commands.length === 1)
  const documents = pulled.value
  await session.takeTrust(documents.trust)
  await Promise.all([session.takeDocuments(documents), session.takeDocuments(documents)])
  await session.takeDocuments(documents)
  await memory.close()
  memories.delete(memory)
  const again = await sessionOf(a, { core, path })
  await again.session.takeDocuments(documents)
  assert.equal(runs, 1)
  const { body } = await client.call(getOperation, { params: { operation: begun.body.id } })
  assert.equal(body.steps[0]?.state, 'done')
})

test('that a command began is on disk before it runs, and its answer is told while the disk still writes it', async () => {
  const { client, id, a } = await adoptedPair(runtime)
  const begun = await client.call(switchOver, { params: { pair: id }, body: { reason: 'update' } })
  assert.ok('id' in begun.body)
  let onDisk = ''
  const run: HostPort['run'] = async () => {
    onDisk = readFileSync(journalOf(path), 'utf8')
    return { phase: 'done', message: 'handed over' }
  }
  const { session, memory, path, cloud } = await sessionOf(a, { core: { run } })
  const pulled = await cloud.pull()
  assert.ok(pulled.ok && pulled.value !== null)
  await session.takeTrust(pulled.value.trust)
  const disk = Promise.withResolvers<void>()
  const remember = memory.remember.bind(memory)
  let writes = 0
  memory.remember = (command, now) => {
    const written = remember(command, now)
    return ++writes === 1 ? written : written.then(() => disk.promise)
  }
  const taking = session.takeDocuments(pulled.value)
  const operation = begun.body.id
  const step = async () => (await client.call(getOperation, { params: { operation } })).body.steps[0]
  // The answer does not wait for the disk.
  await until(async () => (await step())?.state === 'done')
  assert.ok(onDisk.includes(memory.present.seen[0]?.jti ?? 'none'))
  disk.resolve()
  await taking
})

test('an answer that could not be told is told when the control plane is back', async () => {
  const { client, id, a } = await adoptedPair(runtime)
  const begun = await client.call(switchOver, { params: { pair: id }, body: { reason: 'update' } })
  assert.ok('id' in begun.body)
  const { session, cloud } = await sessionOf(a)
  const pulled = await cloud.pull()
  assert.ok(pulled.ok && pulled.value !== null)
  const { ack } = cloud
  cloud.ack = async () => ({ ok: false, status: null, why: 'away' })
  await session.takeDocuments(pulled.value)
  const { id: operation } = begun.body
  const step = async () => (await client.call(getOperation, { params: { operation } })).body.steps[0]
  assert.equal((await step())?.state, 'sent')
  cloud.ack = ack
  await session.tellAnswers()
  assert.deepEqual([(await step())?.state, (await step())?.message], ['done', 'it is done'])
})

test('an older wish is refused, and a word of freshness for a wish that was kept back does not count', async () => {
  const { client, id, a } = await adoptedPair(runtime)
  const { session, memory, notes, cloud } = await sessionOf(a)
  const old = await cloud.pull()
  assert.ok(old.ok && old.value !== null)
  const { etag } = await client.call(getPair, { params: { pair: id } })
  await client.call(changeSettings, { params: { pair: id }, body: { profile: 'fast' }, ifMatch: etag! })
  const fresh = await cloud.pull()
  assert.ok(fresh.ok && fresh.value !== null)
  await session.takeTrust(old.value.trust)
  await session.takeDesired(old.value.desired!)
  // The broker lets the word through and holds the document back.
  await session.takeFresh(fresh.value.fresh)
  assert.equal(memory.present.freshAt, null)
  await session.takeDocuments(fresh.value)
  assert.notEqual(memory.present.freshAt, null)
  await session.takeDesired(old.value.desired!)
  assert.equal(memory.present.generation, 2)
  assert.match(notes.at(-1) ?? '', /generation 1 is refused: 2 was taken/)
})

test('the local policy refuses a verb, and the operation says so', async () => {
  const { client, id, a } = await adoptedPair(runtime)
  const { session } = await sessionOf(a, { policy: { refuse: ['switchover'] } })
  const begun = await client.call(switchOver, { params: { pair: id }, body: { reason: 'update' } })
  assert.ok('id' in begun.body)
  await session.cycle()
  const { body } = await client.call(getOperation, { params: { operation: begun.body.id } })
  assert.equal(body.state, 'failed')
  assert.match(body.message, /local policy of this host/)
})

test('asked to leave, a backup departs, and a primary goes on alone once the other one is no member any more', async () => {
  const socket = join(temporaryFolder(), 'agent.sock')
  const asked: string[] = []
  let status: Record<string, unknown> = { role: 'backup', node: 'b', peer: { node: 'a', isMember: true } }
  const server = new SocketServer({
    path: socket,
    verbs: {
      status: async () => status,
      depart: async (_args, call) => {
        asked.push('depart')
        call.progress({ id: 1, why: 'decided to go' })
        return { why: 'b is no member of pair orders any more' }
      },
      takeover: async ({ gen, epoch, withWitness }) => {
        asked.push(`takeover ${gen} ${epoch} ${withWitness}`)
        return { why: 'this host serves' }
      },
    },
    failed: () => {},
  })
  await server.listen()
  try {
    const core = coreOverSocket(socket, { version: '0.1.0', startedAt: new Date().toISOString() })
    const id = '01j00000000000000000000000'
    const ids = { organisation: id, audience: id, pair: id, operation: id, jti: id }
    const times = { issuedAt: 0, expiresAt: 0 }
    const command = { v: 1 as const, ...ids, ...times, verb: 'pairLeave' as const, args: {}, only: {}, actor: '' }
    const echoed = (message: string): void => assert.fail(`the core is told back what it said: ${message}`)
    assert.deepEqual(await core.run(command, echoed), {
      phase: 'done',
      message: 'b is no member of pair orders any more',
    })
    status = { role: 'primary', node: 'a', peer: { node: 'b', isMember: true } }
    assert.match((await core.run(command, () => {})).message, /b is a member still and has to leave first/)
    status = { role: 'primary', node: 'a', peer: { node: 'b', isMember: false } }
    assert.equal((await core.run(command, () => {})).phase, 'done')
    assert.deepEqual(asked.splice(0), ['depart'])
    // The other host is gone for good, says the command: heard here, it is not.
    const without = async (peer: Record<string, unknown>, witness: { isMember: boolean } | null, serving = true) => {
      status = {
        role: 'primary',
        node: 'a',
        serving,
        gen: 1,
        epoch: 3,
        peer: { node: 'b', isMember: true, ...peer },
        witness,
      }
      return core.run({ ...command, args: { otherIsLost: true } }, () => {})
    }
    assert.match((await without({ heardAgoMs: 90 }, null)).message, /b was heard here 90 ms ago: it is not gone/)
    assert.match((await without({ heardAgoMs: null }, null, false)).message, /a is primary and does not serve/)
    assert.equal((await without({ heardAgoMs: 60_000 }, { isMember: true })).phase, 'done')
    assert.deepEqual(asked.splice(0), [], 'with the witness it has a majority at its next start as well')
    assert.equal((await without({ heardAgoMs: null }, { isMember: false })).phase, 'done')
    assert.deepEqual(asked.splice(0), ['takeover 1 3 false'])
  } finally {
    server.close()
  }
})

test('over the agent’s socket the epoch of the command reaches the core, whose refusal is the answer', async () => {
  const { a } = await adoptedPair(runtime)
  const socket = join(temporaryFolder(), 'agent.sock')
  const asked: unknown[] = []
  const server = new SocketServer({
    path: socket,
    verbs: {
      switchover: async args => {
        asked.push(args)
        throw new VerbError('refused', 'the register is at epoch 2')
      },
      takeover: async args => {
        asked.push(args)
        return { why: 'this host serves' }
      },
    },
    failed: () => {},
  })
  await server.listen()
  try {
    const core = coreOverSocket(socket, { version: '0.1.0', startedAt: new Date().toISOString() })
    const id = '01j00000000000000000000000'
    const command = {
      v: 1 as const,
      organisation: a.identity.organisation,
      audience: a.identity.host,
      pair: id,
      operation: id,
      jti: id,
      args: {},
      issuedAt: 0,
      expiresAt: 0,
      only: { epoch: 1 },
      actor: '',
    }
    const outcome = await core.run({ ...command, verb: 'switchover' }, () => {})
    assert.deepEqual(outcome, { phase: 'refused', message: 'the register is at epoch 2' })
    assert.deepEqual(asked.splice(0), [{ epoch: 1 }])
    // A gen that was only heard of is named beside the own one, which must be as it was seen.
    const force = { ...command, verb: 'takeover' as const, only: { gen: 1, epoch: 1 } }
    await core.run({ ...force, args: { withWitness: true, overGen: 3 } }, () => {})
    await core.run({ ...force, args: { withWitness: true } }, () => {})
    assert.deepEqual(
      asked.map(one => (one as { gen: number }).gen),
      [3, 1],
    )
    assert.equal((await core.run({ ...command, verb: 'pairLeave' }, () => {})).phase, 'refused')
    assert.equal(await core.present(), null, 'an agent that does not answer is no member of anything')
  } finally {
    server.close()
  }
})

test('a host whose new keys were taken unheard, or that the control plane has forgotten again, goes on with the keys that count', async () => {
  const { client, a } = await adoptedPair(runtime)
  const { identity, cloud } = a
  const path = join(temporaryFolder(), 'identity.json')
  await writeIdentity(path, identity)
  let reached: 'all' | 'only there' | 'nobody' = 'all'
  const half: typeof fetch = async (input, init) => {
    if (reached === 'nobody') throw new Error('no route')
    const answer = await fetch(input, init)
    if (reached === 'only there') {
      reached = 'nobody'
      throw new Error('the answer is lost')
    }
    return answer
  }
  const keys = new HostKeys({ identity, path, cloud: { fetch: half } })
  const before = { key: identity.key, sealingKey: identity.sealingKey }
  const { body } = await client.call(changeHostKeys, { params: { host: identity.host }, body: { reason: 'test' } })
  reached = 'only there'
  const outcome = await keys.change(body.id)
  assert.deepEqual([outcome.phase, identity.key], ['failed', before.key])
  assert.match(outcome.message, /not known \(the answer is lost\)/)
  const refused = await cloud.pull()
  assert.ok(!refused.ok && refused.status === 401)
  assert.equal(await keys.tryAside(), false, 'nobody is reached yet')
  reached = 'all'
  assert.equal(await keys.tryAside(), true)
  assert.ok((await cloud.pull()).ok)
  assert.notEqual(readIdentity(path)?.key.x, before.key.x)
  // Out of a backup from before the change.
  const sql = postgres(runtime.databaseUrl, { max: 1 })
  await sql`select set_config('app.organisation', '*', false)`
  await sql`update host set public_key = ${before.key.x}, sealing_key = ${before.sealingKey.x} where id = ${identity.host}`
  await sql.end({ timeout: 1 })
  assert.equal(await keys.tryAside(), true)
  assert.deepEqual([(await cloud.pull()).ok, identity.key], [true, before.key])
})

test('an answer that was not told yet when the keys were changed is told by the new ones', async () => {
  const { client, id, a } = await adoptedPair(runtime)
  let away = true
  const noAcks: typeof fetch = async (input, init) => {
    if (away && String(input).endsWith('/acks')) throw new Error('no route')
    return fetch(input, init)
  }
  const { session } = await sessionOf(a, { fetch: noAcks })
  const path = join(temporaryFolder(), 'identity.json')
  await writeIdentity(path, a.identity)
  const { body } = await client.call(changeHostKeys, { params: { host: a.identity.host }, body: { reason: 'test' } })
  const begun = await client.call(switchOver, { params: { pair: id }, body: { reason: 'update' } })
  assert.ok('id' in begun.body)
  await session.cycle()
  assert.equal((await new HostKeys({ identity: a.identity, path }).change(body.id)).phase, 'done')
  await session.keysChanged()
  away = false
  await session.tellAnswers()
  const { body: seen } = await client.call(getOperation, { params: { operation: begun.body.id } })
  assert.deepEqual([seen.steps[0]?.state, seen.steps[0]?.message], ['done', 'it is done'])
})

test('a command that comes as the agent is about to begin anew is left to the next start, and not begun to be cut off', async () => {
  const { client, id, a } = await adoptedPair(runtime)
  let runs = 0
  let ends = true
  const run: HostPort['run'] = async () => {
    runs++
    return { phase: 'done', message: 'measured' }
  }
  const { session, cloud } = await sessionOf(a, { core: { run, endsSoon: () => ends } })
  const begun = await client.call(switchOver, { params: { pair: id }, body: { reason: 'update' } })
  assert.ok('id' in begun.body)
  await session.cycle()
  const params = { operation: begun.body.id }
  assert.deepEqual([runs, (await client.call(getOperation, { params })).body.steps[0]?.state], [0, 'sent'])
  // The next process holds no documents.
  ends = false
  cloud.forget()
  await session.cycle()
  assert.deepEqual([runs, (await client.call(getOperation, { params })).body.steps[0]?.state], [1, 'done'])
})
