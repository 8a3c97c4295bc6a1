import assert from 'node:assert/strict'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Config, parseConfig } from '../../node-agent/config.ts'
import {
  certificateForOther,
  ensureCertificates,
  newCertificate,
  tlsPaths,
  writeCertificates,
} from '../../node-agent/pair/keys.ts'
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
