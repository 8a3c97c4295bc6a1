import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { appendFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { z } from 'zod'
import { ControlLink } from '../../node-agent/control/link.ts'
import type { HostPort } from '../../node-agent/control/session.ts'
import { getHost } from '../../shared/contract/api/hosts.ts'
import { listEvents } from '../../shared/contract/api/observation.ts'
import { getOperation } from '../../shared/contract/api/operations.ts'
import { changeSettings, getPair, switchOver } from '../../shared/contract/api/pairs.ts'
import { type HostReport, presence } from '../../shared/contract/report.ts'
import { downTopic, upTopic } from '../../shared/contract/topics.ts'
import { temporaryFolder } from './support/folder.ts'
import { pairReport, type TestHost } from './support/host.ts'
import { emptySummary, untilWithin } from './support/link.ts'
import { adoptedPair } from './support/pair.ts'
import { type NodeRuntime, nodeRuntime } from './support/runtime.ts'

/** The agent's whole link, broker and HTTPS together, against a real Mosquitto; only the core behind it is a stand-in. */
let runtime: NodeRuntime
const links: ControlLink[] = []
before(async () => {
  runtime = await nodeRuntime({ broker: null })
})
after(async () => {
  for (const link of links) await link.close()
  await runtime?.close()
})

interface Given {
  folder?: string
  core?: Partial<HostPort>
  fetch?: typeof fetch
  nowMs?: () => number
}

async function linkOf(host: TestHost, part: Given = {}) {
  const notes: string[] = []
  const link = await ControlLink.open({
    identity: host.identity,
    folder: part.folder ?? temporaryFolder(),
    host: {
      present: async () => ({ gen: 1, epoch: 1, node: 'a' }),
      state: async () => ({
        pair: pairReport({ role: 'primary', primary: 'a' }),
        agent: { version: '0.1.0', startedAt: new Date().toISOString() },
      }),
      run: async () => ({ phase: 'done', message: 'it is done' }),
      apply: async () => ({ ok: true }),
      ...part.core,
    },
    policy: { refuse: [] },
    inventory: async () => ({ summary: emptySummary, network: {}, storage: {} }),
    nowMs: part.nowMs ?? Date.now,
    random: () => 0.5,
    note: why => notes.push(why),
    settled: () => {},
    unknown: async () => {},
    ...(part.fetch !== undefined && { fetch: part.fetch }),
  })
  links.push(link)
  return { link, notes }
}

const until = untilWithin(60)

test('what is about to change is reported again soon, and not only with the next report in half a minute', async () => {
  const { client, id, a, b } = await adoptedPair(runtime)
  await a.send({ boot: 1, pair: pairReport({ role: 'primary', primary: 'a' }) })
  const backup = pairReport({ role: 'backup', primary: 'a' })
  const atWork = { ...backup, replication: { ...backup.replication, streaming: false, operation: 'rejoin' } }
  let pair: NonNullable<HostReport['pair']> = atWork
  const agent = { version: '0.1.0', startedAt: new Date().toISOString() }
  let reports = 0
  const state: HostPort['state'] = async () => {
    reports++
    return { pair, agent }
  }
  const { link } = await linkOf(b, { core: { state } })
  await link.start()
  const allowed = async () => {
    const { body } = await client.call(switchOver, { params: { pair: id }, body: { reason: 'try', dryRun: true } })
    return 'dryRun' in body && body.obstacles.every(one => !one.includes('rejoin'))
  }
  await until('the work is told', async () => !(await allowed()))
  // Four come with the start: two pulls, the broker, the wish that lies there.
  await until('it is told again and again', async () => reports >= 7)
  pair = backup
  await until('its end is told', allowed)
})

test('a link gets its certificate, enters the broker, and takes commands and wishes from there at once', async () => {
  const { client, id, a } = await adoptedPair(runtime)
  const applied: number[] = []
  const { link } = await linkOf(a, {
    core: {
      apply: async wish => {
        applied.push(wish.generation)
        return { ok: true }
      },
    },
  })
  const reader = await runtime.brokerClient!('reader')
  const said: unknown[] = []
  reader.on('message', (_, payload) => said.push(JSON.parse(payload.toString())))
  await reader.subscribeAsync(upTopic(a.identity, 'presence'), { qos: 1 })
  await link.start()
  await until('it is connected', async () => link.state().broker === 'connected')
  await until('it says so on the broker', async () => said.length > 0)
  await reader.endAsync(true)
  // As the AsyncAPI document has it, which is made of this schema.
  assert.deepEqual(z.strictObject(presence.shape).parse(said[0]), { v: 1, state: 'online', boot: 1 })
  const { etag } = await client.call(getPair, { params: { pair: id } })
  await client.call(changeSettings, { params: { pair: id }, body: { protectedPorts: [5432, 8080] }, ifMatch: etag! })
  await until('the wish is applied', async () => applied.includes(2))
  const begun = await client.call(switchOver, { params: { pair: id }, body: { reason: 'update' } })
  assert.ok('id' in begun.body)
  const { id: operation } = begun.body
  const step = async () => (await client.call(getOperation, { params: { operation } })).body.steps[0]
  await until('the command is answered', async () => (await step())?.state === 'done')
  const shown = await until('the report shows the generation', async () => {
    const { body } = await client.call(getHost, { params: { host: a.identity.host } })
    return body.observedGeneration === 2 ? body : null
  })
  assert.equal(shown.connected, 'yes')
  assert.equal(shown.conditions.find(one => one.type === 'CertificateExpiring')?.status, 'False')
})

test('with the broker gone everything goes on by HTTPS, and with it back over it again', async () => {
  const { client, id, a } = await adoptedPair(runtime)
  const { link } = await linkOf(a)
  await link.start()
  await until('it is connected', async () => link.state().broker === 'connected')
  const restarted = runtime.restartBroker!()
  const begun = await client.call(switchOver, { params: { pair: id }, body: { reason: 'update' } })
  assert.ok('id' in begun.body)
  const { id: operation } = begun.body
  await until('the command is answered', async () => {
    const { body } = await client.call(getOperation, { params: { operation } })
    return body.steps[0]?.state === 'done'
  })
  await restarted
  await until('it is connected again', async () => link.state().broker === 'connected')
})

test('what happens while the control plane is away is told when it is back, each event once', async () => {
  const { client, a } = await adoptedPair(runtime)
  let away = true
  const { link } = await linkOf(a, {
    fetch: (input, init) => (away ? Promise.reject(new Error('unreachable')) : fetch(input, init)),
  })
  await link.start()
  const standing = { role: 'primary' as const, gen: 1, epoch: 1, primary: 'a' as const, serving: true }
  link.standing({ ...standing, protection: 'protected' })
  link.standing({ ...standing, protection: 'serving but unprotected' })
  link.standing({ ...standing, protection: 'protected' })
  assert.equal(link.state().reachedAt, null)
  away = false
  const kinds = await until('the events are there', async () => {
    const { body } = await client.call(listEvents, { query: { limit: 100 } })
    const told = body.data.filter(event => event.kind === 'protection_changed')
    return told.length >= 2 ? told : null
  })
  assert.equal(kinds.length, 2)
})

test('a command that was under way when the link died is said to have an unknown outcome, and is not run again', async () => {
  const { client, id, a } = await adoptedPair(runtime)
  const folder = temporaryFolder()
  let runs = 0
  const hangs: Partial<HostPort> = {
    run: () => {
      runs++
      return new Promise(() => {})
    },
  }
  const first = await linkOf(a, { folder, core: hangs })
  await first.link.start()
  const begun = await client.call(switchOver, { params: { pair: id }, body: { reason: 'update' } })
  assert.ok('id' in begun.body)
  const { id: operation } = begun.body
  const step = async () => (await client.call(getOperation, { params: { operation } })).body.steps[0]
  await until('the command runs', async () => runs === 1 && (await step())?.state === 'running')
  await first.link.close()
  const second = await linkOf(a, { folder, core: hangs })
  await second.link.start()
  const told = await until('it says so', async () => {
    const now = await step()
    return now !== undefined && /not known here/.test(now.message) ? now : null
  })
  assert.deepEqual([told.state, runs], ['running', 1])
})

test('a broker that holds new wishes back, with the other way cut as well, is noticed as a freeze', async () => {
  const { client, a } = await adoptedPair(runtime)
  let cut = false
  let laterMs = 0
  const { link } = await linkOf(a, {
    nowMs: () => Date.now() + laterMs,
    fetch: (input, init) => (cut ? Promise.reject(new Error('unreachable')) : fetch(input, init)),
  })
  await link.start()
  await until('it is connected', async () => link.state().broker === 'connected')
  const stale = async () => {
    const { body } = await client.call(getHost, { params: { host: a.identity.host } })
    return body.conditions.find(one => one.type === 'DesiredStale')?.status
  }
  await until('it holds a word of freshness', async () => (await stale()) === 'False')
  cut = true
  // The attacker repeats the old word and lets no new one through; reports still come in over the broker.
  const attacker = await runtime.brokerClient!('attacker')
  const topic = downTopic({ organisation: a.identity.organisation, host: a.identity.host }, 'fresh')
  const old = await new Promise<string>(resolve => {
    attacker.on('message', (_topic, payload) => resolve(payload.toString()))
    attacker.subscribe(topic, { qos: 1 })
  })
  const { now } = runtime.deps
  laterMs = 3 * 3_600_000
  runtime.deps.now = () => new Date(Date.now() + laterMs)
  try {
    await attacker.publishAsync(topic, old, { qos: 1, retain: true })
    const standing = { role: 'primary' as const, gen: 1, epoch: 1, primary: 'a' as const, serving: true }
    link.standing({ ...standing, protection: 'protected' })
    await until('the freeze is shown', async () => (await stale()) === 'True')
  } finally {
    runtime.deps.now = now
    await attacker.endAsync(true)
  }
})

test('a wish that a host holds and the control plane has lost is overtaken: what is wanted now gets a later generation', async () => {
  const { client, a } = await adoptedPair(runtime)
  await a.send({ observedGeneration: 50, applied: { status: 'False', generation: 52, why: 'no such interface' } })
  const shown = async () => (await client.call(getHost, { params: { host: a.identity.host } })).body
  await until('it is issued anew', async () => (await shown()).generation === 53)
  // Whoever lies about it neither uses up the numbers nor keeps us issuing.
  const lie = () => a.send({ observedGeneration: 2 ** 52, applied: { status: 'True', generation: 2 ** 52, why: '' } })
  await lie()
  await until('it is issued once more', async () => (await shown()).generation === 2 ** 48 + 1)
  for (let times = 0; times < 3; times++) {
    await lie()
    await runtime.sweep()
  }
  await new Promise(resolve => setTimeout(resolve, 500))
  assert.equal((await shown()).generation, 2 ** 48 + 1)
})

test('a host whose disk is full goes on, says so, and takes what is wanted of it as soon as there is room', async () => {
  const { a } = await adoptedPair(runtime)
  const folder = temporaryFolder()
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'understudy-test', folder])
  const applied: number[] = []
  const apply: HostPort['apply'] = async wish => {
    applied.push(wish.generation)
    return { ok: true }
  }
  try {
    const host = { ...a, identity: { ...a.identity, broker: null } }
    const { link, notes } = await linkOf(host, { folder, core: { apply } })
    const filler = join(folder, 'filler')
    assert.throws(() => {
      for (;;) appendFileSync(filler, Buffer.alloc(4096, 1))
    }, /ENOSPC/)
    await link.start()
    await until('it is said', async () => notes.some(why => /can't be kept here: .*ENOSPC/.test(why)))
    assert.equal(applied.length, 0)
    rmSync(filler)
    await until('the wish is applied', async () => applied.includes(1))
    await link.close()
  } finally {
    execFileSync('umount', ['--lazy', folder])
  }
})
