import assert from 'node:assert/strict'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Config, parseConfig } from '../../node-agent/config.ts'
import {
  daysLeft,
  leafDays,
  makeHostCertificate,
  prolongAuthority,
  writeKeyAndCertificate,
} from '../../node-agent/keys/certificates.ts'
import { openssl } from '../../node-agent/keys/openssl.ts'
import { certificateEnds, certificateTrouble } from '../../node-agent/pair/certificate-ends.ts'
import {
  certificateForOther,
  ensureCertificates,
  newCertificate,
  tlsPaths,
  writeCertificates,
} from '../../node-agent/pair/keys.ts'
import type { ClusterSpec } from '../../node-agent/postgres/cluster.ts'
import { refreshAccess } from '../../node-agent/postgres/config-files.ts'
import { exampleConfig } from './example-config.ts'

test('a host with the key of the pair’s authority makes a new certificate for either; both are of the authority that both hosts have', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-certificates-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const configOf = (node: 'a' | 'b'): Config => {
    const stateDir = join(folder, node)
    mkdirSync(stateDir)
    return parseConfig(JSON.stringify({ ...exampleConfig, node, stateDir }), 'agent.json')
  }
  const [a, b] = [configOf('a'), configOf('b')]
  const { authority: theirs, other } = await ensureCertificates(a)
  const told = { authorityPem: theirs.certificatePem, ...other }
  await writeCertificates(b, { ...told, authorityKeyPem: null })
  assert.equal(await newCertificate(b, 'this host'), null, 'it was given no key of the authority')
  await assert.rejects(certificateForOther(b), /does not have the key of the pair’s authority/)
  await writeCertificates(b, { ...told, authorityKeyPem: theirs.keyPem })
  const authority = new X509Certificate(readFileSync(tlsPaths(b).authority))
  for (const [made, name, address] of [
    [await newCertificate(a, 'this host'), 'a', '10.9.0.1'],
    [await certificateForOther(a), 'b', '10.9.0.2'],
  ] as const) {
    assert.ok(made !== null)
    const certificate = new X509Certificate(made.certificatePem)
    assert.ok(certificate.verify(authority.publicKey))
    assert.match(certificate.subject, new RegExp(`CN=understudy-orders-${name}$`))
    assert.equal(certificate.checkIP(address), address)
    assert.ok(made.certificatePem !== readFileSync(tlsPaths(a).certificate, 'utf8'))
  }
})

const dayMs = 86_400_000

test('an authority that a new certificate would outlast is prolonged by each host itself, and what it signed before stays valid with either', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-prolonged-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const config = parseConfig(JSON.stringify({ ...exampleConfig, stateDir: folder }), 'agent.json')
  const { authority } = await ensureCertificates(config)
  const paths = tlsPaths(config)
  const shortLived = await prolongAuthority(folder, authority, 100)
  writeFileSync(paths.authority, shortLived.certificatePem)
  writeFileSync(join(folder, 'theirs.pem'), shortLived.certificatePem)
  const made = await newCertificate(config, 'this host')
  assert.ok(made !== null)
  assert.ok(daysLeft(readFileSync(paths.authority, 'utf8')) > leafDays)
  writeFileSync(join(folder, 'made.pem'), made.certificatePem)
  for (const by of [paths.authority, join(folder, 'theirs.pem')])
    for (const one of [paths.certificate, join(folder, 'made.pem')]) await openssl(['verify', '-CAfile', by, one])
})

test('sixty days before the end of a certificate the host says which, when and what helps, and a new one ends it', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-ends-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const config = parseConfig(JSON.stringify({ ...exampleConfig, stateDir: folder }), 'agent.json')
  const { authority } = await ensureCertificates(config)
  const paths = tlsPaths(config)
  const troubleIn = async (days: number, isOwn = false): Promise<string> =>
    certificateTrouble(await certificateEnds(config), { nowMs: Date.now() + days * dayMs, isOwn })
  assert.equal(await troubleIn(0), '')
  assert.equal(await troubleIn(leafDays - 62), '')
  assert.match(await troubleIn(leafDays - 58), /^the certificate of this host ends on 20..-..-.., .*change certificate/)
  assert.match(await troubleIn(leafDays + 1), /^the certificate of this host ended on 20/)
  assert.match(await troubleIn(leafDays - 58, true), /replace the files that postgres.tls names/)
  assert.match(await troubleIn(-3), /is valid from 20.* on, and the clock of this host says 20.*: set the clock/)
  const name = { commonName: 'understudy-orders-a', addresses: ['10.9.0.1'] }
  await writeKeyAndCertificate(paths, await makeHostCertificate(folder, { authority, name, days: 30 }))
  assert.match(await troubleIn(0), /^the certificate of this host ends/)
  // What the files say is in force from the next start of the agent on.
  mkdirSync(join(folder, 'postgres'))
  for (const [file, from] of [
    ['ca.crt', paths.authority],
    ['server.crt', paths.certificate],
  ] as const)
    copyFileSync(from, join(folder, 'postgres', file))
  const made = await newCertificate(config, 'this host')
  assert.ok(made !== null)
  await writeKeyAndCertificate(paths, made)
  assert.match(await troubleIn(0), /^the certificate of this host ends/)
  copyFileSync(paths.certificate, join(folder, 'postgres', 'server.crt'))
  assert.equal(await troubleIn(0), '')
  writeFileSync(join(folder, 'postgres', 'ca.crt'), (await prolongAuthority(folder, authority, 40)).certificatePem)
  assert.match(await troubleIn(0), /^the certificate of the pair’s authority ends/)
})

test('the certificate that a token brings along is made anew once half of its time is over', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-kept-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const config = parseConfig(JSON.stringify({ ...exampleConfig, stateDir: folder }), 'agent.json')
  const { authority, other } = await ensureCertificates(config)
  assert.deepEqual((await ensureCertificates(config)).other, other, 'asked again it is the same token')
  const name = { commonName: 'understudy-orders-b', addresses: ['10.9.0.2'] }
  const kept = { key: join(folder, 'tls', 'b.key'), certificate: join(folder, 'tls', 'b.pem') }
  await writeKeyAndCertificate(kept, await makeHostCertificate(folder, { authority, name, days: 300 }))
  const { certificatePem } = (await ensureCertificates(config)).other
  assert.ok(daysLeft(certificatePem) > 800)
  assert.equal(readFileSync(kept.certificate, 'utf8'), certificatePem)
})

test('a set-up that was cut off between a key and its certificate makes both anew', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-cut-off-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const config = parseConfig(JSON.stringify({ ...exampleConfig, stateDir: folder }), 'agent.json')
  const { authority } = await ensureCertificates(config)
  const { certificate } = tlsPaths(config)
  rmSync(certificate)
  await ensureCertificates(config)
  const made = new X509Certificate(readFileSync(certificate))
  assert.ok(made.verify(new X509Certificate(authority.certificatePem).publicKey))
  assert.ok(made.checkPrivateKey(createPrivateKey(readFileSync(tlsPaths(config).key))))
})

test('a new certificate that was cut off between its key and itself belongs to its key when the database is given them', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-between-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const config = parseConfig(JSON.stringify({ ...exampleConfig, stateDir: folder }), 'agent.json')
  await ensureCertificates(config)
  const paths = tlsPaths(config)
  const confDir = join(folder, 'postgres')
  const tls = { certFile: paths.certificate, keyFile: paths.key, caFile: paths.authority }
  const user = { name: 'postgres', uid: process.getuid!(), gid: process.getgid!() }
  const known: Partial<ClusterSpec> = {
    confDir,
    dataDir: folder,
    peerAddresses: ['10.9.0.2'],
    superuser: 'postgres',
    user,
    tls,
  }
  const spec = known as ClusterSpec
  mkdirSync(confDir)
  await refreshAccess(spec, [])
  const fits = (key: string, certificate: string): boolean =>
    new X509Certificate(readFileSync(certificate)).checkPrivateKey(createPrivateKey(readFileSync(key)))
  const made = await newCertificate(config, 'this host')
  assert.ok(made !== null)
  // In the place of a kill, or of a disk that is full by then.
  mkdirSync(`${paths.certificate}.tmp`)
  await assert.rejects(writeKeyAndCertificate(paths, made))
  rmSync(`${paths.certificate}.tmp`, { recursive: true })
  assert.equal(fits(paths.key, paths.certificate), false)
  await refreshAccess(spec, [])
  assert.ok(fits(join(confDir, 'server.key'), join(confDir, 'server.crt')))
  assert.equal(readFileSync(join(confDir, 'server.crt'), 'utf8'), made.certificatePem)
  assert.equal(existsSync(`${paths.key}.with-certificate.json`), false)
})
