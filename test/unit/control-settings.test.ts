import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type AppliedWish, readApplied, writeApplied } from '../../node-agent/applied-wish.ts'
import { type Config, parseConfig } from '../../node-agent/config.ts'
import {
  changedFields,
  overlapping,
  type PairWish,
  wholeFields,
  whyNotLive,
  whyUnfit,
  whyUnreachable,
} from '../../node-agent/control/wished-config.ts'
import { loadHost, loadHostForStart } from '../../node-agent/host-file.ts'
import { pairSettings } from '../../shared/contract/api/settings.ts'
import { type SealingKey, seal, unseal } from '../../shared/sealing.ts'
import { exampleConfig } from './example-config.ts'

const fingerprint = 'ab'.repeat(32)
const settings = pairSettings.parse({
  mode: 'distributed',
  ipFamily: 'ipv4',
  vips: [{ address: '10.9.0.100/24', interface: 'lan0' }],
  hosts: { a: { addresses: ['10.9.0.1', '10.9.1.1'] }, b: { addresses: ['10.9.0.2', '10.9.1.2'] } },
  arbitration: { witness: { kind: 'own', url: 'https://10.9.0.9:7443', fingerprint } },
})
const wishWith = (changed: Partial<PairWish['settings']> = {}): PairWish => ({
  id: '01j00000000000000000000000',
  name: 'orders',
  node: 'b',
  settings: { ...settings, ...changed },
  peer: { host: '01j00000000000000000000001', name: 'alpha', publicKey: '', sealingKey: '' },
  hostedWitness: null,
})

const { pair, node, profile, peer, vips, protectedPorts, witness, services, ...hostPart } = exampleConfig
const rendered = (wish: PairWish): Config => {
  const whole = wholeFields(wish, hostPart)
  assert.ok(whole.ok)
  return parseConfig(JSON.stringify({ ...hostPart, ...whole.fields }), 'agent.json')
}

test('what only the host knows and what is wished of its pair are one configuration together', () => {
  const config = rendered(wishWith())
  assert.deepEqual(
    [config.pair, config.node, config.peer.paths[1]],
    ['orders', 'b', { local: '10.9.1.2', peer: '10.9.1.1', port: 7400 }],
  )
  const none = { inc: null, alternate: null, former: null, awayS: 600 }
  assert.deepEqual(config.witness, { url: 'https://10.9.0.9:7443', fingerprint, hosted: false, ...none })
})

test('a wish that changes the addresses of clients leaves everything else as the operator wrote it', () => {
  const next = wishWith({ vips: [{ address: '10.9.0.101/24', interface: 'lan0', network: 'management' }] })
  const changed = changedFields(next, { before: settings, fields: {}, base: { ...exampleConfig } })
  assert.deepEqual(changed, {
    ok: true,
    fields: { vips: [{ address: '10.9.0.101/24', interface: 'lan0' }] },
  })
})

test('a wished partition is a tree in a file of its size beside its path, and the operator’s own trees stay', () => {
  const wish = wishWith({ syncPartition: { path: '/srv/data', sizeGb: 2 } })
  const [data] = rendered(wish).sync?.trees ?? []
  assert.deepEqual([data?.name, data?.path], ['data', '/srv/data'])
  assert.deepEqual(data?.partition, { source: '/srv/data.img', sizeMb: 2048 })
  assert.equal(rendered(wish).sync?.port, 7401)
  const own = { sync: { port: 7500, trees: [{ name: 'logs', path: '/srv/logs', exclude: ['*.tmp'] }] } }
  const whole = wholeFields(wish, { ...hostPart, ...own })
  assert.ok(whole.ok)
  const both = parseConfig(JSON.stringify({ ...hostPart, ...own, ...whole.fields }), 'agent.json').sync
  assert.deepEqual([both?.port, both?.trees.map(tree => tree.name)], [7500, ['logs', 'data']])
  assert.deepEqual(both?.trees[0]?.exclude, ['*.tmp'])
})

test('without a wished partition, or when it is no longer wished, the trees are those of the operator’s file', () => {
  const own = { ...hostPart, sync: { port: 7500, trees: [{ name: 'logs', path: '/srv/logs' }] } }
  const none = wholeFields(wishWith(), own)
  assert.ok(none.ok && !('sync' in none.fields))
  const before = { ...settings, syncPartition: { path: '/srv/data', sizeGb: null } }
  const had = { vips: [], sync: { port: 7500, trees: [{ name: 'data', path: '/srv/data' }] } }
  const changed = changedFields(wishWith(), { before, fields: had, base: own })
  assert.deepEqual(changed, { ok: true, fields: { vips: [] } })
})

test('programs of the operator stay when the wish names units', () => {
  const next = wishWith({ services: [{ name: 'app', unit: 'app.service' }] })
  const changed = changedFields(next, { before: settings, fields: {}, base: { ...exampleConfig } })
  assert.ok(changed.ok)
  assert.deepEqual(
    (changed.fields.services as { name: string }[]).map(one => one.name),
    ['web', 'app'],
  )
})

const refusals: [string, Partial<PairWish['settings']>, RegExp][] = [
  [
    'another witness is refused while it has not admitted the pair',
    { arbitration: { witness: { kind: 'own', url: 'https://10.9.0.8:7443', fingerprint }, alternate: null } },
    /has not admitted this pair: `understudy change witness`/,
  ],
  [
    'new addresses on every path at once are refused: the hosts would lose each other',
    { hosts: { a: { addresses: ['10.9.0.5', '10.9.1.5'] }, b: settings.hosts.b } },
    /no path between the hosts would stay/,
  ],
]
for (const [name, changed, why] of refusals) {
  test(name, () => assert.match(whyNotLive(rendered(wishWith()), rendered(wishWith(changed))) ?? '', why))
}

test('another profile is taken, unless the witness is too slow for it', () => {
  const [running, next] = [rendered(wishWith()), rendered(wishWith({ profile: 'fast' }))]
  assert.equal(whyNotLive(running, next), null)
  assert.equal(whyUnfit(next, { profile: 'default', voteP99Ms: null }), null)
  assert.equal(whyUnfit(next, { profile: 'default', voteP99Ms: 3 }), null)
  assert.match(whyUnfit(next, { profile: 'default', voteP99Ms: 200 }) ?? '', /fast, which allows .* it takes 200 ms/)
  assert.equal(whyUnfit(running, { profile: 'default', voteP99Ms: 2000 }), null)
  const slower = rendered(wishWith({ profile: 'conservative' }))
  assert.equal(whyUnfit(slower, { profile: 'default', voteP99Ms: 2000 }), null, 'it allows more than now')
})

test('new addresses are tried beside those before, and each has to be on its host already', () => {
  const hosts = { a: { addresses: ['10.9.2.1', '10.9.3.1'] }, b: { addresses: ['10.9.2.2', '10.9.3.2'] } }
  const [before, after] = [rendered(wishWith()), rendered(wishWith({ hosts }))]
  const both = { ...after, peer: { paths: overlapping(before.peer.paths, after.peer.paths) } }
  assert.equal(whyNotLive(before, both), null)
  assert.deepEqual(
    both.peer.paths.map(path => path.peer),
    ['10.9.2.1', '10.9.3.1', '10.9.0.1', '10.9.1.1'],
  )
  const why = whyUnreachable(before, both, ['10.9.0.2', '10.9.1.2', '10.9.2.2'])
  assert.match(why ?? '', /^hosts\.b\.addresses has 10\.9\.3\.2, and no interface of this host has that address/)
  assert.equal(whyUnreachable(before, both, ['10.9.2.2', '10.9.3.2']), null)
  assert.throws(
    () =>
      overlapping(
        both.peer.paths,
        before.peer.paths.slice(0, 1).map(path => ({ ...path, port: 7 })),
      ),
    /5: 4 at once are the most/,
  )
})

test('a new address on one of two paths is taken', () => {
  const hosts = { a: { addresses: ['10.9.0.5', '10.9.1.1'] }, b: settings.hosts.b }
  assert.equal(whyNotLive(rendered(wishWith()), rendered(wishWith({ hosts }))), null)
})

const withHosted = wishWith({ arbitration: { witness: { kind: 'hosted' }, alternate: null } })

test('a hosted witness is the address that the signed wish names, asked with the key of the enrolment', () => {
  const url = 'https://cloud.example/witness/v1/01j00000000000000000000009'
  for (const print of [fingerprint, null])
    assert.deepEqual(rendered({ ...withHosted, hostedWitness: { url, fingerprint: print } }).witness, {
      url,
      fingerprint: print,
      hosted: true,
      ...{ inc: null, alternate: null, former: null, awayS: 600 },
    })
})

test('a hosted witness that is not reached over TLS is refused with the way out, not taken for none', () => {
  const whole = wholeFields(withHosted, hostPart)
  assert.ok(!whole.ok)
  assert.match(whole.why, /not reached over TLS.*set up with a witness of your own/)
})

function hostFolder(): { path: string; stateDir: string; end: () => void } {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-host-'))
  const stateDir = join(folder, 'state')
  mkdirSync(join(stateDir, 'control'), { recursive: true })
  const path = join(folder, 'agent.json')
  writeFileSync(path, JSON.stringify({ ...exampleConfig, stateDir }))
  return { path, stateDir, end: () => rmSync(folder, { recursive: true, force: true }) }
}

const tried = (vips: unknown): AppliedWish => ({
  v: 1,
  hash: 'new',
  settings: null,
  fields: { vips },
  confirmed: false,
  triedAtMs: 0,
  starts: 0,
  previous: { hash: 'old', settings: null, fields: {} },
  refused: null,
  unfit: null,
})

test('settings lie over the operator’s file; two starts that fail with new ones take them back', async () => {
  const { path, stateDir, end } = hostFolder()
  try {
    await writeApplied(stateDir, tried([{ address: '10.9.0.101/24', interface: 'lan0' }]))
    assert.equal(loadHost(path).config?.vips[0]?.address, '10.9.0.101/24')
    for (const start of [1, 2]) assert.equal((await loadHostForStart(path)).applied?.starts, start)
    const third = await loadHostForStart(path)
    assert.equal(third.config?.vips[0]?.address, '10.9.0.100/24')
    assert.match(third.note, /did not start with them 2 times/)
    assert.deepEqual([readApplied(stateDir)?.hash, readApplied(stateDir)?.refused?.hash], ['old', 'new'])
  } finally {
    end()
  }
})

test('new settings that make no configuration are taken back before the agent starts', async () => {
  const { path, stateDir, end } = hostFolder()
  try {
    await writeApplied(stateDir, tried('none'))
    const host = await loadHostForStart(path)
    assert.equal(host.config?.vips[0]?.address, '10.9.0.100/24')
    assert.match(host.note, /are taken back/)
  } finally {
    end()
  }
})

test('a file without a pair is that of a host that waits; a word that no configuration has is refused there too', () => {
  const { path, stateDir, end } = hostFolder()
  try {
    writeFileSync(path, JSON.stringify({ ...hostPart, stateDir }))
    assert.equal(loadHost(path).config, null)
    writeFileSync(path, JSON.stringify({ ...hostPart, stateDir, wittness: null }))
    assert.throws(() => loadHost(path), /wittness/)
  } finally {
    end()
  }
})

test('what is sealed for one host and pair opens for no other, and not when a letter was changed', async () => {
  const newKey = (): SealingKey => {
    const { x, d } = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' })
    return { kty: 'OKP', crv: 'X25519', x: String(x), d: String(d) }
  }
  const [key, other] = [newKey(), newKey()]
  const sealed = await seal('the secret', { to: key.x, purpose: 'pair 1' })
  assert.equal(await unseal(sealed, { key, purpose: 'pair 1' }), 'the secret')
  assert.equal(await unseal(sealed, { key: other, purpose: 'pair 1' }), null)
  assert.equal(await unseal(sealed, { key, purpose: 'pair 2' }), null)
  const at = sealed.length - 3
  const changed = sealed.slice(0, at) + (sealed[at] === 'A' ? 'B' : 'A') + sealed.slice(at + 1)
  assert.equal(await unseal(changed, { key, purpose: 'pair 1' }), null)
})
