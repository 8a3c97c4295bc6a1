import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { Cloud } from '../../../node-agent/control/cloud.ts'
import { enrol } from '../../../node-agent/control/identity.ts'
import {
  createEnrolmentToken,
  getHost,
  listEnrolmentTokens,
  listHosts,
  renameHost,
  retireHost,
  withdrawEnrolmentToken,
} from '../../../shared/contract/api/hosts.ts'
import { listAudit, listEvents } from '../../../shared/contract/api/observation.ts'
import { getOperation } from '../../../shared/contract/api/operations.ts'
import { getPair, replaceMember } from '../../../shared/contract/api/pairs.ts'
import { decodeTicket, encodeTicket } from '../../../shared/contract/documents.ts'
import { heartbeatKeyPurpose } from '../../../shared/contract/heartbeat-mac.ts'
import { unseal } from '../../../shared/sealing.ts'
import { temporaryFolder } from '../support/folder.ts'
import { enrolledHost, facts, fallenSilent, pairReport, wishOf } from '../support/host.ts'
import { adoptedPair } from '../support/pair.ts'
import { newTenant, type Runtime } from '../support/runtime.ts'
import { refusal } from './tenancy.ts'

const identityPath = (): string => join(temporaryFolder(), 'identity.json')

export function hostTests(runtime: () => Runtime): void {
  test('a host enrols once with its token, and a second host with the same token is refused', async () => {
    const { client } = await newTenant(runtime())
    const { body } = await client.call(createEnrolmentToken, { body: { name: 'alpha' } })
    const options = { ticketText: body.token, facts, agentVersion: '1.0.0' }
    const path = identityPath()
    const identity = await enrol({ ...options, path })
    assert.equal(identity.name, 'alpha')
    await assert.rejects(enrol({ ...options, path: identityPath() }), /used or over/)
    const { body: hosts } = await client.call(listHosts, {})
    assert.deepEqual(
      hosts.data.map(one => [one.id, one.name, one.connected]),
      [[identity.host, 'alpha', 'unknown']],
    )
  })

  test('a token of enrolment that was withdrawn opens nothing, and one that was used is not taken back', async () => {
    const { client } = await newTenant(runtime())
    const made = [
      (await client.call(createEnrolmentToken, { body: { name: 'alpha' } })).body,
      (await client.call(createEnrolmentToken, { body: { name: 'beta' } })).body,
    ] as const
    const withdraw = (enrolmentToken: string) => client.call(withdrawEnrolmentToken, { params: { enrolmentToken } })
    assert.equal((await withdraw(made[0].id)).body.usedAt, null)
    const options = { facts, agentVersion: '1', path: identityPath() }
    await assert.rejects(enrol({ ...options, ticketText: made[0].token }), /unknown, used or over/)
    await enrol({ ...options, ticketText: made[1].token })
    await assert.rejects(withdraw(made[1].id), /409 conflict: a host enrolled with it at .*: retire the host beta/)
    const { body } = await client.call(listEnrolmentTokens, {})
    assert.deepEqual(
      body.data.map(one => [one.id, one.usedAt !== null]),
      [[made[1].id, true]],
    )
    assert.ok(!JSON.stringify(body).includes('understudy-enrol'))
  })

  test('a host does not enrol with a control plane whose root is not the one of its token', async () => {
    const { client } = await newTenant(runtime())
    const { body } = await client.call(createEnrolmentToken, { body: { name: 'alpha' } })
    const ticket = decodeTicket(body.token)!
    const ticketText = encodeTicket({ ...ticket, root: 'A'.repeat(43) })
    await assert.rejects(enrol({ ticketText, facts, agentVersion: '1', path: identityPath() }), /another root key/)
  })

  test('an enrolment whose answer was lost is asked again and gives the same host', async () => {
    const { client } = await newTenant(runtime())
    const { body } = await client.call(createEnrolmentToken, { body: { name: 'alpha' } })
    const options = { ticketText: body.token, facts, agentVersion: '1.0.0', path: identityPath() }
    const lossy: typeof fetch = async (...request) => {
      await fetch(...request)
      throw new Error('the answer was lost')
    }
    await assert.rejects(enrol({ ...options, fetch: lossy }), /lost/)
    const identity = await enrol(options)
    const { body: hosts } = await client.call(listHosts, {})
    assert.deepEqual(
      hosts.data.map(one => one.id),
      [identity.host],
    )
  })

  test('a report shows a host as connected, an older one changes nothing, and a foreign signature is refused', async () => {
    const { client } = await newTenant(runtime())
    const host = await enrolledHost(client, { name: 'alpha', address: '10.9.0.1' })
    const other = await enrolledHost(client, { name: 'beta', address: '10.9.0.2' })
    await host.send({ seq: 7, observedGeneration: 3 })
    await host.send({ seq: 6, observedGeneration: 2 })
    const { body } = await client.call(getHost, { params: { host: host.identity.host } })
    assert.deepEqual([body.connected, body.observedGeneration], ['yes', 3])
    host.identity.key = other.identity.key
    assert.deepEqual(await host.cloud.pull().then(answer => (answer.ok ? 'ok' : answer.status)), 401)
  })

  test('a report of any depth, size or content is refused or stored harmlessly', async () => {
    const { client } = await newTenant(runtime())
    const host = await enrolledHost(client, { name: 'alpha', address: '10.9.0.1' })
    const good = host.report()
    const hostile: unknown[] = [
      { ...good, seq: -1 },
      { ...good, seq: Number.MAX_SAFE_INTEGER },
      { ...good, agent: { version: 'x'.repeat(100), startedAt: good.sentAt } },
      { ...good, applied: { status: 'True', generation: 0, why: '\u0000' } },
      { ...good, sentAt: 'yesterday' },
      [],
      'text',
    ]
    for (const report of hostile) {
      const answer = await host.cloud.report(report as never)
      assert.ok(!answer.ok && (answer.status === 422 || answer.status === 400), JSON.stringify(answer))
    }
    const html = { ...good, agent: { version: '<script>', startedAt: good.sentAt }, extra: { deep: [[[[]]]] } }
    assert.ok((await host.cloud.report(html as never)).ok)
    const { body } = await client.call(getHost, { params: { host: host.identity.host } })
    assert.equal(body.agentVersion, '<script>')
  })

  test('a host is renamed and retired, and its key opens nothing afterwards', async () => {
    const { client } = await newTenant(runtime())
    const host = await enrolledHost(client, { name: 'alpha', address: '10.9.0.1' })
    await enrolledHost(client, { name: 'beta', address: '10.9.0.2' })
    const params = { host: host.identity.host }
    const { etag } = await client.call(getHost, { params })
    await assert.rejects(
      client.call(renameHost, { params, body: { name: 'beta' }, ifMatch: etag! }),
      refusal('name_taken', 409),
    )
    const renamed = await client.call(renameHost, { params, body: { name: 'gamma' }, ifMatch: etag! })
    assert.equal(renamed.body.name, 'gamma')
    await client.call(retireHost, { params, body: { reason: 'sold' }, ifMatch: renamed.etag! })
    const answer = await host.cloud.pull()
    assert.ok(!answer.ok && answer.status === 401)
  })

  test('a host that is lost is replaced: another one takes its place by enrolling, is told its pair, and joins when it is asked to', async () => {
    const { client, id, a, b } = await adoptedPair(runtime())
    const params = { pair: id }
    const replaces = b.identity.host
    await assert.rejects(
      client.call(createEnrolmentToken, { body: { name: 'beta', replaces } }),
      /409 conflict: host beta was heard within 30 s: switch it off for good/,
    )
    await fallenSilent(runtime(), replaces)
    const fresh = await enrolledHost(client, { name: 'beta', address: '10.9.0.2', replaces })
    const gone = await b.cloud.pull()
    assert.ok(!gone.ok && gone.status === 401)
    await assert.rejects(
      client.call(createEnrolmentToken, { body: { name: 'beta2', replaces } }),
      /409 conflict: host beta is retired/,
    )
    const { body: pair } = await client.call(getPair, { params })
    assert.deepEqual(
      pair.hosts.map(one => one.id),
      [a.identity.host, fresh.identity.host],
    )
    for (const [host, peer] of [
      [a, fresh],
      [fresh, a],
    ] as const)
      assert.equal((await wishOf(host))?.peer.host, peer.identity.host)
    const join = (host: 'a' | 'b') => client.call(replaceMember, { params, body: { host, reason: 'burnt down' } })
    await assert.rejects(
      join('b'),
      /409 operation_refused: host beta cannot join now: host beta was not heard within 30 s/,
    )
    await assert.rejects(join('a'), /409 conflict: host alpha reports that it is primary of this pair/)
    await fresh.send()
    const primary = pairReport({ role: 'primary', primary: 'a' })
    await a.send({ pair: { ...primary, protection: 'serving but unprotected' } })
    const begun = await join('b')
    const measuring = await fresh.nextCommand()
    assert.deepEqual([measuring.verb, measuring.args.vips], ['prechecks', []])
    await fresh.ack(measuring, { phase: 'done', result: { results: [] } })
    const telling = await a.nextCommand()
    assert.equal(telling.verb, 'pairBegin')
    await a.ack(telling, { phase: 'done', result: { sealed: 'secret' } })
    const joining = await fresh.nextCommand()
    assert.deepEqual([joining.verb, joining.args], ['pairJoin', { sealed: 'secret' }])
    await fresh.ack(joining, { phase: 'done' })
    await fresh.send({ pair: pairReport({ role: 'backup', primary: 'a' }) })
    const running = await client.call(getOperation, { params: { operation: begun.body.id } })
    assert.equal(running.body.state, 'running', 'the pair is not protected yet')
    await a.send({ pair: primary })
    const done = await client.call(getOperation, { params: { operation: begun.body.id }, wait: 5 })
    assert.equal(done.body.state, 'succeeded', done.body.message)
    const { body: audit } = await client.call(listAudit, { query: { limit: 100 } })
    assert.deepEqual(audit.data.at(-2)?.details, {
      publicKey: (await client.call(getHost, { params: { host: fresh.identity.host } })).body.publicKey,
      replaces,
    })
  })

  test('the key of a host’s heartbeats travels sealed: whoever hears the answer on a way without TLS has none', async () => {
    const { client } = await newTenant(runtime())
    const { identity } = await enrolledHost(client, { name: 'alpha', address: '10.9.0.1' })
    const heard: string[] = []
    const listening: typeof fetch = async (input, init) => {
      const response = await fetch(input, init)
      heard.push(await response.clone().text())
      return response
    }
    const cloud = new Cloud(identity, { fetch: listening })
    assert.ok((await cloud.pull()).ok)
    assert.match(cloud.heartbeatKey ?? '', /^[\w-]{43}$/)
    assert.ok(heard.length === 1 && !heard[0]!.includes(cloud.heartbeatKey!))
    const { host: other } = await enrolledHost(client, { name: 'beta', address: '10.9.0.2' }).then(one => one.identity)
    const sealed = (JSON.parse(heard[0]!) as { sealedHeartbeatKey: string }).sealedHeartbeatKey
    const key = identity.sealingKey
    assert.equal(await unseal(sealed, { key, purpose: heartbeatKeyPurpose(other) }), null)
    assert.equal(await unseal(sealed, { key, purpose: heartbeatKeyPurpose(identity.host) }), cloud.heartbeatKey)
  })

  test('events of a host come once each, however often they are sent', async () => {
    const { client } = await newTenant(runtime())
    const host = await enrolledHost(client, { name: 'alpha', address: '10.9.0.1' })
    const event = {
      id: '01j00000000000000000000000',
      at: new Date().toISOString(),
      kind: 'disk_full',
      severity: 'warning',
      message: 'full',
    } as const
    for (let at = 0; at < 3; at++) assert.ok((await host.cloud.events([event, event])).ok)
    const { body } = await client.call(listEvents, {})
    assert.deepEqual(
      body.data.map(one => [one.id, one.kind]),
      [
        [1, 'host_enrolled'],
        [2, 'disk_full'],
      ],
    )
  })
}
