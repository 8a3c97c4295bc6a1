import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { after, before, test } from 'node:test'
import mqtt, { type MqttClient } from 'mqtt'
import { makePrivateJwk } from '../../control-plane/auth/signing-keys.ts'
import { judgeCommand } from '../../node-agent/control/commands.ts'
import { acceptTrust, keyRing } from '../../node-agent/control/trust.ts'
import { getHost } from '../../shared/contract/api/hosts.ts'
import { listEvents } from '../../shared/contract/api/observation.ts'
import { getOperation } from '../../shared/contract/api/operations.ts'
import { changeSettings, getPair, switchOver } from '../../shared/contract/api/pairs.ts'
import { desiredDocument } from '../../shared/contract/api/settings.ts'
import { createToolKey, toolCertificate } from '../../shared/contract/api/tool-keys.ts'
import type { Ack, Command } from '../../shared/contract/documents.ts'
import { documentSigner, verifyDocument } from '../../shared/contract/signing.ts'
import { downTopic, upTopic } from '../../shared/contract/topics.ts'
import { ulid } from '../../shared/ids.ts'
import { pairReport, type TestHost } from './support/host.ts'
import { untilWithin } from './support/link.ts'
import { adoptedPair } from './support/pair.ts'
import type { ApiClient } from './support/route-client.ts'
import { type NodeRuntime, nodeRuntime } from './support/runtime.ts'

/** A real Mosquitto with client certificates; hosts get theirs from the control plane. */
let runtime: NodeRuntime
before(async () => {
  runtime = await nodeRuntime({ broker: null })
})
const clients: MqttClient[] = []
after(async () => {
  for (const client of clients) client.end(true)
  await runtime?.close()
})

interface OnBroker {
  client: MqttClient
  next: (topicEnd: string, limitMs?: number) => Promise<string>
  publish: (topic: string, payload: string, retain?: boolean) => Promise<number>
}

function ownKey(): { spki: string; pem: string } {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return {
    spki: publicKey.export({ type: 'spki', format: 'der' }).toString('base64url'),
    pem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  }
}

async function onBroker(host: TestHost): Promise<OnBroker> {
  const { spki, pem: key } = ownKey()
  const answer = await host.cloud.certificate(spki)
  assert.ok(answer.ok, JSON.stringify(answer))
  const { certificate, authority } = answer.value
  const client = mqtt.connect(runtime.brokerUrl!, {
    protocolVersion: 5,
    clean: true,
    cert: certificate,
    key,
    ca: authority,
    clientId: host.identity.host,
    reconnectPeriod: 200,
  })
  clients.push(client)
  const came: { topic: string; payload: string }[] = []
  client.on('message', (topic, payload) => came.push({ topic, payload: payload.toString() }))
  client.on('error', () => {})
  await new Promise<void>((resolve, reject) => {
    client.once('connect', () => resolve())
    setTimeout(() => reject(new Error('the broker does not let the host in')), 30_000).unref()
  })
  await client.subscribeAsync(downTopic(addressOf(host), 'cmd').replace(/cmd$/, '#'), { qos: 1 })
  return {
    client,
    next: async (end, limitMs = 30_000) => {
      const until = Date.now() + limitMs
      while (Date.now() < until) {
        const at = came.findIndex(one => one.topic.endsWith(end))
        if (at >= 0) return came.splice(at, 1)[0]!.payload
        await new Promise(resolve => setTimeout(resolve, 20))
      }
      throw new Error(`nothing came on …${end} within ${limitMs} ms`)
    },
    publish: (topic, payload, retain = false) =>
      new Promise(resolve => {
        client.publish(topic, payload, { qos: 1, retain }, (error, packet) => {
          const reason = (packet as { reasonCode?: number } | undefined)?.reasonCode
          resolve(error ? ((error as { code?: number }).code ?? 255) : (reason ?? 0))
        })
      }),
  }
}

const addressOf = (host: TestHost) => ({ organisation: host.identity.organisation, host: host.identity.host })

const until = untilWithin(30)
const payloadOf = (jws: string): string =>
  Buffer.from((JSON.parse(jws) as { payload: string }).payload, 'base64url').toString()
const shownOf = async (client: ApiClient, { identity }: TestHost) =>
  (await client.call(getHost, { params: { host: identity.host } })).body

test('the wish lies retained on the broker as a whole signed document, and a change comes at once', async () => {
  const { client, id, a } = await adoptedPair(runtime)
  const host = await onBroker(a)
  const trusted = await acceptTrust(await host.next('/trust'), {
    rootFingerprint: a.identity.rootFingerprint,
    heldVersion: 0,
  })
  assert.ok(trusted.ok)
  /** The first one that is newer: a broker may deliver one twice. */
  const newer = async (than: number): Promise<number> => {
    for (;;) {
      const text = await host.next('/desired')
      const verified = await verifyDocument(text, 'desired', keyRing(trusted.document, 'desired'))
      assert.ok(verified.ok)
      const { generation } = desiredDocument.parse(verified.payload)
      if (generation > than) return generation
    }
  }
  assert.equal(await newer(0), 1)
  const { etag } = await client.call(getPair, { params: { pair: id } })
  await client.call(changeSettings, { params: { pair: id }, body: { profile: 'fast' }, ifMatch: etag! })
  assert.equal(await newer(1), 2)
  await host.client.endAsync()
})

test('a command goes out over the broker, its answer comes back over it, and the operation ends', async () => {
  const { client, id, a, healthy } = await adoptedPair(runtime)
  const host = await onBroker(a)
  const begun = await client.call(switchOver, { params: { pair: id }, body: { reason: 'update' } })
  assert.ok('id' in begun.body)
  const command = JSON.parse(payloadOf(await host.next('/cmd'))) as Command
  const signer = await documentSigner(a.identity.host, a.identity.key)
  const ack: Ack = {
    v: 1,
    host: command.audience,
    operation: command.operation,
    jti: command.jti,
    phase: 'done',
    message: '',
    percent: null,
    result: null,
    at: new Date().toISOString(),
  }
  assert.equal(await host.publish(upTopic(addressOf(a), 'ack'), await signer.sign('ack', ack)), 0)
  await healthy({ primary: 'b', epoch: 2 })
  const done = await client.call(getOperation, { params: { operation: begun.body.id }, wait: 10 })
  assert.equal(done.body.state, 'succeeded', done.body.message)
  await host.client.endAsync()
})

test('reports and heartbeats over the broker show the host, and an older one changes nothing', async () => {
  const { client, a } = await adoptedPair(runtime)
  const host = await onBroker(a)
  const shown = async () => (await client.call(getHost, { params: { host: a.identity.host } })).body
  await host.publish(upTopic(addressOf(a), 'report'), await a.said({ boot: 2, seq: 9, observedGeneration: 5 }))
  await until('the report is shown', async () => (await shown()).observedGeneration === 5)
  await host.publish(upTopic(addressOf(a), 'report'), await a.said({ boot: 1, seq: 99, observedGeneration: 4 }))
  await host.publish(upTopic(addressOf(a), 'report'), '{"v":1,"deep":'.repeat(50))
  const { lastSeenAt: before } = await shown()
  await host.publish(upTopic(addressOf(a), 'hb'), await a.heartbeat({ boot: 2, seq: 10 }))
  await until('the heartbeat is shown', async () => (await shown()).lastSeenAt !== before)
  assert.equal((await shown()).observedGeneration, 5)
  await host.client.endAsync()
})

test('the broker lets a host write below its own organisation and id alone, and the ingest believes no other one either', async () => {
  const mine = await adoptedPair(runtime)
  const theirs = await adoptedPair(runtime)
  const forged = await theirs.a.said({ boot: 9, seq: 1, observedGeneration: 77 })
  const { organisation } = theirs.a.identity
  const foreign = [addressOf(theirs.a), { organisation, host: mine.a.identity.host }]
  for (const address of foreign) {
    // mqtt.js drops its connection after a refusal, so each is for nothing else.
    const refused = await onBroker(mine.b)
    assert.notEqual(await refused.publish(upTopic(address, 'report'), forged), 0)
    refused.client.end(true)
  }
  // Nor below its own, what is no channel: each topic could keep a message for good.
  const own = upTopic(addressOf(mine.b), 'report')
  for (const topic of [`${own}/more`, `${own}s`]) {
    const refused = await onBroker(mine.b)
    assert.notEqual(await refused.publish(topic, 'x', true), 0)
    refused.client.end(true)
  }
  // Whoever owns the broker writes what he likes: what names a host under a foreign organisation is dropped.
  const attacker = await runtime.brokerClient!('attacker')
  clients.push(attacker)
  await attacker.publishAsync(upTopic({ organisation, host: mine.a.identity.host }, 'report'), forged, { qos: 1 })
  await attacker.endAsync()
  const host = await onBroker(mine.a)
  await host.publish(
    upTopic(addressOf(mine.a), 'report'),
    await mine.a.said({ boot: 3, seq: 1, observedGeneration: 6 }),
  )
  const shown = async () => (await mine.client.call(getHost, { params: { host: mine.a.identity.host } })).body
  await until('the host’s own report is shown', async () => (await shown()).observedGeneration === 6)
  const { body } = await theirs.client.call(getHost, { params: { host: theirs.a.identity.host } })
  assert.equal(body.observedGeneration, 0)
  await host.client.endAsync()
})

test('whoever owns the broker cannot make a host look better than it is, nor newer, nor alive: what he writes in its name is passed over', async () => {
  const { client, id, a, b } = await adoptedPair(runtime)
  const truth = { ...pairReport({ role: 'primary', primary: 'a' }), protection: 'serving but unprotected' as const }
  await a.send({ boot: 5, pair: truth })
  const status = async () => (await client.call(getPair, { params: { pair: id } })).body.status
  assert.equal((await status()).protection, 'serving but unprotected')
  const fine = { boot: 9, pair: pairReport({ role: 'primary', primary: 'a' }) }
  const evil = await documentSigner(a.identity.host, await makePrivateJwk())
  const report = { v: 2, at: Date.now(), report: a.report(fine) }
  const [header, body] = await Promise.all([a.said({ boot: 6 }), evil.sign('report', report)])
  const minutesAgo = { v: 2, at: Date.now() - 180_000, report: a.report(fine) }
  const own = await documentSigner(a.identity.host, a.identity.key)
  const event = { id: ulid(Date.now()), at: new Date().toISOString(), kind: 'protection_changed', severity: 'info' }
  const events = { v: 2, at: Date.now(), events: [{ ...event, message: 'protected' }] }
  const attacker = await runtime.brokerClient!('attacker')
  clients.push(attacker)
  const write = (channel: 'report' | 'hb' | 'evt', text: string) =>
    attacker.publishAsync(upTopic(addressOf(a), channel), text, { qos: 1 })
  for (const forged of [
    JSON.stringify(report.report),
    body,
    JSON.stringify({ ...JSON.parse(header), payload: JSON.parse(body).payload }),
    await b.said(fine),
    // Kept back by him, and let through when it flatters.
    await own.sign('report', minutesAgo),
    // Genuine, of another purpose.
    await own.sign('events', report),
  ])
    await write('report', forged)
  await write('hb', await a.heartbeat({ boot: 9, mac: 'A'.repeat(22) }))
  await write('hb', await b.heartbeat({ boot: 9 }))
  await write('hb', await a.heartbeat({ boot: 9, at: Date.now() - 180_000 }))
  await write('evt', JSON.stringify({ v: 1, events: events.events }))
  await write('evt', await evil.sign('events', events))
  // He is faster than the host by one message, in one batch with it.
  await write('report', body)
  await write('report', await a.said({ boot: 7, observedGeneration: 3, pair: truth }))
  await until('the host’s own word is shown', async () => (await shownOf(client, a)).observedGeneration === 3)
  assert.equal((await status()).protection, 'serving but unprotected')
  const told = (await client.call(listEvents, { query: { limit: 100 } })).body.data
  assert.deepEqual(
    told.filter(one => one.kind === 'protection_changed'),
    [],
  )
  // None of it has used up the numbers, or counts as a sign of life.
  await a.send({ boot: 7, seq: 1000, pair: fine.pair })
  assert.equal((await status()).protection, 'protected')
  const seen = async () => (await shownOf(client, a)).lastSeenAt
  const before = await seen()
  await write('hb', await a.heartbeat({ boot: 9, mac: 'A'.repeat(22) }))
  await write('hb', await b.heartbeat({ boot: 9 }))
  await attacker.endAsync()
  const host = await onBroker(b)
  await host.publish(upTopic(addressOf(b), 'report'), await b.said({ boot: 2, observedGeneration: 8 }))
  await until('what came after them is shown', async () => (await shownOf(client, b)).observedGeneration === 8)
  assert.equal(await seen(), before)
  await host.client.endAsync()
})

test('fleet tooling commands a switchover over the broker with its own key, for its own organisation’s hosts alone', async () => {
  const { client, id, a } = await adoptedPair(runtime)
  const theirs = await adoptedPair(runtime)
  const host = await onBroker(a)
  await host.next('/desired')
  const jwk = await makePrivateJwk()
  const { body: key } = await client.call(createToolKey, {
    body: { name: 'rollout', publicKey: jwk.x, verbs: ['switchover'], pairs: [id] },
  })
  const tls = ownKey()
  const { body: paper } = await client.call(toolCertificate, { body: { publicKey: tls.spki } })
  const tool = mqtt.connect(runtime.brokerUrl!, {
    protocolVersion: 5,
    cert: paper.certificate,
    key: tls.pem,
    ca: paper.authority,
    reconnectPeriod: 0,
  })
  clients.push(tool)
  tool.on('error', () => {})
  await new Promise<void>(resolve => tool.once('connect', () => resolve()))
  const issuedAt = Math.floor(Date.now() / 1000)
  const command: Command = {
    v: 1,
    organisation: a.identity.organisation,
    audience: a.identity.host,
    pair: id,
    operation: ulid(Date.now()),
    jti: ulid(Date.now()),
    verb: 'switchover',
    args: {},
    issuedAt,
    expiresAt: issuedAt + 60,
    only: { gen: 1, epoch: 1, node: 'a' },
    actor: 'rollout',
  }
  const signer = await documentSigner(key.kid, jwk)
  await tool.publishAsync(downTopic(addressOf(a), 'cmd'), await signer.sign('command', command), { qos: 1 })
  // The host takes the key from its next desired document, and the command by it.
  const trusted = await acceptTrust(await host.next('/trust'), {
    rootFingerprint: a.identity.rootFingerprint,
    heldVersion: 0,
  })
  assert.ok(trusted.ok)
  const verified = await verifyDocument(await host.next('/desired'), 'desired', keyRing(trusted.document, 'desired'))
  assert.ok(verified.ok)
  const { tools } = desiredDocument.parse(verified.payload)
  const context = {
    host: a.identity.host,
    organisation: a.identity.organisation,
    ring: keyRing(trusted.document, 'command'),
    nowMs: Date.now(),
    present: { gen: 1, epoch: 1, node: 'a' as const },
    policy: { refuse: [] },
    tooling: { pair: id, tools },
  }
  assert.equal((await judgeCommand(await host.next('/cmd'), context)).verdict, 'run')
  const refused = await new Promise(resolve => {
    tool.publish(downTopic(addressOf(theirs.a), 'cmd'), 'x', { qos: 1 }, error => resolve(error))
  })
  assert.ok(refused instanceof Error, 'the broker refuses another organisation’s host')
  await host.client.endAsync()
})

test('an attacker who owns the broker demotes nobody and rolls nothing back', async () => {
  const { client, id, a, healthy } = await adoptedPair(runtime)
  const victim = await onBroker(a)
  const trusted = await acceptTrust(await victim.next('/trust'), {
    rootFingerprint: a.identity.rootFingerprint,
    heldVersion: 0,
  })
  assert.ok(trusted.ok)
  const firstDesired = await victim.next('/desired')
  const begun = await client.call(switchOver, { params: { pair: id }, body: { reason: 'update' } })
  assert.ok('id' in begun.body)
  const genuine = await victim.next('/cmd')
  // The attacker holds the broker's own key to everything, and what ever went over it.
  const attacker = await runtime.brokerClient!('attacker')
  clients.push(attacker)
  const evil = await documentSigner('cp-evil', await makePrivateJwk())
  const payload = JSON.parse(payloadOf(genuine)) as Command
  const known = trusted.document.keys[0]!.kid
  const impostor = await documentSigner(known, await makePrivateJwk())
  const attempts = [
    genuine,
    await evil.sign('command', payload),
    await impostor.sign('command', payload),
    JSON.stringify({
      ...JSON.parse(genuine),
      payload: Buffer.from(JSON.stringify({ ...payload, only: {} })).toString('base64url'),
    }),
    firstDesired,
  ]
  for (const retain of [false, true])
    for (const text of attempts) await attacker.publishAsync(downTopic(addressOf(a), 'cmd'), text, { qos: 1, retain })
  // The switchover has happened: the host is at epoch 2 when the attacker's copies arrive.
  await healthy({ primary: 'b', epoch: 2 })
  const context = {
    host: a.identity.host,
    organisation: a.identity.organisation,
    ring: keyRing(trusted.document, 'command'),
    nowMs: Date.now(),
    present: { gen: 1, epoch: 2, node: 'a' as const },
    policy: { refuse: [] },
    tooling: null,
  }
  const verdicts = new Map<string, string>()
  // What the control plane itself says again meanwhile is none of them.
  while (attempts.some(text => !verdicts.has(text))) {
    const text = await victim.next('/cmd')
    verdicts.set(text, (await judgeCommand(text, context)).verdict)
  }
  const found = attempts.map(text => verdicts.get(text))
  assert.deepEqual(found, ['refuse', 'ignore', 'ignore', 'ignore', 'ignore'])
  const forgedTrust = await impostor.sign('trust', { ...trusted.document, version: 99 })
  const refused = await acceptTrust(forgedTrust, { rootFingerprint: a.identity.rootFingerprint, heldVersion: 1 })
  assert.equal(refused.ok, false)
  // Upwards: a forged answer and a forged report leave operation and view as they are.
  await attacker.publishAsync(
    upTopic(addressOf(a), 'ack'),
    await evil.sign('ack', { v: 1, host: a.identity.host, jti: payload.jti, phase: 'failed' }),
    { qos: 1 },
  )
  const { body } = await client.call(getOperation, { params: { operation: begun.body.id } })
  assert.notEqual(body.state, 'failed')
  await attacker.endAsync()
  await victim.client.endAsync()
})

test('a broker that was away gets what waited for it, and what it lost', async () => {
  const { client, id, a } = await adoptedPair(runtime)
  const host = await onBroker(a)
  await host.next('/desired')
  await runtime.restartBroker!()
  const { etag } = await client.call(getPair, { params: { pair: id } })
  await client.call(changeSettings, { params: { pair: id }, body: { profile: 'conservative' }, ifMatch: etag! })
  await until('the wish that waited comes', async () => payloadOf(await host.next('/desired')).includes('conservative'))
  await host.client.endAsync()
})
