import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { settingsStand } from '../../node-agent/applied-wish.ts'
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
export type Change = Partial<PairWish['settings']>

export class Host {
  readonly node: Node
  readonly clock: { ms: number }
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
  /** The authority whose certificate its database shows, and the one of its files. */
  shown = 'of the set-up'
  certificate = 'of the set-up'
  /** What its database takes, and what its files say for the next start. */
  trusted = new Set(['of the set-up'])
  trustedFiles = new Set(['of the set-up'])
  certifies = (): void => {}
  isPrimary: boolean
  /** Certificates are the pair's, and not the operator's own. */
  hasAuthority = true
  /** The agent is killed as it is told to begin anew, and is started by whoever supervises it. */
  killed = false
  /** Whoever has it begin anew is killed in that moment: the agent runs on. */
  cutOff = false
  /** Killed before it takes keys back. */
  killedAtKeys = false
  startedMs = 0
  config: Config | null = null

  constructor(folder: string, node: Node, clock: { ms: number }) {
    this.node = node
    this.clock = clock
    this.isPrimary = node === 'a'
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
              authorities: { shown: this.other.shown, taken: [...this.other.trusted] },
            }
          : null,
      restart: async () => {
        if (this.cutOff) throw new Error('killed before it was told')
        await this.start()
        if (this.killed) throw new Error('killed')
      },
      nowMs: () => clock.ms,
      check: async config => {
        const why = this.objection(config)
        if (why !== null) throw new Error(why)
      },
      keys: {
        begin: async (_config, { name, offer }) => {
          this.offered = offer
          this.openKeys = name
          if (this.hasAuthority) this.trustedFiles.add(name)
        },
        takeBack: async () => {
          if (this.killedAtKeys) throw new Error('killed')
          this.openKeys = null
          if (this.hasAuthority) this.certificate = this.keysHeld
        },
        nextAuthority: () => (this.hasAuthority ? this.openKeys : null),
        isCertified: () => this.hasAuthority && this.openKeys !== null && this.certificate === this.openKeys,
        certify: async () => {
          this.certifies()
          const isNew = this.certificate !== this.openKeys
          this.certificate = this.openKeys ?? this.certificate
          return isNew
        },
        isInForce: () =>
          this.trusted.has(this.openKeys ?? '') && (this.certificate !== this.openKeys || this.shown === this.openKeys),
        isOpen: () => this.openKeys !== null,
        settle: async () => {
          this.keysHeld = this.openKeys ?? this.keysHeld
          if (this.hasAuthority) this.trustedFiles = new Set([this.keysHeld])
          this.openKeys = null
        },
      },
      addresses: () => ['10.9.0.1', '10.9.1.1', '10.9.0.2', '10.9.1.2', '10.9.2.1', '10.9.2.2', '10.9.3.1', '10.9.3.2'],
    })
  }

  async start(): Promise<void> {
    this.restarts += 1
    this.startedMs = this.clock.ms
    this.shown = this.certificate
    this.trusted = new Set(this.trustedFiles)
    this.config = (await loadHostForStart(this.path)).config
  }

  #usesNewestKey(): boolean {
    const theirs = this.other?.openKeys ?? this.other?.keysHeld
    return this.heard && this.openKeys !== null && theirs === this.openKeys
  }

  /** Host a is the primary at first. Only what a change of settings looks at. */
  #status(): StatusReport {
    const both = new Set(this.other?.config?.peer.paths.map(path => path.peer))
    const paths = (this.config?.peer.paths ?? []).map(({ local, peer }) => {
      const talks = this.heard && both.has(local)
      return { local, peer, heardMs: talks ? 10 : null, roundTripMs: talks ? 1 : null, lossPercent: 0 }
    })
    const part = {
      role: this.isPrimary ? 'primary' : 'backup',
      serving: this.isPrimary && this.serving,
      why: 'made up',
      witness: null,
      agent: { profile: this.config?.profile, startedAt: new Date(this.startedMs).toISOString() },
      replication: { streaming: true, process: 'standby' },
      peer: { heardAgoMs: this.heard ? 10 : 60_000, paths, usesNewestKey: this.#usesNewestKey() },
    }
    return part as unknown as StatusReport
  }
}

export async function pairOf(t: TestContext) {
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
