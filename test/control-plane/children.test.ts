import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import mqtt from 'mqtt'
import postgres from 'postgres'
import { bootstrap } from '../../control-plane/entry/bootstrap.ts'
import { freePort } from '../../control-plane/entry/local/child.ts'
import { keepRunning, type Running, restartsMax } from '../../control-plane/entry/local/kept.ts'
import { startLocalPostgres } from '../../control-plane/entry/local/postgres.ts'
import { type RunningControlPlane, startControlPlane } from '../../control-plane/entry/node-server.ts'
import { getHost, retireHost } from '../../shared/contract/api/hosts.ts'
import { createOrganisation, getOrganisation, listOrganisations } from '../../shared/contract/api/organisations.ts'
import { health, ready } from '../../shared/contract/api/public.ts'
import { downTopic, upTopic } from '../../shared/contract/topics.ts'
import { until } from '../fixtures/until.ts'
import type { TestHost } from './support/host.ts'
import { adoptedPair, twoHosts } from './support/pair.ts'
import { ApiClient } from './support/route-client.ts'

/** The servers that the Node entry brings along, killed under it. */
let folder: string
let running: RunningControlPlane
const said: string[] = []
let gone: string | null = null

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-cp-'))
  chmodSync(folder, 0o711)
  running = await startControlPlane({
    dataDir: folder,
    listen: { address: '127.0.0.1', port: 0 },
    databaseUrl: null,
    broker: null,
    publicUrl: null,
    identityProviders: [],
    log: ({ level, message }) => said.push(`${level}: ${message}`),
  })
  void running.failed.then(why => {
    gone = why
  })
})
after(async () => {
  await running?.close()
  rmSync(folder, { recursive: true, force: true })
})

/** Of the program that was started for a file or folder of ours; its own children have other command lines. */
function pidOf(program: string, path: string): number {
  const found = readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .find(pid => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
        return words[0]?.endsWith(program) === true && words.includes(path)
      } catch {
        return false
      }
    })
  assert.ok(found !== undefined, `${program} does not run`)
  return Number(found)
}

const client = () => new ApiClient({ url: running.url, token: null })
const childOf = async (name: 'postgres' | 'mosquitto') =>
  (await client().call(health, {})).body.children.find(one => one.name === name)

test('a database that is killed is started again, and what was committed is there', async () => {
  const instance = new ApiClient({ url: running.url, token: running.tokens!.instance })
  const { body: made } = await instance.call(createOrganisation, { body: { name: 'before the crash' } })
  assert.deepEqual(await childOf('postgres'), { name: 'postgres', running: true, restarts: 0 })
  process.kill(pidOf('/postgres', join(folder, 'postgres', 'data')), 'SIGKILL')
  await until(async () => (await childOf('postgres'))?.restarts === 1, 60_000)
  await until(
    () =>
      client()
        .call(ready, {})
        .then(
          () => true,
          () => false,
        ),
    60_000,
  )
  const tenant = new ApiClient({ url: running.url, token: made.token })
  const { body } = await tenant.call(getOrganisation, {})
  assert.equal(body.name, 'before the crash')
  assert.ok(
    said.some(one => one.startsWith('warning') && /SIGKILL; it is started again in 250 ms \(1 of 6\)/.test(one)),
  )
  assert.equal(gone, null)
})

test('a broker that is killed is started again at the same address, with what it had not saved', async () => {
  const { a } = await adoptedPair({ ...running, instanceToken: running.tokens!.instance } as never)
  const topic = downTopic(a.identity, 'desired')
  process.kill(pidOf('mosquitto', join(folder, 'mosquitto', 'mosquitto.conf')), 'SIGKILL')
  await until(async () => (await childOf('mosquitto'))?.restarts === 1, 60_000)
  const { tls, url } = running.broker!
  const reader = mqtt.connect(url, {
    ca: tls!.authorityPem,
    cert: tls!.certificatePem,
    key: tls!.keyPem,
    protocolVersion: 5,
  })
  // It comes again by itself.
  reader.on('error', () => {})
  try {
    const retained: string[] = []
    reader.on('message', heard => retained.push(heard))
    await reader.subscribeAsync(topic, { qos: 1 })
    await until(async () => retained.includes(topic), 30_000)
  } finally {
    await reader.endAsync(true)
  }
  assert.equal(gone, null)
})

test('a host that was retired is not heard by the broker any more, nor reads there, with the certificate it still has', async () => {
  const { client: admin, a, b } = await twoHosts({ ...running, instanceToken: running.tokens!.instance } as never)
  const connected = async ({ identity, cloud }: TestHost) => {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const answer = await cloud.certificate(publicKey.export({ type: 'spki', format: 'der' }).toString('base64url'))
    assert.ok(answer.ok)
    const { certificate: cert, authority: ca } = answer.value
    const key = privateKey.export({ type: 'pkcs8', format: 'pem' })
    const host = await mqtt.connectAsync(running.broker!.url, { ca, cert, key, protocolVersion: 5 })
    const says = async (): Promise<boolean> =>
      host.publishAsync(upTopic(identity, 'presence'), '{"v":1,"state":"online","boot":1}', { qos: 1 }).then(
        packet => (packet as { reasonCode?: number } | undefined)?.reasonCode !== 0x87,
        () => false,
      )
    return { host, says }
  }
  const [one, other] = [await connected(a), await connected(b)]
  try {
    assert.deepEqual([await one.says(), await other.says()], [true, true])
    const params = { host: a.identity.host }
    const { etag } = await admin.call(getHost, { params })
    await admin.call(retireHost, { params, body: { reason: 'sold' }, ifMatch: etag! })
    await until(async () => !(await one.says()), 30_000)
    assert.equal(await other.says(), true)
    const { tls, url } = running.broker!
    const as = { ca: tls!.authorityPem, cert: tls!.certificatePem, key: tls!.keyPem, protocolVersion: 5 as const }
    const own = await mqtt.connectAsync(url, as)
    for (const { identity } of [a, b]) await own.publishAsync(downTopic(identity, 'cmd'), 'x', { qos: 1, retain: true })
    await own.endAsync(true)
    const heard: string[] = []
    for (const { host } of [one, other]) host.on('message', topic => heard.push(topic))
    await one.host.subscribeAsync(downTopic(a.identity, 'cmd'), { qos: 1 }).catch(() => {})
    await other.host.subscribeAsync(downTopic(b.identity, 'cmd'), { qos: 1 })
    await until(async () => heard.length > 0, 30_000)
    assert.deepEqual(heard, [downTopic(b.identity, 'cmd')])
  } finally {
    await Promise.all([one, other].map(({ host }) => host.endAsync(true)))
  }
})

test('whoever runs it gets another token at the next start after his has ended, and instances that start together make one', async () => {
  const { database, now } = running.deps
  assert.equal(await bootstrap(database, now()), null)
  const sql = postgres(running.adminUrl!.replace(/[^/]+$/, 'understudy'), { max: 1 })
  await sql`update api_token set expires_at = now() where organisation is null`
  await sql.end({ timeout: 1 })
  const made = await Promise.all(Array.from({ length: 4 }, () => bootstrap(database, now())))
  const [tokens, ...others] = made.filter(one => one !== null)
  assert.deepEqual([tokens?.admin, others], [null, []])
  const instance = new ApiClient({ url: running.url, token: tokens?.instance ?? null })
  assert.ok((await instance.call(listOrganisations, {})).body.data.length > 0)
})

test('a database finds another port where somebody was faster at the first', async () => {
  const faster = createServer()
  faster.listen(0, '127.0.0.1')
  await once(faster, 'listening')
  const { port } = faster.address() as AddressInfo
  const place = mkdtempSync(join(tmpdir(), 'understudy-cp-'))
  chmodSync(place, 0o711)
  const picked = [port, await freePort()]
  try {
    const database = await startLocalPostgres(place, { pick: async () => picked.shift()! })
    assert.notEqual(database.port, port)
    await database.close()
  } finally {
    faster.close()
    rmSync(place, { recursive: true, force: true })
  }
})

/** A server that ends when it is told to. */
function fake() {
  const ends: ((why: string) => void)[] = []
  const start = async (): Promise<Running> => {
    const { promise: ended, resolve } = Promise.withResolvers<string>()
    ends.push(resolve)
    return { ended, close: async () => resolve('closed') }
  }
  const pauses: number[] = []
  const pause = async (ms: number): Promise<void> => void pauses.push(ms)
  let nowMs = 0
  const elapse = (ms: number): void => {
    nowMs += ms
  }
  return { ends, start, pauses, pause, nowMs: () => nowMs, elapse }
}

test('a server that ends again and again is started ever later, and given up with the reason', async () => {
  const { ends, pauses, elapse, ...server } = fake()
  const lines: string[] = []
  const log = ({ message }: { message: string }): void => void lines.push(message)
  const kept = await keepRunning({ name: 'postgres', log, ...server })
  for (let times = 1; times <= restartsMax; times++) {
    ends.at(-1)!('the disk is full')
    await until(async () => ends.length === times + 1)
  }
  assert.deepEqual(pauses, [250, 500, 1000, 2000, 4000, 8000])
  assert.deepEqual([kept.health().running, kept.health().restarts], [true, restartsMax])
  ends.at(-1)!('the disk is full')
  const why = await kept.failed
  assert.match(why, /postgres ended 7 times in a row and is not started again; the last time: the disk is full/)
  assert.equal(lines.at(-1), why)
  assert.equal(kept.health().running, false)
})

test('a server that ran well for long is counted anew, and one that is closed is not started again', async () => {
  const { ends, pauses, elapse, ...server } = fake()
  const kept = await keepRunning({ name: 'mosquitto', log: () => {}, ...server })
  for (const times of [1, 2, 3]) {
    elapse(11 * 60_000)
    ends.at(-1)!('a crash')
    await until(async () => ends.length === times + 1)
  }
  assert.deepEqual(pauses, [250, 250, 250])
  await kept.close()
  await new Promise(resolve => setImmediate(resolve))
  assert.equal(ends.length, 4)
})
