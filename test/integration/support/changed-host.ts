import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before } from 'node:test'
import { exec } from '../../../node-agent/exec.ts'
import {
  applyChange,
  type ChangeParts,
  type ChangeResult,
  type Reach,
  reachedAgain,
  removeJournal,
  undoUnfinished,
} from '../../../node-agent/network/change.ts'
import { readFoundSettings } from '../../../node-agent/network/found-settings.ts'
import { readNetwork, readRoutes } from '../../../node-agent/network/inventory.ts'
import { type Change, planChange } from '../../../node-agent/network/plan.ts'
import type { HostNetwork, ObservedVswitch, Vswitch } from '../../../shared/hosts/network.ts'
import { until } from '../../fixtures/until.ts'
import { Netns } from './netns.ts'
import { networkState } from './network-state.ts'

/**
 * Two hosts joined by two cables, for the tests of a file; the first one's networks are changed. Real bridges, and where a
 * test starts it a real Open vSwitch in user space.
 */
export class ChangedHost {
  readonly folder = mkdtempSync(join(tmpdir(), 'understudy-network-'))
  readonly ovsDir = join(this.folder, 'ovs')
  readonly env = {
    ...process.env,
    OVS_RUNDIR: this.ovsDir,
    OVS_DBDIR: this.ovsDir,
    OVS_LOGDIR: this.ovsDir,
  } as Record<string, string>
  record: Vswitch[] = []
  readonly #word: string
  #ends: { host: Netns; other: Netns } | null = null

  /** @param word tells its namespaces from those of other files */
  constructor(word: string) {
    this.#word = word
    before(() => this.#make())
    after(() => this.#remove())
  }

  get host(): Netns {
    assert.ok(this.#ends !== null, 'the hosts are there')
    return this.#ends.host
  }

  readonly inHost = (argv: readonly string[], limitMs = 20_000) =>
    exec(['ip', 'netns', 'exec', this.host.name, ...argv], { limitMs, env: this.env })

  readonly look = (): Promise<HostNetwork> => readNetwork({ record: this.record, vips: [], ask: this.inHost })

  async vswitch(name: string): Promise<ObservedVswitch | null> {
    return (await this.look()).vswitches.find(one => one.name === name) ?? null
  }

  everything(): Promise<object> {
    return networkState(argv => this.inHost(argv))
  }

  reaches(address: string): boolean {
    return this.host.succeeds('ping', '-c', '1', '-W', '2', address)
  }

  /** Neighbours that have lost each other ask again after a second. */
  untilReaches(address: string): Promise<void> {
    return until(() => this.reaches(address))
  }

  parts(given: Partial<ChangeParts> = {}): ChangeParts {
    return {
      folder: this.folder,
      boot: 'this-boot',
      run: async argv => {
        const result = await this.inHost(argv)
        return result.ok ? null : { why: result.why, mayBeDone: result.killed }
      },
      reach: async () => allReached,
      sleep: async () => {},
      begun: () => {},
      confirmMs: 30_000,
      ...given,
    }
  }

  async planned(to: Vswitch | null, name = to?.name ?? ''): Promise<Change> {
    const [from, host, routes] = [await this.vswitch(name), await this.look(), await readRoutes(this.inHost)]
    const found = await readFoundSettings(this.inHost, { from, to, nics: host.nics })
    return { from, to, host, routes, ovsDatapath: 'netdev', bridgeWords: found.words }
  }

  async change(to: Vswitch | null, options: { name?: string; parts?: ChangeParts } = {}): Promise<ChangeResult> {
    const name = to?.name ?? options.name ?? ''
    const steps = planChange(await this.planned(to, name))
    const remember = async (which: 'before' | 'after'): Promise<void> => {
      if (which === 'after')
        this.record = [...this.record.filter(one => one.name !== name), ...(to === null ? [] : [to])]
    }
    return applyChange(options.parts ?? this.parts(), { why: 'a test', steps, record: this.record, remember })
  }

  /**
   * At each step of the change once, and once all of it is done and the peer is gone, the step fails, or the process that
   * does it dies and another one takes back what it left: the host is as it was each time.
   */
  async failsAnywhere(
    to: Vswitch | null,
    { name = to?.name ?? '', how = 'fails' }: { name?: string; how?: 'fails' | 'dies' } = {},
  ): Promise<void> {
    const was = await this.everything()
    const steps = planChange(await this.planned(to, name))
    const { run } = this.parts()
    const doing = steps.flatMap(step => (step.argv === null ? [] : [step.argv]))
    const change = { why: 'a test', steps, record: this.record, remember: async () => {} }
    for (let failing = 0; failing <= doing.length; failing += 1) {
      let at = -1
      let asked = 0
      const died = (): never => {
        throw new Error('it dies here')
      }
      const broken = this.parts({
        run: async argv => {
          at += 1
          if (at !== failing || failing === doing.length) return run(argv)
          return how === 'dies' ? died() : { why: 'the test lets it fail', mayBeDone: false }
        },
        reach: async () => {
          asked += 1
          return how === 'dies' && asked > 1 ? died() : { ...allReached, peer: asked === 1 }
        },
      })
      const words = failing === doing.length ? 'the confirmation' : doing[failing]!.join(' ')
      if (how === 'dies') {
        await assert.rejects(applyChange(broken, change), /it dies here/)
        assert.notEqual(await undoUnfinished(this.parts(), this.record), null)
        removeJournal(this.parts())
      } else {
        const result = await applyChange(broken, change)
        assert.ok(!result.ok && result.undone, `${words}: ${JSON.stringify(result)}`)
      }
      assert.deepEqual(await this.everything(), was, `it ${how} at ${words}`)
    }
  }

  #make(): void {
    const [host, other] = [new Netns(`un-${this.#word}-host`), new Netns(`un-${this.#word}-other`)]
    this.#ends = { host, other }
    for (const [index, nic] of ['eth0', 'eth1'].entries()) {
      host.exec('ip', 'link', 'add', nic, 'type', 'veth', 'peer', 'name', nic, 'netns', other.name)
      for (const ns of [host, other]) {
        // The datapath in user space would see packets without checksums, which a veth leaves out.
        ns.exec('ethtool', '-K', nic, 'tx', 'off')
        ns.exec('ip', 'link', 'set', nic, 'up')
      }
      host.exec('ip', 'address', 'add', `10.4${index}.0.5/24`, 'dev', nic)
      other.exec('ip', 'address', 'add', `10.4${index}.0.1/24`, 'dev', nic)
    }
    host.exec('ip', 'route', 'add', 'default', 'via', '10.41.0.1', 'dev', 'eth1')
  }

  async #remove(): Promise<void> {
    await this.#ends?.host.remove()
    await this.#ends?.other.remove()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

export const changed: ChangeResult = { ok: true, why: reachedAgain }
export const allReached: Reach = { peer: true, witness: true, controlPlane: null }

export const wish = (more: Partial<Vswitch> = {}): Vswitch => ({
  name: 'svc0',
  backend: 'bridge',
  description: 'clients',
  types: ['service'],
  vlan: null,
  nics: ['eth1'],
  bond: null,
  addresses: ['10.41.0.5/24'],
  gateways: [],
  mtu: 1400,
  ...more,
})
