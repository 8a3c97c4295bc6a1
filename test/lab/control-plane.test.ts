/**
 * Two lab hosts that the control plane makes a pair of, and what a portal and fleet tooling do with it from then on: all
 * of it through the API or over MQTT, with clients writing meanwhile.
 */

import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { HOSTS, type HostName, INTERFACE, LAN_PREFIX, namespaceName } from '../../infra/lab/addresses.ts'
import { controlPlaneDir, killControlPlane, startControlPlane, untilConnected } from '../../infra/lab/control-plane.ts'
import { run } from '../../infra/lab/exec.ts'
import { networkOf, runOnHost } from '../../infra/lab/hosts.ts'
import { down } from '../../infra/lab/lab.ts'
import {
  databaseUriAt,
  lastWords,
  servingHost,
  statuses,
  switchOver,
  until,
  untilProtected,
} from '../../infra/lab/pair.ts'
import { agentPaths, understudyCommand } from '../../infra/lab/product.ts'
import {
  type RemotePair,
  settingsOf,
  untilBothSettled,
  untilEnded,
  upThroughApi,
} from '../../infra/lab/remote-set-up.ts'
import { Trial } from '../../infra/lab/trial.ts'
import { identityFileOf } from '../../node-agent/control/core-side.ts'
import type { Command } from '../../shared/contract/documents.ts'
import { documentSigner, type PrivateJwk } from '../../shared/contract/signing.ts'
import { downChannels, downTopic, topicRoot } from '../../shared/contract/topics.ts'
import { ulid } from '../../shared/ids.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { connectBroker, ownerCredentials, toolCredentials } from './broker-client.ts'
import { hostKeyOnDisk, presentStatus, runBundle } from './support.ts'

/** Reports, a start of each agent one after the other, and a busy machine. */
const SETTLE_LIMIT_MS = 90_000
const ATTACK_MS = 8_000
const FORGERIES = 20

const lab = `t-cp-${process.pid}`.slice(0, 16)
let remote: RemotePair
let trial: Trial

before(async () => {
  await runBundle()
  try {
    remote = await upThroughApi(lab)
  } catch (error) {
    console.error(lastWords(lab, 30))
    await down(lab)
    throw error
  }
  trial = await Trial.begin(lab, { writer: { connections: 2, intervalMs: 40 } })
})
after(() => down(lab))

const view = async () => (await remote.plane.api.getPair({ params: { pair: remote.pair } })).body

test('two hosts that wait become a protected pair through the API alone, with measured prechecks first', async () => {
  const { setUp } = remote
  assert.equal(setUp.state, 'succeeded', setUp.message)
  const results = (setUp.result as { results: { code: string; severity: string; host: string }[] }).results
  for (const host of ['a', 'b'])
    for (const code of [
      'peer_network',
      'witness',
      'vip_free',
      'port_free',
      'data_directory',
      'nobody_in_data_directory',
    ])
      assert.ok(
        results.some(one => one.host === host && one.code === code && one.severity !== 'blocking'),
        `${host} ${code}: ${JSON.stringify(results)}`,
      )
  await until(20_000, 'the pair is not shown as protected', async () => {
    const { status } = await view()
    return status.protection === 'protected' && status.primary === 'a' ? status : null
  })
})

test('a switchover asked of the API is carried out by the pair, and the operation ends with it', async () => {
  const first = await untilProtected(lab)
  const { api } = remote.plane
  const begun = await until(20_000, 'a switchover is refused', () =>
    api.switchOver({ params: { pair: remote.pair }, body: { reason: 'update' } }).catch(() => null),
  )
  assert.ok('id' in begun.body)
  const done = await untilEnded(remote.plane, begun.body.id, 60_000)
  assert.equal(done.state, 'succeeded', done.message)
  assert.equal((await presentStatus(lab, otherNode(first))).serving, true)
  await untilProtected(lab)
})

test('prechecks of a pair that serves measure on both hosts and change nothing', async () => {
  const { api } = remote.plane
  const { body } = await api.startPrechecks({ params: { pair: remote.pair }, body: {} })
  const done = await untilEnded(remote.plane, body.id, 60_000)
  assert.equal(done.state, 'succeeded', done.message)
  const known = await api.getPrechecks({ params: { pair: remote.pair } })
  assert.ok(known.body.results.length > 0)
})

test('the keys of both hosts are changed while clients write, by hand on the one and through the API on the other, and the witness of one’s own knows the new ones', async () => {
  const primary = await untilProtected(lab)
  const { epoch } = await presentStatus(lab, primary)
  const seen = new Set(HOSTS.map(host => hostKeyOnDisk(lab, host).newest))
  await runOnHost(lab, primary, understudyCommand(['change', 'host-key', '--socket', agentPaths(lab, primary).socket]))
  assert.equal(seen.add(hostKeyOnDisk(lab, primary).newest).size, 3)
  const node = otherNode(primary)
  const params = { host: remote.hosts[node] }
  const begun = await remote.plane.api.changeHostKeys({ params, body: { reason: 'a year is over' } })
  const done = await untilEnded(remote.plane, begun.body.id, SETTLE_LIMIT_MS)
  assert.equal(done.state, 'succeeded', `${done.message}\n${lastWords(lab, 30)}`)
  assert.equal(seen.add(hostKeyOnDisk(lab, node).newest).size, 4)
  for (const host of HOSTS) assert.ok(hostKeyOnDisk(lab, host).isHeldByOther, host)
  const now = await untilProtected(lab, SETTLE_LIMIT_MS)
  assert.deepEqual([now, (await presentStatus(lab, now)).epoch], [primary, epoch], 'nobody took over')
  await until(SETTLE_LIMIT_MS, 'the witness does not know both hosts by their new keys', async () =>
    Object.values(await statuses(lab)).every(one => one?.witness?.reach === 'yes') ? true : null,
  )
})

const secondVip = '10.77.0.101'
const heldBy = async (host: HostName): Promise<boolean> =>
  (await run('ip', ['-n', namespaceName(lab, host), '-brief', 'address', 'show', 'dev', INTERFACE.lan])).includes(
    `${secondVip}/`,
  )

async function change(body: Parameters<typeof remote.plane.api.changeSettings>[0]['body']): Promise<void> {
  const { api } = remote.plane
  const { etag } = await api.getPair({ params: { pair: remote.pair } })
  await api.changeSettings({ params: { pair: remote.pair }, body, ifMatch: etag! })
}

const untilSettled = () => untilBothSettled(remote, SETTLE_LIMIT_MS)

test('an address for clients is added and taken away while the pair serves; nobody loses his office by it', async () => {
  const primary = await untilProtected(lab)
  const epoch = (await presentStatus(lab, primary)).epoch
  const [vip] = settingsOf('').vips ?? []
  await change({ vips: [vip!, { ...vip!, address: `${secondVip}/${LAN_PREFIX.v4}` }] })
  const added = await untilSettled()
  assert.deepEqual([added.a.status, added.b.status], ['True', 'True'], JSON.stringify(added))
  await until(SETTLE_LIMIT_MS, 'the address is not there', async () => ((await heldBy(primary)) ? true : null))
  assert.equal(await heldBy(otherNode(primary)), false)
  const uri = databaseUriAt(lab, secondVip)
  const [program, args] = networkOf(lab, 'c', ['psql', uri, '-tAc', 'select 42'])
  assert.equal((await run(program, args)).trim(), '42')
  await untilProtected(lab)
  await change({ vips: [vip!] })
  const removed = await untilSettled()
  assert.deepEqual([removed.a.status, removed.b.status], ['True', 'True'], JSON.stringify(removed))
  await until(SETTLE_LIMIT_MS, 'the address is still there', async () => ((await heldBy(primary)) ? null : true))
  assert.equal(await untilProtected(lab), primary)
  assert.equal((await presentStatus(lab, primary)).epoch, epoch)
})

test('an address on an interface that the hosts do not have is refused before they are asked, naming both', async () => {
  const [vip] = settingsOf('').vips ?? []
  const wish = { vips: [vip!, { ...vip!, address: `${secondVip}/${LAN_PREFIX.v4}`, interface: 'nope0' }] }
  await assert.rejects(change(wish), /host a has no address on nope0; host b has no address on nope0/)
})

test('a setting that the hosts cannot take is refused by both with the reason, and everything stays as it was', async () => {
  const primary = await untilProtected(lab)
  const { settings } = await view()
  await change({ protectedPorts: [9999] })
  const refused = await untilSettled()
  for (const host of HOSTS)
    assert.match(refused[host].message, /protectedPorts "9999" does not contain postgres\.port 5432/)
  assert.equal(await untilProtected(lab), primary)
  await change({ protectedPorts: settings.protectedPorts })
  assert.equal((await untilSettled()).a.status, 'True')
})

test('with the control plane, its database and its broker dead the pair serves and switches over; afterwards all is shown', async () => {
  const first = await untilProtected(lab)
  await killControlPlane(lab)
  await switchOver(lab, first)
  assert.equal(await untilProtected(lab), otherNode(first))
  remote.plane = await startControlPlane(lab)
  await untilConnected(remote.plane, Object.values(remote.hosts))
  await until(SETTLE_LIMIT_MS, 'the new primary is not shown', async () => {
    const { status } = await view()
    return status.primary === otherNode(first) && status.protection === 'protected' ? true : null
  })
})

test('a control plane restored from an older backup demotes nobody and rolls nothing back; then what it wants is applied', async () => {
  const primary = await untilProtected(lab)
  const data = join(controlPlaneDir(lab), 'postgres', 'data')
  await killControlPlane(lab)
  await run('cp', ['-a', data, `${data}.backup`])
  remote.plane = await startControlPlane(lab)
  await untilConnected(remote.plane, Object.values(remote.hosts))
  const [vip] = settingsOf('').vips ?? []
  await change({ vips: [vip!, { ...vip!, address: `${secondVip}/${LAN_PREFIX.v4}` }] })
  assert.equal((await untilSettled()).b.status, 'True')
  await until(SETTLE_LIMIT_MS, 'the address is not there', async () => ((await heldBy(primary)) ? true : null))
  await killControlPlane(lab)
  await run('rm', ['-rf', data])
  await run('mv', [`${data}.backup`, data])
  remote.plane = await startControlPlane(lab)
  await untilConnected(remote.plane, Object.values(remote.hosts))
  // The backup is older than the second address: it is issued above what the hosts hold, and applied as any other wish.
  await until(SETTLE_LIMIT_MS, 'the restored wish is not applied', async () => ((await heldBy(primary)) ? null : true))
  assert.deepEqual((await untilSettled()).a.status, 'True')
  assert.equal(await untilProtected(lab), primary)
})

/** As the host itself knows them. */
const identityOf = (host: HostName): { organisation: string; host: string } =>
  JSON.parse(readFileSync(identityFileOf(agentPaths(lab, host).stateDir), 'utf8'))

async function presentOf(host: HostName): Promise<{ gen: number; epoch: number; node: HostName }> {
  const { gen, epoch } = await presentStatus(lab, host)
  return { gen, epoch, node: host }
}

function commandOf(host: HostName, part: Pick<Command, 'verb' | 'args' | 'only'>): Command {
  const issuedAt = Math.floor(Date.now() / 1000)
  const { organisation, host: audience } = identityOf(host)
  const ids = { pair: remote.pair, operation: ulid(Date.now()), jti: ulid(Date.now()) }
  return { v: 1, organisation, audience, ...ids, ...part, issuedAt, expiresAt: issuedAt + 60, actor: 'fleet tooling' }
}

test('fleet tooling switches over by a command of its own key over MQTT, and reads the answer', async () => {
  const { api } = remote.plane
  const primary = await untilProtected(lab)
  const jwk = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' }) as PrivateJwk
  const key = { kty: 'OKP', crv: 'Ed25519', x: jwk.x, d: jwk.d } as const
  const body = { name: 'fleet', publicKey: key.x, verbs: ['switchover' as const] }
  const { body: registered } = await api.createToolKey({ body })
  await until(SETTLE_LIMIT_MS, 'the hosts do not learn of the key', async () => {
    const { body: shown } = await api.getHost({ params: { host: remote.hosts[primary] } })
    const held = readFileSync(join(agentPaths(lab, primary).stateDir, 'control/memory.json'), 'utf8')
    const { desired } = JSON.parse(held) as { desired: string }
    const { payload } = JSON.parse(desired) as { payload: string }
    const known = Buffer.from(payload, 'base64url').toString().includes(registered.kid)
    return known && shown.observedGeneration === shown.generation ? true : null
  })
  const signer = await documentSigner(registered.kid, key)
  const tool = await connectBroker(lab, { clientId: 'fleet', as: await toolCredentials(remote.plane) })
  const answers: string[] = []
  tool.on('message', (_topic, payload) => answers.push(payload.toString()))
  await tool.subscribeAsync(`${topicRoot}/${identityOf('a').organisation}/+/up/ack`, { qos: 1 })
  const text = await signer.sign(
    'command',
    commandOf(primary, { verb: 'switchover', args: {}, only: await presentOf(primary) }),
  )
  await tool.publishAsync(downTopic(identityOf(primary), 'cmd'), text, { qos: 1 })
  await until(30_000, 'the other host does not serve', async () =>
    (await servingHost(lab)) === otherNode(primary) ? true : null,
  )
  const phases = await until(10_000, 'no answer is read', async () => {
    const seen = answers.map(one => {
      const { payload } = JSON.parse(one) as { payload: string }
      return (JSON.parse(Buffer.from(payload, 'base64url').toString()) as { phase: string }).phase
    })
    return seen.includes('done') ? seen : null
  })
  // That it began is not told where its end is told at once.
  assert.deepEqual(
    phases.filter(phase => phase !== 'accepted'),
    ['done'],
  )
  const answered = answers.length
  // The same once more, and a forced takeover, which no tooling may command.
  const takeover = commandOf(primary, { verb: 'takeover', args: { withWitness: true }, only: await presentOf(primary) })
  for (const again of [text, await signer.sign('command', takeover)])
    await tool.publishAsync(downTopic(identityOf(primary), 'cmd'), again, { qos: 1 })
  await until(10_000, 'the takeover is not refused', async () => (answers.length > answered ? true : null))
  assert.equal(await untilProtected(lab), otherNode(primary))
  await tool.endAsync(true)
})

test('an attacker who owns the broker reads, replays, forges, reorders, retains and disconnects: nobody is demoted, no setting is rolled back', async () => {
  const attacker = await connectBroker(lab, { clientId: 'attacker', as: await ownerCredentials(lab) })
  const heard: { topic: string; payload: Buffer }[] = []
  attacker.on('message', (topic, payload) => {
    if (payload.length > 0) heard.push({ topic, payload })
  })
  await attacker.subscribeAsync(`${topicRoot}/#`, { qos: 1 })
  // Something to replay: a wish with the second address, the way back, and a genuine switchover.
  const [vip] = settingsOf('').vips ?? []
  await change({ vips: [vip!, { ...vip!, address: `${secondVip}/${LAN_PREFIX.v4}` }] })
  await untilSettled()
  await change({ vips: [vip!] })
  assert.equal((await untilSettled()).a.status, 'True')
  await untilProtected(lab)
  const { api } = remote.plane
  const begun = await until(20_000, 'a switchover is refused', () =>
    api.switchOver({ params: { pair: remote.pair }, body: { reason: 'update' } }).catch(() => null),
  )
  assert.ok('id' in begun.body)
  assert.equal((await untilEnded(remote.plane, begun.body.id, 60_000)).state, 'succeeded')
  const primary = await untilProtected(lab)
  const before = await presentOf(primary)
  const down = heard.filter(one => one.topic.includes('/dn/'))
  assert.ok(down.some(one => one.topic.endsWith('/cmd')) && down.some(one => one.topic.endsWith('/desired')))
  const evilKey = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' }) as PrivateJwk
  const evil = { kty: 'OKP', crv: 'Ed25519', x: evilKey.x, d: evilKey.d } as const
  const texts = down.map(one => one.payload.toString())
  const forged: string[] = []
  for (const text of texts.slice(-20)) {
    const jws = JSON.parse(text) as { protected: string; payload: string }
    const header = JSON.parse(Buffer.from(jws.protected, 'base64url').toString()) as { kid: string; typ: string }
    const payload = JSON.parse(Buffer.from(jws.payload, 'base64url').toString()) as object
    const type = (['trust', 'desired', 'fresh', 'command'] as const).find(one => header.typ.includes(`-${one}-`))
    const changed = { ...payload, ...before, only: {}, generation: 999_999, version: 99 }
    if (type !== undefined) forged.push(await (await documentSigner(header.kid, evil)).sign(type, changed))
    forged.push(JSON.stringify({ ...jws, payload: Buffer.from(JSON.stringify(changed)).toString('base64url') }))
  }
  // What would do harm if it were believed: a switchover of now, and the second address under ever later generations.
  const opened = texts.map(text => {
    const jws = JSON.parse(text) as { protected: string; payload: string }
    const { kid, typ } = JSON.parse(Buffer.from(jws.protected, 'base64url').toString()) as { kid: string; typ: string }
    return {
      kid,
      typ,
      payload: JSON.parse(Buffer.from(jws.payload, 'base64url').toString()) as Record<string, unknown>,
    }
  })
  const wish = opened.find(one => one.typ.includes('-desired-') && JSON.stringify(one.payload).includes(secondVip))
  const order = opened.find(one => one.typ.includes('-command-'))
  assert.ok(wish !== undefined && order !== undefined)
  for (let at = 0; at < FORGERIES; at++) {
    const later = { ...wish.payload, generation: 1_000_000 + at }
    forged.push(await (await documentSigner(wish.kid, evil)).sign('desired', later))
    const now = commandOf(primary, { verb: 'switchover', args: {}, only: before })
    forged.push(await (await documentSigner(order.kid, evil)).sign('command', now))
  }
  // The worst first, then everything in a wild order, each text on every channel.
  const worst = forged.slice(-2 * FORGERIES)
  const wild = [...texts, ...forged].sort(() => Math.random() - 0.5)
  const all = [...worst, ...wild, '', '{', 'x'.repeat(100_000)]
  const epochs = new Set<number>()
  const endsAt = performance.now() + ATTACK_MS
  for (let at = 0; performance.now() < endsAt; at++) {
    for (const host of HOSTS) {
      const channel = downChannels[at % downChannels.length] ?? 'cmd'
      const text = all[(Math.floor(at / downChannels.length) + (host === 'a' ? 0 : 3)) % all.length] ?? ''
      await attacker.publishAsync(downTopic(identityOf(host), channel), text, { qos: 1, retain: at % 3 === 0 })
    }
    // Under the name of a host: the broker throws the real one out.
    if (at % 100 === 50) {
      const { host } = identityOf(HOSTS[at % 2] ?? 'a')
      const impostor = await connectBroker(lab, { clientId: host, as: await ownerCredentials(lab) })
      await impostor.endAsync(true)
    }
    if (at % 20 === 0) for (const host of HOSTS) epochs.add((await statuses(lab))[host]?.epoch ?? before.epoch)
  }
  await attacker.endAsync(true)
  assert.deepEqual([...epochs], [before.epoch])
  assert.equal(await untilProtected(lab), primary)
  assert.deepEqual(await presentOf(primary), before)
  assert.equal(await heldBy(primary), false)
  // Documents come by HTTPS as well: what the attacker emptied or overwrote is healed, and the link obeys again.
  await change({ vips: [vip!, { ...vip!, address: `${secondVip}/${LAN_PREFIX.v4}` }] })
  assert.deepEqual(
    Object.values(await untilSettled()).map(one => one.status),
    ['True', 'True'],
  )
})

test('nothing that was acknowledged was lost, and no two hosts served at one instant', async () => {
  const { writes, judgement } = await trial.end()
  for (const host of ['a', 'b'] as const) assert.deepEqual(writes[host].lost, [])
  assert.deepEqual(judgement.violations, [])
})

test('the pair is ended through the API without loss: the backup leaves with its data, the primary serves on, and both are made a pair again', async () => {
  const { api } = remote.plane
  const primary = await untilProtected(lab)
  const { etag } = await api.getPair({ params: { pair: remote.pair } })
  const begun = await api.unpair({
    params: { pair: remote.pair },
    body: { reason: 'moved' },
    ifMatch: etag!,
  })
  const done = await untilEnded(remote.plane, begun.body.id, 90_000)
  assert.equal(done.state, 'succeeded', done.message)
  const shown = await view()
  assert.deepEqual([shown.state, (await presentStatus(lab, primary)).serving], ['unpaired', true])
  assert.ok(existsSync(join(agentPaths(lab, otherNode(primary)).dataDir, 'PG_VERSION')))
  const { witnessAdmission: _givenByOperations, keyChange: _alsoGiven, ...settings } = shown.settings
  const again = await api.setUpPair({ body: { name: shown.name, hosts: remote.hosts, primary, settings } })
  const made = await untilEnded(remote.plane, again.body.operation.id, 90_000)
  assert.equal(made.state, 'succeeded', made.message)
  assert.equal(await untilProtected(lab), primary)
})
