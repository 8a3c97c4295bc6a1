import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { readApplied, settingsStand } from '../../node-agent/applied-wish.ts'
import type { Config } from '../../node-agent/config.ts'
import { HostSettings } from '../../node-agent/control/host-settings.ts'
import type { ApplyOutcome } from '../../node-agent/control/session.ts'
import type { PairWish } from '../../node-agent/control/wished-config.ts'
import { loadHostForStart } from '../../node-agent/host-file.ts'
import type { StatusReport } from '../../node-agent/report/status-report.ts'
import { encodeRecord } from '../../node-agent/state-file/record.ts'
import { stateFormat, stateName } from '../../node-agent/state-file/state-file.ts'
import { type DesiredDocument, pairSettings } from '../../shared/contract/api/settings.ts'
import { emptyDurable } from '../fixtures/durable.ts'
import { exampleConfig } from './example-config.ts'

/**
 * Two hosts that take the same wish: their files, and the rules of who goes first and who goes back. What an agent would
 * do at a restart is done at once; what a host says of itself is made up.
 */
const settings = pairSettings.parse({
  mode: 'distributed',
  ipFamily: 'ipv4',
  vips: [{ address: '10.9.0.100/24', interface: 'lan0', network: 'service' }],
  hosts: { a: { addresses: ['10.9.0.1', '10.9.1.1'] }, b: { addresses: ['10.9.0.2', '10.9.1.2'] } },
  arbitration: { witness: { kind: 'none' } },
})
type Node = 'a' | 'b'
type Change = Partial<PairWish['settings']>

class Host {
  readonly node: Node
  readonly stateDir: string
  readonly path: string
  readonly settings: HostSettings
  other: Host | null = null
  restarts = 0
  /** What it says against a configuration. */
  objection: (config: Config) => string | null = () => null
  heard = true
  serving = true
  /** The change of keys that this host has begun; null: none is open. */
  openKeys: string | null = null
  keysHeld = 'of the set-up'
  offered: string | null = null
  config: Config | null = null

  constructor(folder: string, node: Node, clock: { ms: number }) {
    this.node = node
    this.stateDir = join(folder, node)
    this.path = join(folder, `${node}.json`)
    mkdirSync(join(this.stateDir, 'control'), { recursive: true })
    const paths = [0, 1].map(net => ({
      local: `10.9.${net}.${node === 'a' ? 1 : 2}`,
      peer: `10.9.${net}.${node === 'a' ? 2 : 1}`,
      port: 7400,
    }))
    writeFileSync(
      this.path,
      JSON.stringify({ ...exampleConfig, node, stateDir: this.stateDir, peer: { paths }, witness: null, services: [] }),
    )
    writeFileSync(join(this.stateDir, stateName), encodeRecord(stateFormat, emptyDurable))
    this.settings = new HostSettings({
      configPath: this.path,
      status: async () => this.#status(),
      peer: async () =>
        this.heard && this.other !== null
          ? {
              ...(await settingsStand(this.other.stateDir)),
              witnesses: [],
              hostKey: null,
              keyOffer: this.other.openKeys && `offer of ${this.other.openKeys}`,
            }
          : null,
      restart: () => this.start(),
      nowMs: () => clock.ms,
      check: async config => {
        const why = this.objection(config)
        if (why !== null) throw new Error(why)
      },
      keys: {
        begin: async (_config, { name, offer }) => {
          this.offered = offer
          this.openKeys = name
        },
        takeBack: async () => {
          this.openKeys = null
        },
        isOpen: () => this.openKeys !== null,
        settle: async () => {
          this.keysHeld = this.openKeys ?? this.keysHeld
          this.openKeys = null
        },
      },
      addresses: () => ['10.9.0.1', '10.9.1.1', '10.9.0.2', '10.9.1.2', '10.9.2.1', '10.9.2.2', '10.9.3.1', '10.9.3.2'],
    })
  }

  async start(): Promise<void> {
    this.restarts += 1
    this.config = (await loadHostForStart(this.path)).config
  }

  #usesNewestKey(): boolean {
    const theirs = this.other?.openKeys ?? this.other?.keysHeld
    return this.heard && this.openKeys !== null && theirs === this.openKeys
  }

  /** Host a is the primary. Only what a change of settings looks at. */
  #status(): StatusReport {
    const both = new Set(this.other?.config?.peer.paths.map(path => path.peer))
    const paths = (this.config?.peer.paths ?? []).map(({ local, peer }) => {
      const talks = this.heard && both.has(local)
      return { local, peer, heardMs: talks ? 10 : null, roundTripMs: talks ? 1 : null, lossPercent: 0 }
    })
    const part = {
      role: this.node === 'a' ? 'primary' : 'backup',
      serving: this.node === 'a' && this.serving,
      why: 'made up',
      witness: null,
      agent: { profile: this.config?.profile },
      replication: { streaming: true },
      peer: { heardAgoMs: this.heard ? 10 : 60_000, paths, usesNewestKey: this.#usesNewestKey() },
    }
    return part as unknown as StatusReport
  }
}

async function pairOf(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-settings-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const clock = { ms: 1_000_000 }
  const [a, b] = [new Host(folder, 'a', clock), new Host(folder, 'b', clock)]
  a.other = b
  b.other = a
  const wish = (host: Host, change: Change): DesiredDocument =>
    ({
      pair: {
        id: '01j00000000000000000000000',
        name: 'orders',
        node: host.node,
        settings: { ...settings, ...change },
        peer: { host: '01j00000000000000000000001', name: 'other', publicKey: '', sealingKey: '' },
        hostedWitness: null,
      },
    }) as unknown as DesiredDocument
  const take = (host: Host, change: Change): Promise<ApplyOutcome> => host.settings.apply(wish(host, change))
  for (const host of [a, b]) {
    await host.start()
    assert.deepEqual(await take(host, {}), { ok: true })
    host.restarts = 0
  }
  /** The order in which a change is looked at must not matter. */
  const rounds = async (change: Change, limit = 12): Promise<{ a: ApplyOutcome; b: ApplyOutcome }> => {
    let said = { a: await take(a, change), b: await take(b, change) }
    for (let round = 0; round < limit; round++) {
      if (!('pending' in said.a) && !('pending' in said.b)) break
      clock.ms += 1000
      said = { a: await take(a, change), b: await take(b, change) }
    }
    return said
  }
  return { a, b, clock, take, rounds }
}

const whyOf = (outcome: ApplyOutcome): string => (outcome.ok ? 'taken' : outcome.why)

test('both hosts take another profile, the backup first, and keep nothing of the one before once both have it', async t => {
  const { a, b, take, rounds } = await pairOf(t)
  const change = { profile: 'conservative' as const }
  assert.match(whyOf(await take(a, change)), /the other host takes them first/)
  assert.equal(a.config?.profile, 'default')
  assert.match(whyOf(await take(b, change)), /starts anew/)
  assert.match(whyOf(await take(b, change)), /the other one not yet/)
  assert.deepEqual(await rounds(change), { a: { ok: true }, b: { ok: true } })
  for (const host of [a, b]) {
    assert.deepEqual([host.config?.profile, host.restarts], ['conservative', 1])
    assert.equal(readApplied(host.stateDir)?.previous, null)
  }
})

test('the backup goes back to what both had where the primary refuses, and both say why', async t => {
  const { a, b, take, rounds } = await pairOf(t)
  const change = { profile: 'conservative' as const }
  await take(b, change)
  a.objection = config => (config.profile === 'conservative' ? 'profile conservative does not fit here' : null)
  const said = await rounds(change)
  assert.match(whyOf(said.a), /does not fit here/)
  assert.match(whyOf(said.b), /the other host did not take them: profile conservative does not fit here/)
  for (const host of [a, b]) assert.equal(host.config?.profile, 'default')
  assert.equal(a.restarts, 0)
  // Once the reason is gone another wish is taken as ever.
  a.objection = () => null
  assert.deepEqual(await rounds({ profile: 'fast' }), { a: { ok: true }, b: { ok: true } })
})

test('a host that is refused by the other one before it begins changes nothing, and takes part once the reason is gone', async t => {
  const { a, b, rounds } = await pairOf(t)
  const change = { protectedPorts: [5432, 8080] }
  a.objection = config => (config.protectedPorts.includes(8080) ? 'port 8080 is taken' : null)
  const said = await rounds(change)
  assert.match(whyOf(said.a), /port 8080 is taken/)
  assert.match(whyOf(said.b), /the other host did not take them/)
  assert.deepEqual([a.restarts, b.restarts], [0, 0])
  a.objection = () => null
  assert.deepEqual(await rounds(change), { a: { ok: true }, b: { ok: true } })
})

test('a primary that never follows leaves the backup on the old profile after three minutes; other settings stay there', async t => {
  const { a, b, clock, take } = await pairOf(t)
  const waits = async (change: Change): Promise<ApplyOutcome> => {
    await take(b, change)
    await take(b, change)
    clock.ms += 181_000
    return take(b, change)
  }
  assert.match(whyOf(await waits({ profile: 'fast' })), /did not take them within 180 s/)
  assert.equal(b.config?.profile, 'default')
  assert.deepEqual(await waits({ protectedPorts: [5432, 9000] }), { ok: true })
  assert.equal(a.restarts, 0)
})

test('a primary that does not serve with new settings takes them back, and the backup with it', async t => {
  const { a, b, clock, take, rounds } = await pairOf(t)
  const change = { profile: 'conservative' as const }
  await take(b, change)
  await take(b, change)
  await take(a, change)
  assert.equal(a.config?.profile, 'conservative')
  a.serving = false
  clock.ms += 46_000
  assert.match(whyOf(await take(a, change)), /was not well with them within 45 s/)
  a.serving = true
  const said = await rounds(change)
  assert.match(whyOf(said.b), /the other host did not take them: this host was not well/)
  for (const host of [a, b]) assert.equal(host.config?.profile, 'default')
})

test('new addresses of both hosts are used beside the old ones until both have them; a path that stays mute takes them back', async t => {
  const hosts = { a: { addresses: ['10.9.2.1', '10.9.3.1'] }, b: { addresses: ['10.9.2.2', '10.9.3.2'] } }
  const { a, b, take, rounds } = await pairOf(t)
  await take(b, { hosts })
  assert.equal(b.config?.peer.paths.length, 4)
  assert.deepEqual(await rounds({ hosts }), { a: { ok: true }, b: { ok: true } })
  for (const host of [a, b])
    assert.deepEqual([host.config?.peer.paths.map(path => path.local), host.restarts], [hosts[host.node].addresses, 2])
  const absent = { a: { addresses: ['10.9.7.1'] }, b: { addresses: ['10.9.7.2'] } }
  const refused = await rounds({ hosts: absent })
  assert.match(whyOf(refused.b), /hosts\.b\.addresses has 10\.9\.7\.2, and no interface of this host has that address/)
  assert.deepEqual([a.restarts, b.restarts], [2, 2])
})

const keyChange = '01j00000000000000000000042'

test('new keys are made by the backup and taken over by the primary; the old ones go on the backup first, once both use the new', async t => {
  const { a, b, take, rounds } = await pairOf(t)
  assert.match(whyOf(await take(a, { keyChange })), /the other host takes them first/)
  await take(b, { keyChange })
  assert.deepEqual([b.openKeys, b.offered, a.openKeys], [keyChange, null, null])
  await take(b, { keyChange })
  await take(a, { keyChange })
  assert.deepEqual([a.openKeys, a.offered], [keyChange, `offer of ${keyChange}`])
  await take(a, { keyChange })
  assert.match(whyOf(await take(a, { keyChange })), /the other host lets the old key go first/)
  assert.deepEqual(await rounds({ keyChange }), { a: { ok: true }, b: { ok: true } })
  for (const host of [a, b]) assert.deepEqual([host.keysHeld, host.openKeys, host.restarts], [keyChange, null, 2])
})

test('a primary that can not take the new keys has the backup go back to the old ones', async t => {
  const { a, b, take, rounds } = await pairOf(t)
  await take(b, { keyChange })
  a.objection = () => 'openssl is missing'
  const said = await rounds({ keyChange })
  assert.match(whyOf(said.b), /the other host did not take them: openssl is missing/)
  for (const host of [a, b]) assert.deepEqual([host.keysHeld, host.openKeys], ['of the set-up', null])
})
