import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type Config, parseConfig } from '../../node-agent/config.ts'
import { makeHostKeyPem } from '../../node-agent/keys/host-key.ts'
import {
  ensureCertificates,
  ensureHostKey,
  tlsPaths,
  writeCertificates,
  writePairKey,
} from '../../node-agent/pair/keys.ts'
import { beginPair, joinPair, takeToken } from '../../node-agent/pair/set-up.ts'
import { type Setup, writeSetup } from '../../node-agent/pair/setup-file.ts'
import { decodeToken } from '../../node-agent/pair/token.ts'
import { encodeRecord } from '../../node-agent/state-file/record.ts'
import { stateFormat, stateName } from '../../node-agent/state-file/state-file.ts'
import { emptyDurable } from '../fixtures/durable.ts'
import { exampleConfig } from './example-config.ts'

/** Host b, which joined, up to its store. */
async function joinedHost(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-join-token-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const binDir = join(folder, 'bin')
  mkdirSync(binDir)
  writeFileSync(join(binDir, 'postgres'), '#!/bin/sh\necho "postgres (PostgreSQL) 15.14"\n')
  chmodSync(join(binDir, 'postgres'), 0o755)
  const configOf = (node: 'a' | 'b'): Config => {
    const stateDir = join(folder, node)
    mkdirSync(stateDir)
    const keys = { pairKeyFile: join(stateDir, 'pair.key'), hostKeyFile: join(stateDir, 'host.key') }
    const postgres = { ...exampleConfig.postgres, binDir }
    return parseConfig(JSON.stringify({ ...exampleConfig, node, stateDir, ...keys, postgres }), 'agent.json')
  }
  const [a, b] = [configOf('a'), configOf('b')]
  const keyOfA = makeHostKeyPem()
  const { authority, other } = await ensureCertificates(a)
  await writePairKey(b.pairKeyFile, Buffer.alloc(32, 7).toString('base64url'))
  await ensureHostKey(b.hostKeyFile)
  const tls = { authorityPem: authority.certificatePem, authorityKeyPem: authority.keyPem, ...other }
  await writeCertificates(b, tls)
  const setup: Setup = {
    ...{ pair: 'orders', node: 'b', part: 'joins', admissionNonce: null, witnessInc: 'inc-w-1' },
    otherHostKeyPem: keyOfA,
  }
  const ask = () =>
    beginPair({
      ...{ config: b, progress: assert.fail, prepareDatabase: assert.fail, erase: null },
      ...{ enrolmentToken: null, enrolled: null },
    })
  return { b, keyOfA, authority, setup, ask }
}

test('a host that joined its pair has another machine join in the place of the one that began it, which gets that one’s keys', async t => {
  const { b, keyOfA, authority, setup, ask } = await joinedHost(t)
  await writeSetup(b.stateDir, setup)
  await assert.rejects(ask(), /host b is no member of pair orders: it has to join first/)
  writeFileSync(join(b.stateDir, stateName), encodeRecord(stateFormat, emptyDurable))
  await writeSetup(b.stateDir, { ...setup, otherHostKeyPem: '' })
  await assert.rejects(ask(), /joined pair orders by a token that did not let it have others join/)
  await writeSetup(b.stateDir, setup)
  const token = decodeToken(await ask())
  assert.ok(token !== null && token.tls !== null)
  assert.deepEqual([token.node, token.hostKeyPem, token.witness?.inc], ['a', keyOfA, 'inc-w-1'])
  const { inviter } = token
  assert.equal(inviter?.hostKeyPem, readFileSync(b.hostKeyFile, 'utf8'))
  assert.equal(inviter?.authorityKeyPem, authority.keyPem)
  const certificate = new X509Certificate(token.tls.certificatePem)
  assert.ok(certificate.verify(new X509Certificate(authority.certificatePem).publicKey))
  assert.equal(certificate.checkIP('10.9.0.2'), '10.9.0.2', 'of the other end of this host’s paths')
})

test('a token, which may be an old one, changes nothing of a member', async t => {
  const { b, setup, ask } = await joinedHost(t)
  writeFileSync(join(b.stateDir, stateName), encodeRecord(stateFormat, emptyDurable))
  await writeSetup(b.stateDir, setup)
  const token = decodeToken(await ask())
  assert.ok(token !== null)
  const files = [b.pairKeyFile, b.hostKeyFile, join(b.stateDir, 'setup.json'), tlsPaths(b).certificate]
  const before = files.map(path => readFileSync(path, 'utf8'))
  const said: string[] = []
  const joinBy = (pairKey: string, hears: boolean) =>
    joinPair({
      ...{ config: b, progress: line => said.push(line), prepareDatabase: assert.fail, erase: null },
      ...{ token: { ...token, node: 'b', pairKey, hostKeyPem: makeHostKeyPem() }, hearsOther: async () => hears },
    })
  await joinBy(token.pairKey, false)
  assert.deepEqual(said, ['it has joined already; nothing is changed'])
  const older = Buffer.alloc(32, 8).toString('base64url')
  await assert.rejects(joinBy(older, true), /is a member of pair orders and hears the other host.*nothing was changed/)
  assert.deepEqual(
    files.map(path => readFileSync(path, 'utf8')),
    before,
  )
  // Whoever hears nobody may have been shut out: it goes on to the checks of a set-up.
  await assert.rejects(joinBy(older, false), error => !/is a member of pair/.test(String(error)))
  assert.deepEqual(
    files.map(path => readFileSync(path, 'utf8')),
    before,
  )
})

test('a host that was shut out and whose join by a newer token was cut off is no member: it is done again', async t => {
  const { b, setup, ask } = await joinedHost(t)
  writeFileSync(join(b.stateDir, stateName), encodeRecord(stateFormat, emptyDurable))
  await writeSetup(b.stateDir, setup)
  const known = decodeToken(await ask())
  assert.ok(known !== null)
  const token = { ...known, node: 'b', pairKey: Buffer.alloc(32, 9).toString('base64url') } as const
  const tls = join(b.stateDir, 'tls')
  rmSync(tls, { recursive: true })
  writeFileSync(tls, 'in the way')
  await assert.rejects(takeToken(b, token))
  rmSync(tls)
  const again = joinPair({
    ...{ config: b, progress: assert.fail, prepareDatabase: assert.fail, erase: null },
    ...{ token, hearsOther: async () => false },
  })
  await assert.rejects(again, /this configuration|this set-up/, 'it goes on to the checks of a set-up')
  await takeToken(b, token)
  assert.equal(readFileSync(tlsPaths(b).certificate, 'utf8'), token.tls?.certificatePem)
  assert.equal(readFileSync(b.pairKeyFile, 'utf8').trim(), token.pairKey)
})

test('a host that left its pair and is to begin another one is told what stands in the way, and what keeps its data and enrolment', async t => {
  const { b, setup, ask } = await joinedHost(t)
  await writeSetup(b.stateDir, { ...setup, pair: 'former', leftAt: '2026-01-02T03:04:05.000Z' })
  await assert.rejects(
    ask(),
    /this host left pair former at 2026.*To begin another pair, move .* aside, all but its folder "control".*"adopt" keeps the data/,
  )
})
