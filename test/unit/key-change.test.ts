import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject, randomBytes, X509Certificate } from 'node:crypto'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type Config, parseConfig } from '../../node-agent/config.ts'
import { KeyChange } from '../../node-agent/control/key-change.ts'
import { offerBytesMax, readOffer } from '../../node-agent/control/key-offer.ts'
import type { PairWish } from '../../node-agent/control/wished-config.ts'
import { certificatesOf } from '../../node-agent/keys/certificates.ts'
import { authoritiesInForce } from '../../node-agent/pair/authority.ts'
import { keysOf, readKeyRing } from '../../node-agent/pair/key-ring.ts'
import {
  ensureCertificates,
  newCertificate,
  replaceSecrets,
  tlsPaths,
  writeCertificates,
  writePairKey,
} from '../../node-agent/pair/keys.ts'
import type { PrivateJwk } from '../../shared/contract/signing.ts'
import type { SealingKey } from '../../shared/sealing.ts'
import { exampleConfig } from './example-config.ts'

/** Two hosts of a pair with their enrolments, as the wish names them to each other. */
const jwkOf = <Key>({ privateKey }: { privateKey: KeyObject }): Key => privateKey.export({ format: 'jwk' }) as Key

async function hosts(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-key-change-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const oldKey = randomBytes(32)
  const made = await Promise.all(
    (['a', 'b'] as const).map(async node => {
      const stateDir = join(folder, node)
      mkdirSync(join(stateDir, 'control'), { recursive: true })
      const pairKeyFile = join(stateDir, 'pair.key')
      await writePairKey(pairKeyFile, oldKey.toString('base64url'))
      const config: Config = parseConfig(
        JSON.stringify({ ...exampleConfig, node, stateDir, pairKeyFile }),
        'agent.json',
      )
      const identity = {
        host: `host-${node}`,
        key: jwkOf<PrivateJwk>(generateKeyPairSync('ed25519')),
        sealingKey: jwkOf<SealingKey>(generateKeyPairSync('x25519')),
      }
      return { config, identity }
    }),
  )
  const [a, b] = [made[0]!, made[1]!]
  const { authority, other } = await ensureCertificates(a.config)
  await writeCertificates(b.config, { authorityPem: authority.certificatePem, authorityKeyPem: null, ...other })
  const wishOf = (peer: typeof a): PairWish =>
    ({
      id: 'pair-1',
      peer: {
        host: peer.identity.host,
        name: 'other',
        publicKey: peer.identity.key.x,
        sealingKey: peer.identity.sealingKey.x,
      },
    }) as PairWish
  const part = (host: typeof a, peer: typeof a) => ({
    config: host.config,
    wish: wishOf(peer),
    keys: new KeyChange({ identity: host.identity }),
  })
  return { oldKey, authority: authority.certificatePem, a: part(a, b), b: part(b, a) }
}

const serialOf = (config: Config): string =>
  new X509Certificate(readFileSync(tlsPaths(config).certificate)).serialNumber
const name = 'change-1'

/** Whether the certificate of one host is taken by the other one, as TLS would. */
const isTaken = (of: Config, by: Config): boolean => {
  const own = new X509Certificate(readFileSync(tlsPaths(of).certificate))
  return certificatesOf(readFileSync(tlsPaths(by).authority, 'utf8')).some(pem =>
    own.verify(new X509Certificate(pem).publicKey),
  )
}

test('the host that goes first makes the key, and only the other host can read what it offers', async t => {
  const { oldKey, authority, a, b } = await hosts(t)
  const before = { a: serialOf(a.config), b: serialOf(b.config) }
  const bothTaken = (): void => {
    assert.deepEqual([isTaken(a.config, b.config), isTaken(b.config, a.config)], [true, true])
  }
  await b.keys.begin(b.config, { wish: b.wish, name, offer: null, usesNewestKey: false })
  const [newKey, kept] = keysOf(readKeyRing(b.config.pairKeyFile))
  assert.deepEqual(kept, oldKey)
  const offer = readOffer(b.config.stateDir)!
  assert.equal(offer.includes(newKey!.toString('base64url')), false)
  assert.ok(offer.length < offerBytesMax)
  const next = b.keys.nextAuthority(b.config)
  // A repeated begin, as after a crash, makes no other key.
  await b.keys.begin(b.config, { wish: b.wish, name, offer: null, usesNewestKey: false })
  assert.deepEqual(keysOf(readKeyRing(b.config.pairKeyFile)), [newKey, oldKey])
  const again = readOffer(b.config.stateDir)!
  await a.keys.begin(a.config, { wish: a.wish, name, offer: again, usesNewestKey: false })
  assert.deepEqual(keysOf(readKeyRing(a.config.pairKeyFile)), [newKey, oldKey])
  assert.equal(a.keys.nextAuthority(a.config), next)
  for (const host of [b, a]) {
    assert.notEqual(authoritiesInForce(host.config).shown, next)
    await assert.rejects(newCertificate(a.config, 'this host'), /ask again when that has ended/)
    assert.equal(await host.keys.certify(host.config), true)
    assert.equal(await host.keys.certify(host.config), false, 'it has one')
    assert.equal(authoritiesInForce(host.config).shown, next)
    bothTaken()
  }
  for (const host of [b, a]) {
    assert.equal(host.keys.isOpen(host.config), true)
    await host.keys.settle(host.config)
    assert.deepEqual(keysOf(readKeyRing(host.config.pairKeyFile)), [newKey])
    assert.notEqual(serialOf(host.config), before[host.config.node])
    assert.equal(host.keys.nextAuthority(host.config), null)
    assert.equal(certificatesOf(readFileSync(tlsPaths(host.config).authority, 'utf8')).length, 1)
    bothTaken()
    assert.equal(existsSync(`${tlsPaths(host.config).key}.before`), false)
  }
  assert.equal(readOffer(b.config.stateDir), null)
  const old = new X509Certificate(authority)
  assert.equal(new X509Certificate(readFileSync(tlsPaths(a.config).certificate)).verify(old.publicKey), false)
  // Whoever joins later gets a certificate of the new one, from whichever host is left.
  for (const { config } of [a, b]) {
    const { authority: now, other } = await ensureCertificates(config)
    assert.ok(new X509Certificate(other.certificatePem).verify(new X509Certificate(now.certificatePem).publicKey))
  }
})

test('a change that is taken back leaves the key and the certificate as they were', async t => {
  const { oldKey, a, b } = await hosts(t)
  const before = serialOf(b.config)
  for (const host of [b, a]) {
    const offer = host === b ? null : readOffer(b.config.stateDir)
    await host.keys.begin(host.config, { wish: host.wish, name, offer, usesNewestKey: false })
    await host.keys.certify(host.config)
  }
  assert.notEqual(serialOf(b.config), before)
  await b.keys.takeBack(b.config)
  assert.ok(isTaken(a.config, b.config) && isTaken(b.config, a.config), 'the other one shows the new one still')
  assert.equal(b.keys.nextAuthority(b.config), null)
  assert.deepEqual(keysOf(readKeyRing(b.config.pairKeyFile)), [oldKey])
  assert.equal(serialOf(b.config), before)
  assert.equal(b.keys.isOpen(b.config), false)
})

test('what the other host is told of the authorities is what the database has, and not what its files are to be', async t => {
  const { b } = await hosts(t)
  const folder = join(b.config.stateDir, 'postgres')
  mkdirSync(folder)
  const start = (): void => {
    const { authority, certificate } = tlsPaths(b.config)
    copyFileSync(authority, join(folder, 'ca.crt'))
    copyFileSync(certificate, join(folder, 'server.crt'))
  }
  start()
  const before = authoritiesInForce(b.config)
  await b.keys.begin(b.config, { wish: b.wish, name, offer: null, usesNewestKey: false })
  const next = b.keys.nextAuthority(b.config)!
  assert.deepEqual([authoritiesInForce(b.config), b.keys.isInForce(b.config)], [before, false])
  start()
  const both = [before.shown, next]
  assert.deepEqual([authoritiesInForce(b.config), b.keys.isInForce(b.config)], [{ ...before, taken: both }, true])
  await b.keys.certify(b.config)
  assert.deepEqual([authoritiesInForce(b.config).shown, b.keys.isInForce(b.config)], [before.shown, false])
  start()
  assert.deepEqual([authoritiesInForce(b.config), b.keys.isInForce(b.config)], [{ shown: next, taken: both }, true])
})

test('changes that came to nothing leave no more than a few authorities, and that of the certificates in use', async t => {
  const { authority, b } = await hosts(t)
  for (const change of [1, 2, 3, 4, 5, 6, 7, 8, 9].map(of => `change-${of}`)) {
    await b.keys.begin(b.config, { wish: b.wish, name: change, offer: null, usesNewestKey: false })
    await b.keys.takeBack(b.config)
  }
  const trusted = certificatesOf(readFileSync(tlsPaths(b.config).authority, 'utf8'))
  assert.deepEqual([trusted.length, `${trusted[0]}\n`], [8, authority])
})

test('an offer that the other host of the wish did not sign, of another change, or sealed for somebody else, changes nothing', async t => {
  const { oldKey, a, b } = await hosts(t)
  const before = serialOf(a.config)
  const begin = (offer: string, of = name) =>
    a.keys.begin(a.config, { wish: a.wish, name: of, offer, usesNewestKey: false })
  await a.keys.begin(a.config, { wish: a.wish, name: 'forged', offer: null, usesNewestKey: false })
  const own = readOffer(a.config.stateDir)!
  await a.keys.takeBack(a.config)
  await b.keys.begin(b.config, { wish: b.wish, name, offer: null, usesNewestKey: false })
  const offer = readOffer(b.config.stateDir)!
  const elsewhere = {
    ...b.wish,
    peer: { ...b.wish.peer, sealingKey: jwkOf<SealingKey>(generateKeyPairSync('x25519')).x },
  }
  await b.keys.begin(b.config, { wish: elsewhere, name, offer: null, usesNewestKey: false })
  const toAnother = readOffer(b.config.stateDir)!
  const refusals: [string, string, RegExp][] = [
    ['', name, /was not signed by host other/],
    [own, 'forged', /was not signed by host other/],
    [offer, 'change-2', /offers a key of change change-1, and the wish is for change-2/],
    [toAnother, name, /was not sealed for this host/],
  ]
  for (const [text, of, why] of refusals) await assert.rejects(begin(text, of), why)
  assert.deepEqual(keysOf(readKeyRing(a.config.pairKeyFile)), [oldKey])
  assert.equal(serialOf(a.config), before)
})

test('a newer change that comes in the middle keeps the key by which the hosts talk', async t => {
  const { oldKey, b } = await hosts(t)
  const begin = (of: string, usesNewestKey: boolean) =>
    b.keys.begin(b.config, { wish: b.wish, name: of, offer: null, usesNewestKey })
  await begin('one', false)
  await begin('two', false)
  const [two, common] = keysOf(readKeyRing(b.config.pairKeyFile))
  assert.deepEqual(common, oldKey)
  await begin('three', true)
  assert.deepEqual(keysOf(readKeyRing(b.config.pairKeyFile))[1], two)
})

test('a host that goes on without a lost one has a key and an authority that the lost one does not know, and another machine can join it', async t => {
  const { oldKey, a, b } = await hosts(t)
  const lost = new X509Certificate(readFileSync(tlsPaths(b.config).certificate))
  await a.keys.begin(a.config, { wish: a.wish, name, offer: null, usesNewestKey: false })
  await a.keys.certify(a.config)
  await replaceSecrets(a.config)
  // The change that was under way is given up, as its time is over.
  await a.keys.takeBack(a.config)
  const [key, ...others] = keysOf(readKeyRing(a.config.pairKeyFile))
  assert.deepEqual([key?.length, others, key?.equals(oldKey)], [32, [], false])
  const { authority, other } = await ensureCertificates(a.config)
  const made = new X509Certificate(authority.certificatePem)
  assert.equal(readFileSync(tlsPaths(a.config).authority, 'utf8'), authority.certificatePem)
  const own = new X509Certificate(readFileSync(tlsPaths(a.config).certificate))
  assert.deepEqual(
    [own, new X509Certificate(other.certificatePem), lost].map(one => one.verify(made.publicKey)),
    [true, true, false],
  )
})
