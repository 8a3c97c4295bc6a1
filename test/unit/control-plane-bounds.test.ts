import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { DrizzleQueryError } from 'drizzle-orm'
import type { MqttClient } from 'mqtt'
import { networkOf } from '../../control-plane/auth/bearer.ts'
import { makePrivateJwk, makeSigningSecrets } from '../../control-plane/auth/signing-keys.ts'
import { issueCertificate, makeAuthority } from '../../control-plane/auth/x509.ts'
import { Ingest } from '../../control-plane/broker/ingest.ts'
import { Shares, shareBytesMax, shareBytesPerSecond } from '../../control-plane/broker/shares.ts'
import { openDatabase } from '../../control-plane/db/client.ts'
import type { Deps } from '../../control-plane/deps.ts'
import { identityProvidersOf, listenOf, settingsOf, whyUnreached } from '../../control-plane/entry/environment.ts'
import { occupy } from '../../control-plane/entry/local/occupied.ts'
import { startSweeping } from '../../control-plane/entry/long-lived.ts'
import { faultLine, faultText } from '../../control-plane/fault-text.ts'
import { classify } from '../../control-plane/http/problem.ts'
import { UnderWay } from '../../control-plane/http/under-way.ts'
import { heartbeatKeyOf, heartbeatMac } from '../../shared/contract/heartbeat-mac.ts'
import { upTopic } from '../../shared/contract/topics.ts'
import { ulid } from '../../shared/ids.ts'
import { until } from '../fixtures/until.ts'

test('a host that says too much over the broker is not taken until time has given it a share again, and others are', () => {
  let nowMs = 0
  const shares = new Shares(() => nowMs)
  let taken = 0
  while (shares.take('a', 10_000)) taken++
  assert.ok(taken > 190 && taken <= shareBytesMax / 10_000, `${taken}`)
  assert.ok(shares.take('b', 10_000))
  nowMs += 1_000
  let later = 0
  while (shares.take('a', 10_000)) later++
  assert.ok(later >= 11 && later <= shareBytesPerSecond / 10_000 + 1, `${later}`)
  nowMs -= 3_600_000
  assert.equal(shares.take('a', 10_000), false, 'a clock that was set back gives nothing')
})

test('whoever guesses from ever other addresses of one IPv6 network is one, and those of IPv4 are each their own', () => {
  const [one, other] = ['2001:db8:0:7::1', '2001:db8:0:7:ffff:1:2:3'].map(networkOf)
  assert.equal(one, other)
  assert.notEqual(networkOf('2001:db8:0:8::1'), one)
  assert.notEqual(networkOf('::ffff:192.0.2.1'), networkOf('::ffff:192.0.2.2'))
  assert.equal(networkOf('::ffff:192.0.2.1'), networkOf('192.0.2.1'))
})

test('keys of an identity provider come over https, or from this machine', () => {
  const providers = (jwksUrl: string) =>
    identityProvidersOf(JSON.stringify([{ issuer: 'https://id.example', audience: 'understudy', jwksUrl }]))
  assert.throws(() => providers('http://id.example/jwks'), /OIDC_PROVIDERS: 0\.jwksUrl: must begin with https:\/\//)
  for (const url of ['https://id.example/jwks', 'http://127.0.0.1:9/jwks', 'http://[::1]/jwks'])
    assert.equal(providers(url)[0]?.jwksUrl, url)
})

test('the log names the statement that failed, and none of its values, however large they are', () => {
  const cause = new Error('duplicate key value violates unique constraint "host_pkey"')
  const error = new DrizzleQueryError('insert into host values ($1)', ['secret'.repeat(100_000)], cause)
  const text = faultText(error)
  assert.match(text, /^duplicate key value.* in: insert into host values \(\$1\)\n\s+at /)
  assert.ok(!text.includes('secret') && text.length <= 4000)
  assert.equal(
    faultLine(error),
    'duplicate key value violates unique constraint "host_pkey" in: insert into host values ($1)',
  )
  assert.ok(faultText(new Error('x'.repeat(1_000_000))).length <= 4000)
})

test('hosts and tooling are told where the broker is, and not the password by which the control plane enters it', async () => {
  const secrets = await makeSigningSecrets(await makePrivateJwk(), { version: 1, now: new Date() })
  const env = {
    DATABASE_URL: 'postgres://me:secret@127.0.0.1/db',
    PUBLIC_URL: 'https://cp.example/',
    SIGNING_SECRETS: JSON.stringify(secrets),
    MQTT_URL: 'mqtts://control-plane:hunter2@broker.example:8883',
  }
  const { mqttUrl, brokerUrl, publicUrl } = settingsOf(env)
  assert.deepEqual([mqttUrl, brokerUrl, publicUrl], [env.MQTT_URL, 'mqtts://broker.example:8883', 'https://cp.example'])
  const { mqttUrl: none, brokerUrl: nowhere } = settingsOf({ ...env, MQTT_URL: 'none' })
  assert.deepEqual([none, nowhere], [null, null])
  const wrong: [Partial<typeof env>, RegExp][] = [
    [{ SIGNING_SECRETS: 'hunter2' }, /^SIGNING_SECRETS is not as /],
    [{ DATABASE_URL: 'hunter2' }, /^DATABASE_URL is no address of a database/],
    [{ MQTT_URL: 'hunter2' }, /^MQTT_URL is no address of a broker; .* or "none" where/],
    [{ PUBLIC_URL: 'cp.example' }, /^PUBLIC_URL is cp\.example; write /],
  ]
  for (const [part, says] of wrong)
    assert.throws(
      () => settingsOf({ ...env, ...part }),
      (error: Error) => says.test(error.message) && !error.message.includes('hunter2'),
    )
  assert.deepEqual(listenOf('[::1]:7480'), { address: '::1', port: 7480 })
  for (const text of ['7480', 'localhost:7480', '127.0.0.1:70000'])
    assert.throws(() => listenOf(text), /^Error: LISTEN is .*; write it as address:port/)
  const unreached = (text: string, url: string) => whyUnreached({ listen: listenOf(text), publicUrl: url })
  assert.match(unreached('0.0.0.0:7480', 'http://0.0.0.0:7480') ?? '', /write in LISTEN the address/)
  assert.match(unreached('127.0.0.1:7480', 'https://cp.example') ?? '', /come to https:\/\/cp\.example/)
  assert.equal(unreached('10.0.0.5:7480', 'http://10.0.0.5:7480'), null)
  assert.equal(unreached('127.0.0.1:7480', 'http://127.0.0.1:7480'), null)
})

test('a sweep that takes long is not joined by the next one', async () => {
  let now = 0
  let most = 0
  let begun = 0
  const { promise, resolve: go } = Promise.withResolvers<void>()
  const work = async (): Promise<void> => {
    begun++
    most = Math.max(most, ++now)
    await promise
    now--
  }
  const sweeping = startSweeping(work, { log: () => {}, everyMs: 1 })
  await until(async () => begun > 0, 10_000)
  await new Promise(resolve => setTimeout(resolve, 20))
  go()
  await until(async () => begun > 1, 10_000)
  await sweeping.stop()
  assert.equal(most, 1)
})

test('a database that is away is said once, and not for each word of each host that is lost meanwhile', async () => {
  const { database, close } = openDatabase({ url: 'postgres://nobody:none@127.0.0.1:1/none', max: 1 })
  const said: string[] = []
  const heartbeatSecret = new Uint8Array(32)
  const log: Deps['log'] = ({ message }) => void said.push(message)
  const deps = { database, heartbeatSecret, now: () => new Date(), log } as unknown as Deps
  const ingest = new Ingest(deps, new EventEmitter() as unknown as MqttClient)
  const organisation = ulid(Date.now())
  for (let at = 0; at < 300; at++) {
    const host = ulid(Date.now())
    const heartbeat = {
      ...({ v: 2, boot: 1, seq: at, role: 'primary', epoch: 1, observedGeneration: 0 } as const),
      at: Date.now(),
    }
    const mac = heartbeatMac(heartbeatKeyOf(heartbeatSecret, host), { host, heartbeat })
    ingest.take(upTopic({ organisation, host }, 'hb'), Buffer.from(JSON.stringify({ ...heartbeat, mac })))
  }
  await ingest.close()
  await close()
  assert.deepEqual([ingest.counts.dropped, ingest.counts.refused], [300, 0])
  assert.equal(said.length, 1, said.join('\n'))
  assert.match(said[0] ?? '', /what hosts say is not stored until it answers/)
})

test('what the database will do again is no fault of ours: the caller is told to try again', () => {
  const codeOf = (code: string) => classify(Object.assign(new Error('x'), { cause: { code } })).code
  for (const code of ['57P01', 'ECONNREFUSED', '55P03', '57014', '25006', '53100', '53300'])
    assert.equal(codeOf(code), 'busy', code)
  assert.equal(codeOf('23505'), 'internal')
})

test('a broker that listens on an address of IPv6 has a certificate that names it', async () => {
  const authority = await makeAuthority('test', new Date())
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  for (const value of ['::1', '2001:db8::7', '192.0.2.1']) {
    const request = {
      ...{ commonName: 'broker', use: 'server' as const, names: [{ kind: 'ip' as const, value }] },
      publicKey: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
      notAfter: new Date(Date.now() + 60_000),
    }
    assert.equal(new X509Certificate(await issueCertificate(authority, request, new Date())).checkIP(value), value)
  }
})

test('a folder is one control plane’s as long as that one lives, however it ends', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-occupied-'))
  const module = JSON.stringify(import.meta.resolve('../../control-plane/entry/local/occupied.ts'))
  const script = `const { occupy } = await import(${module}); occupy(${JSON.stringify(folder)}); console.log('held'); setInterval(() => {}, 1000)`
  const other = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.after(() => {
    other.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  })
  await once(other.stdout, 'data')
  assert.throws(
    () => occupy(folder),
    new RegExp(`is in use by the control plane that runs as process ${other.pid}: stop`),
  )
  const ended = once(other, 'exit')
  other.kill('SIGKILL')
  await ended
  const leave = occupy(folder)
  assert.throws(() => occupy(folder), /is in use/)
  leave()
  occupy(folder)()
})

test('each owner has a number of places, and gives each back once', () => {
  const places = new UnderWay(2)
  const leave = places.take('one')
  assert.ok(leave !== null && places.take('one') !== null && places.take('other') !== null)
  assert.equal(places.take('one'), null)
  leave()
  leave()
  assert.notEqual(places.take('one'), null)
  assert.equal(places.take('one'), null)
})
