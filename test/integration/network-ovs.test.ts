import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { exec } from '../../node-agent/exec.ts'
import type { Reach } from '../../node-agent/network/change.ts'
import { datapathOf, readNetwork } from '../../node-agent/network/inventory.ts'
import { OvsEvents } from '../../node-agent/network/ovs-events.ts'
import { planChange } from '../../node-agent/network/plan.ts'
import { changeVswitch } from '../../node-agent/network/vswitches.ts'
import type { Vswitch } from '../../shared/hosts/network.ts'
import { until } from '../fixtures/until.ts'
import { allReached, ChangedHost, changed, wish } from './support/changed-host.ts'

/** The same on a real Open vSwitch in user space. */
const at = new ChangedHost('ovs')

const socket = `${at.ovsDir}/db.sock`
const startDatabase = (): ChildProcess =>
  at.host.spawn('ovsdb-server', [`${at.ovsDir}/conf.db`, `--remote=punix:${socket}`, '--no-chdir'], {
    env: at.env,
    stdio: 'ignore',
  })

describe('vSwitches on Open vSwitch', () => {
  let database: ChildProcess
  let daemon: ChildProcess

  before(async () => {
    mkdirSync(at.ovsDir)
    const schema = '/usr/share/openvswitch/vswitch.ovsschema'
    const made = await exec(['ovsdb-tool', 'create', `${at.ovsDir}/conf.db`, schema], { limitMs: 10_000, env: at.env })
    assert.ok(made.ok, made.ok ? '' : made.why)
    database = startDatabase()
    await until(() => existsSync(socket))
    daemon = at.host.spawn('ovs-vswitchd', [`unix:${at.ovsDir}/db.sock`, '--no-chdir'], {
      env: at.env,
      stdio: 'ignore',
    })
    await at.inHost(['ovs-vsctl', '--timeout=10', 'init'])
  })

  const ovs = (more: Partial<Vswitch> = {}): Vswitch => wish({ backend: 'ovs', mtu: 1500, ...more })

  test('one with an address reaches the network behind its NIC', async () => {
    assert.deepEqual(await at.change(ovs()), changed)
    const made = await at.vswitch('svc0')
    assert.deepEqual({ ...made, ports: [] }, { ...ovs(), owned: true, ports: [], learned: [] })
    await at.untilReaches('10.41.0.1')
  })

  test('a VLAN is tagged: the untagged other side is no longer reached, and is again without it', async () => {
    assert.deepEqual(await at.change(ovs({ vlan: 10 })), changed)
    assert.equal((await at.vswitch('svc0'))?.vlan, 10)
    // Its threads let go of what they forwarded before a moment after the change is acknowledged.
    await until(() => !at.reaches('10.41.0.1'))
    assert.deepEqual(await at.change(ovs()), changed)
    await at.untilReaches('10.41.0.1')
  })

  test('a change of an Open vSwitch that fails at any of its steps leaves the host as it was', async () => {
    await at.failsAnywhere(ovs({ addresses: ['10.41.0.77/24'], nics: [], vlan: 20, mtu: 1300 }))
    await at.failsAnywhere(null, { name: 'svc0' })
    await at.untilReaches('10.41.0.1')
  })

  test('a change that stands in the database, while the daemon that is to do it stands still, is taken back there', async () => {
    assert.deepEqual(await at.change(ovs()), changed)
    const before = await at.look()
    const { run } = at.parts()
    const impatient = at.parts({ run: argv => run(argv.map(word => word.replace('--timeout=10', '--timeout=1'))) })
    daemon.kill('SIGSTOP')
    try {
      const result = await at.change(ovs({ vlan: 40 }), { parts: impatient })
      assert.ok(!result.ok && result.undone, JSON.stringify(result))
    } finally {
      daemon.kill('SIGCONT')
    }
    assert.deepEqual(await at.look(), before)
    await at.untilReaches('10.41.0.1')
  })

  test('what anybody changes of it is heard, once for each look, and after a restart of its database again', async () => {
    assert.deepEqual(await at.change(ovs()), changed)
    let heard = 0
    const count = (): void => {
      heard += 1
    }
    const events = new OvsEvents({ changed: count, path: socket })
    const set = async (tag: string): Promise<void> => {
      const done = await at.inHost(['ovs-vsctl', '--timeout=10', 'set', 'port', 'svc0', tag])
      assert.ok(done.ok, done.ok ? '' : done.why)
    }
    const hears = async (cause: () => unknown): Promise<void> => {
      const before = heard
      events.attend()
      await cause()
      await until(() => heard > before)
    }
    try {
      await hears(() => {})
      await hears(() => set('tag=30'))
      const before = heard
      await set('tag=31')
      assert.equal(heard, before, 'nobody has looked since')
      await hears(() => {})
      await hears(() => database.kill('SIGKILL'))
      await hears(() => {
        database = startDatabase()
      })
      await hears(() => set('tag=[]'))
    } finally {
      events.close()
    }
  })

  test('two NICs are one uplink', async () => {
    at.host.exec('ip', 'address', 'flush', 'dev', 'eth0')
    const bonded = ovs({ nics: ['eth0', 'eth1'], bond: 'active-backup' })
    assert.deepEqual(await at.change(bonded), changed)
    const made = await at.vswitch('svc0')
    assert.deepEqual([made?.nics, made?.bond], [['eth0', 'eth1'], 'active-backup'])
  })

  test('a change that cuts the host off is taken back here too', async () => {
    const before = await at.look()
    const deaf = at.parts({
      reach: (() => {
        let asked = 0
        return async (): Promise<Reach> => ({ ...allReached, witness: ++asked === 1 })
      })(),
    })
    const result = await at.change(ovs({ nics: [], vlan: 20 }), { parts: deaf })
    assert.match(result.ok ? '' : result.why, /did not reach the witness within 30 s; the host is as it was/)
    assert.deepEqual(await at.look(), before)
  })

  test('a deleted one is gone', async () => {
    assert.deepEqual(await at.change(null, { name: 'svc0' }), changed)
    assert.equal(await at.vswitch('svc0'), null)
  })

  test('one that was found is adopted as it is, and keeps the kind of its datapath over a change and its way back', async () => {
    const made = ['add-br', 'found0', '--', 'set', 'bridge', 'found0', 'datapath_type=netdev']
    assert.ok((await at.inHost(['ovs-vsctl', '--timeout=10', ...made])).ok)
    const from = await at.vswitch('found0')
    assert.ok(from !== null)
    const { learned: _, owned: __, ports: ___, ...found } = from
    const planned = async (to: Vswitch | null) => ({ ...(await at.planned(to, 'found0')), ovsDatapath: 'system' })
    assert.deepEqual(planChange(await planned({ ...found, types: ['service'], description: 'its own' })), [])
    const words = planChange(await planned({ ...found, vlan: 7 })).flatMap(step => [step.argv, step.undo])
    assert.ok(words.flat().includes('tag=7') && !words.flat().some(word => word?.startsWith('datapath_type')))
    assert.equal(await datapathOf(at.inHost, 'found0'), 'netdev')
    await assert.rejects(datapathOf(at.inHost, 'nothere'), /could not be read: .*no row "nothere" in table Bridge/)
    await at.inHost(['ovs-vsctl', '--timeout=10', 'del-br', 'found0'])
  })

  test('one with settings that are none of a vSwitch is not taken away, nor is its uplink: the answer names them', async () => {
    const inOvs = async (...words: string[]): Promise<void> => {
      const done = await at.inHost(['ovs-vsctl', '--timeout=10', ...words])
      assert.ok(done.ok, done.ok ? '' : done.why)
    }
    const asked = (wanted: Parameters<typeof changeVswitch>[1]) =>
      changeVswitch(
        {
          ...{ folder: join(at.folder, 'own'), boot: 'this-boot', root: join(at.folder, 'root'), ask: at.inHost },
          ...{ reach: async () => allReached, sleep: async () => {}, begun: () => {}, confirmMs: 30_000 },
          ...{ ovsDatapath: 'netdev', pair: { peerAddresses: [], vips: [], pathAddresses: [] } },
        },
        wanted,
      )
    const lost = (what: string): string =>
      `found1 has settings that a vSwitch has not and that would be lost: ${what}. Take them back first, or make this change where they were made; nothing was changed`
    const ofPort = 'trunks of Port eth1'
    const ofAll = `other_config, fail_mode of Bridge found1; ${ofPort}`
    const found = wish({ name: 'found1', backend: 'ovs', addresses: [], mtu: 1500 })
    const made = await asked({ set: found })
    assert.ok(made.ok, made.why)
    await inOvs('set', 'bridge', 'found1', 'fail_mode=secure', 'other_config:hwaddr="02:00:00:00:00:17"')
    await inOvs('set', 'port', 'eth1', 'trunks=10,20')
    assert.deepEqual(await asked({ remove: 'found1' }), { ok: false, why: lost(ofAll) })
    assert.deepEqual(await asked({ set: { ...found, backend: 'bridge' } }), { ok: false, why: lost(ofAll) })
    assert.deepEqual(await asked({ set: { ...found, nics: [] } }), { ok: false, why: lost(ofPort) })
    assert.equal((await asked({ set: { ...found, vlan: 7 } })).ok, true)
    await inOvs('clear', 'port', 'eth1', 'trunks')
    await inOvs('clear', 'bridge', 'found1', 'fail_mode', 'other_config')
    const gone = await asked({ remove: 'found1' })
    assert.ok(gone.ok, gone.why)
  })

  test('an Open vSwitch that does not answer is said to be unknown, in time', async () => {
    const silent = { ...at.env, OVS_RUNDIR: join(at.folder, 'nowhere') }
    const seen = await readNetwork({
      record: [],
      vips: [],
      ask: (argv, limitMs) => exec(['ip', 'netns', 'exec', at.host.name, ...argv], { limitMs, env: silent }),
    })
    assert.match(seen.unknown.join(), /Open vSwitch does not answer/)
  })
})
