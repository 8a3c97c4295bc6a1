import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { exec } from '../../node-agent/exec.ts'
import {
  applyChange,
  type ChangeParts,
  type Reach,
  removeJournal,
  undoUnfinished,
} from '../../node-agent/network/change.ts'
import { readNetwork } from '../../node-agent/network/inventory.ts'
import { planChange } from '../../node-agent/network/plan.ts'
import { changeVswitch, restoreVswitches, type VswitchParts } from '../../node-agent/network/vswitches.ts'
import type { HostNetwork, ObservedVswitch, Vswitch } from '../../shared/hosts/network.ts'
import { until } from '../fixtures/until.ts'
import { Netns } from './support/netns.ts'
import { networkState } from './support/network-state.ts'

/** Two hosts joined by two cables; the first one's networks are changed. Real bridges, a real Open vSwitch in user space. */
const folder = mkdtempSync(join(tmpdir(), 'understudy-network-'))
const runDir = join(folder, 'ovs')
const env = { ...process.env, OVS_RUNDIR: runDir, OVS_DBDIR: runDir, OVS_LOGDIR: runDir } as Record<string, string>
let host: Netns
let other: Netns
let record: Vswitch[] = []

const inHost = (argv: readonly string[], limitMs = 20_000) =>
  exec(['ip', 'netns', 'exec', host.name, ...argv], { limitMs, env })
const look = (): Promise<HostNetwork> => readNetwork({ record, vips: [], ask: inHost })
const vswitch = async (name: string): Promise<ObservedVswitch | null> =>
  (await look()).vswitches.find(one => one.name === name) ?? null

const allReached: Reach = { peer: true, witness: true, controlPlane: null }
const parts = (given: Partial<ChangeParts> = {}): ChangeParts => ({
  folder,
  boot: 'this-boot',
  run: async argv => {
    const result = await inHost(argv)
    return result.ok ? null : result.why
  },
  reach: async () => allReached,
  sleep: async () => {},
  confirmMs: 30_000,
  ...given,
})

async function change(to: Vswitch | null, options: { name?: string; parts?: ChangeParts } = {}) {
  const from = await vswitch(to?.name ?? options.name ?? '')
  const steps = planChange({ from, to, host: await look(), ovsDatapath: 'netdev' })
  const remember = async (which: 'before' | 'after'): Promise<void> => {
    if (which === 'after')
      record = [...record.filter(one => one.name !== (to?.name ?? options.name)), ...(to === null ? [] : [to])]
  }
  return applyChange(options.parts ?? parts(), { why: 'a test', steps, record, remember })
}

const everything = (): Promise<object> => networkState(argv => inHost(argv))

/** Each step of the change fails once, and once all of it is done and the peer is gone: the host is as it was each time. */
async function failsAnywhere(to: Vswitch | null, name = to?.name ?? ''): Promise<void> {
  const before = await everything()
  const steps = planChange({ from: await vswitch(name), to, host: await look(), ovsDatapath: 'netdev' })
  const run = parts().run
  const doing = steps.flatMap(step => (step.argv === null ? [] : [step.argv]))
  for (let failing = 0; failing <= doing.length; failing += 1) {
    let at = -1
    let asked = 0
    const broken = parts({
      run: async argv => (failing < doing.length && ++at === failing ? 'the test lets it fail' : run(argv)),
      reach: async () => ({ ...allReached, peer: ++asked === 1 }),
    })
    const words = failing === doing.length ? 'the confirmation' : doing[failing]!.join(' ')
    const result = await change(to, { name, parts: broken })
    assert.ok(!result.ok && result.undone, `${words}: ${JSON.stringify(result)}`)
    assert.deepEqual(await everything(), before, `it failed at ${words}`)
  }
}

const wish = (more: Partial<Vswitch> = {}): Vswitch => ({
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

before(() => {
  host = new Netns('un-net-host')
  other = new Netns('un-net-other')
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
})
after(async () => {
  await host.remove()
  await other.remove()
  rmSync(folder, { recursive: true, force: true })
})

const reaches = (address: string): boolean => host.succeeds('ping', '-c', '1', '-W', '2', address)

describe('vSwitches on Linux bridges', () => {
  test('the NICs are listed with their cables, addresses and routes', async () => {
    const { nics, routes, vswitches } = await look()
    assert.deepEqual(
      nics.map(one => [one.name, one.carrier, one.addresses, one.master]),
      [
        ['eth0', true, ['10.40.0.5/24'], null],
        ['eth1', true, ['10.41.0.5/24'], null],
      ],
    )
    assert.ok(routes.some(route => route.destination === 'default' && route.device === 'eth1'))
    assert.deepEqual(vswitches, [])
  })

  test('a new one takes over the address of its NIC, and the network behind it is reached', async () => {
    const result = await change(wish({ gateways: ['10.41.0.1'] }))
    assert.deepEqual(result, { ok: true })
    const made = await vswitch('svc0')
    assert.deepEqual({ ...made, ports: [] }, { ...wish({ gateways: ['10.41.0.1'] }), owned: true, ports: [] })
    assert.ok(reaches('10.41.0.1'))
    assert.ok(!existsSync(join(folder, 'network-change.json')))
  })

  test('it is modified while the rest stays', async () => {
    const more = wish({ gateways: ['10.41.0.1'], addresses: ['10.41.0.5/24', 'fd41::5/64'], mtu: 1500 })
    assert.deepEqual(await change(more), { ok: true })
    assert.deepEqual((await vswitch('svc0'))?.addresses, ['10.41.0.5/24', 'fd41::5/64'])
    assert.equal((await vswitch('svc0'))?.mtu, 1500)
    assert.ok(reaches('10.41.0.1'))
  })

  test('a change that cuts the host from its peer is taken back by the host, which says so', async () => {
    const before = await look()
    const real = async (): Promise<Reach> => ({ peer: reaches('10.41.0.1'), witness: true, controlPlane: null })
    const cut = parts({ reach: real })
    const result = await change(wish({ addresses: ['10.99.0.5/24'], nics: [] }), { parts: cut })
    assert.equal(result.ok, false)
    assert.match(result.ok ? '' : result.why, /did not reach the other host within 30 s; the host is as it was/)
    assert.deepEqual(await look(), before)
    assert.ok(reaches('10.41.0.1'))
  })

  test('a change of a bridge that fails at any of its steps leaves the host as it was: devices, addresses, routes', async () => {
    host.exec(
      'ip',
      'route',
      'add',
      '10.55.0.0/16',
      'via',
      '10.40.0.1',
      'dev',
      'eth0',
      'metric',
      '77',
      'proto',
      'static',
    )
    host.exec('ip', '-6', 'address', 'add', 'fd40::5/64', 'dev', 'eth0', 'nodad')
    await failsAnywhere(wish({ name: 'new0', nics: ['eth0'], addresses: ['10.40.0.5/24', 'fd40::5/64'] }))
    const moved = wish({ gateways: [], addresses: ['10.41.0.77/24'], nics: ['eth0'], mtu: 1300 })
    await failsAnywhere(moved)
    await failsAnywhere(null, 'svc0')
    host.exec('ip', 'route', 'del', '10.55.0.0/16')
    host.exec('ip', '-6', 'address', 'del', 'fd40::5/64', 'dev', 'eth0')
  })

  test('a NIC that vanished between the look and the change fails it, and the rest is as it was', async () => {
    host.exec('ip', 'link', 'add', 'gone0', 'type', 'veth', 'peer', 'name', 'gone1')
    const plugged = await everything()
    const steps = planChange({
      from: null,
      to: wish({ name: 'new0', nics: ['gone0'] }),
      host: await look(),
      ovsDatapath: 'netdev',
    })
    host.exec('ip', 'link', 'del', 'gone0')
    const before = await everything()
    assert.notDeepEqual(before, plugged)
    const result = await applyChange(parts(), { why: 'a test', steps, record, remember: async () => {} })
    assert.match(result.ok ? '' : result.why, /gone0.*(Cannot find device|does not exist).*the host is as it was/s)
    assert.deepEqual(await everything(), before)
  })

  test('a change under way when the agent dies is taken back at its next start', async () => {
    const before = await look()
    const dies = parts({
      reach: (() => {
        let asked = 0
        return async (): Promise<Reach> => {
          asked += 1
          if (asked > 1) throw new Error('the agent dies here')
          return allReached
        }
      })(),
    })
    const second = wish({ name: 'two0', nics: ['eth0'], addresses: ['10.40.0.5/24'] })
    await assert.rejects(change(second, { parts: dies }), /dies here/)
    assert.notDeepEqual(await look(), before)
    const undone = await undoUnfinished(parts())
    assert.match(undone?.why ?? '', /was under way when its process ended: it was taken back/)
    assert.deepEqual(undone?.record, record)
    assert.deepEqual(await look(), before)
    removeJournal(parts())
    assert.equal(await undoUnfinished(parts()), null)
  })

  test('a deleted one is gone, and its NIC free', async () => {
    assert.deepEqual(await change(null, { name: 'svc0' }), { ok: true })
    assert.equal(await vswitch('svc0'), null)
    assert.equal((await look()).nics.find(one => one.name === 'eth1')?.master, null)
  })
})

describe('a vSwitch as an operator asks for it', () => {
  const own = join(folder, 'own')
  const root = join(folder, 'root')
  const asked = (): VswitchParts => ({
    folder: own,
    boot: 'this-boot',
    root,
    ask: (argv, limitMs) => inHost(argv, limitMs),
    reach: async () => allReached,
    sleep: async () => {},
    confirmMs: 30_000,
    ovsDatapath: 'netdev',
    pair: { peerAddresses: ['10.41.0.6'], vips: [], pathAddresses: ['10.40.0.5'] },
  })
  const bootFile = join(root, 'etc/network/interfaces.d/understudy-svc0')

  before(() => {
    mkdirSync(join(root, 'etc/network'), { recursive: true })
    writeFileSync(join(root, 'etc/network/interfaces'), 'auto lo\niface lo inet loopback\n')
  })

  test('a wish with faults is refused with each of them, and nothing was changed', async () => {
    const was = await look()
    const result = await changeVswitch(asked(), { set: wish({ vlan: 4095, mtu: 100, addresses: ['10.41.0.6/24'] }) })
    assert.equal(result.ok, false)
    assert.match(result.why, /vlan is "4095".*mtu is "100".*is an address of the other host; nothing was changed/)
    assert.deepEqual(await look(), was)
  })

  test('it is made, remembered, and written where the host reads it at boot; only its own files are touched', async () => {
    const result = await changeVswitch(asked(), { set: wish() })
    assert.deepEqual(result, { ok: true, why: 'vSwitch svc0 is made; everything that was reached before is reached' })
    assert.match(readFileSync(bootFile, 'utf8'), /^# Written by Understudy[\s\S]*auto svc0/)
    assert.equal(readFileSync(join(root, 'etc/network/interfaces'), 'utf8'), 'auto lo\niface lo inet loopback\n')
  })

  test('what a boot has lost is made again at the next start, and only that', async () => {
    host.exec('ip', 'link', 'del', 'svc0')
    host.exec('ip', 'link', 'set', 'eth1', 'mtu', '1500')
    assert.deepEqual(await restoreVswitches(asked()), ['the vSwitch svc0 was missing and is made again'])
    assert.ok(reaches('10.41.0.1'))
    assert.deepEqual(await restoreVswitches(asked()), [])
  })

  test('what of it is lost while it is there is put back at the next start', async () => {
    host.exec('ip', 'address', 'flush', 'dev', 'svc0')
    assert.deepEqual(await restoreVswitches(asked()), ['the vSwitch svc0 had lost 10.41.0.5/24, which is put back'])
    assert.ok(reaches('10.41.0.1'))
  })

  test('a change that can’t be remembered is taken back, with what was written of it', async () => {
    const files = join(root, 'etc/network/interfaces.d')
    const [before, recorded] = [await everything(), readFileSync(join(own, 'vswitches.json'), 'utf8')]
    rmSync(files, { recursive: true })
    writeFileSync(files, 'somebody’s file')
    const result = await changeVswitch(asked(), { set: wish({ addresses: ['10.41.0.7/24'] }) })
    rmSync(files)
    assert.match(result.why, /it can't be remembered: .*the host is as it was/s)
    assert.deepEqual(await everything(), before)
    assert.equal(readFileSync(join(own, 'vswitches.json'), 'utf8'), recorded)
    assert.equal((await changeVswitch(asked(), { set: wish() })).ok, true)
    assert.match(readFileSync(bootFile, 'utf8'), /auto svc0/)
  })

  test('a NIC that other files give an address at boot is not taken, since the next boot would take it back', async () => {
    const file = join(root, 'etc/network/interfaces.d/eth0')
    writeFileSync(file, 'auto eth0\niface eth0 inet static\n    address 10.40.0.5/24\n')
    const taking = wish({ name: 'two0', nics: ['eth0'], addresses: ['10.43.0.5/24'] })
    const before = await everything()
    const refused = await changeVswitch(asked(), { set: taking })
    assert.match(
      refused.why,
      /eth0 is set up at boot by \/etc\/network\/interfaces\.d\/eth0, which is not ours.*nothing was changed/,
    )
    assert.deepEqual(await everything(), before)
    writeFileSync(file, 'auto eth0\niface eth0 inet manual\n')
    const taken = await changeVswitch(asked(), { set: taking })
    assert.ok(taken.ok, taken.why)
    assert.equal((await changeVswitch(asked(), { remove: 'two0' })).ok, true)
    rmSync(file)
    host.exec('ip', 'address', 'add', '10.40.0.5/24', 'dev', 'eth0')
  })

  test('deleted, it is forgotten, and its boot file is gone', async () => {
    assert.equal((await changeVswitch(asked(), { remove: 'svc0' })).ok, true)
    assert.ok(!existsSync(bootFile))
    assert.match((await changeVswitch(asked(), { remove: 'svc0' })).why, /there is no vSwitch svc0/)
  })
})

describe('vSwitches on Open vSwitch', () => {
  before(async () => {
    mkdirSync(runDir)
    const schema = '/usr/share/openvswitch/vswitch.ovsschema'
    const made = await exec(['ovsdb-tool', 'create', `${runDir}/conf.db`, schema], { limitMs: 10_000, env })
    assert.ok(made.ok, made.ok ? '' : made.why)
    host.spawn('ovsdb-server', [`${runDir}/conf.db`, `--remote=punix:${runDir}/db.sock`, '--no-chdir'], {
      env,
      stdio: 'ignore',
    })
    await until(() => existsSync(`${runDir}/db.sock`))
    host.spawn('ovs-vswitchd', [`unix:${runDir}/db.sock`, '--no-chdir'], { env, stdio: 'ignore' })
    await inHost(['ovs-vsctl', '--timeout=10', 'init'])
  })

  const ovs = (more: Partial<Vswitch> = {}): Vswitch => wish({ backend: 'ovs', mtu: 1500, ...more })

  test('one with an address reaches the network behind its NIC', async () => {
    assert.deepEqual(await change(ovs()), { ok: true })
    const made = await vswitch('svc0')
    assert.deepEqual({ ...made, ports: [] }, { ...ovs(), owned: true, ports: [] })
    assert.ok(reaches('10.41.0.1'))
  })

  test('a VLAN is tagged: the untagged other side is no longer reached, and is again without it', async () => {
    assert.deepEqual(await change(ovs({ vlan: 10 })), { ok: true })
    assert.equal((await vswitch('svc0'))?.vlan, 10)
    assert.ok(!reaches('10.41.0.1'))
    assert.deepEqual(await change(ovs()), { ok: true })
    assert.ok(reaches('10.41.0.1'))
  })

  test('a change of an Open vSwitch that fails at any of its steps leaves the host as it was', async () => {
    await failsAnywhere(ovs({ addresses: ['10.41.0.77/24'], nics: [], vlan: 20, mtu: 1300 }))
    await failsAnywhere(null, 'svc0')
    assert.ok(reaches('10.41.0.1'))
  })

  test('two NICs are one uplink', async () => {
    host.exec('ip', 'address', 'flush', 'dev', 'eth0')
    const bonded = ovs({ nics: ['eth0', 'eth1'], bond: 'active-backup' })
    assert.deepEqual(await change(bonded), { ok: true })
    const made = await vswitch('svc0')
    assert.deepEqual([made?.nics, made?.bond], [['eth0', 'eth1'], 'active-backup'])
  })

  test('a change that cuts the host off is taken back here too', async () => {
    const before = await look()
    const deaf = parts({
      reach: (() => {
        let asked = 0
        return async (): Promise<Reach> => ({ ...allReached, witness: ++asked === 1 })
      })(),
    })
    const result = await change(ovs({ nics: [], vlan: 20 }), { parts: deaf })
    assert.match(result.ok ? '' : result.why, /did not reach the witness within 30 s; the host is as it was/)
    assert.deepEqual(await look(), before)
  })

  test('a deleted one is gone', async () => {
    assert.deepEqual(await change(null, { name: 'svc0' }), { ok: true })
    assert.equal(await vswitch('svc0'), null)
  })

  test('an Open vSwitch that does not answer is said to be unknown, in time', async () => {
    const silent = { ...env, OVS_RUNDIR: join(folder, 'nowhere') }
    const seen = await readNetwork({
      record: [],
      vips: [],
      ask: (argv, limitMs) => exec(['ip', 'netns', 'exec', host.name, ...argv], { limitMs, env: silent }),
    })
    assert.match(seen.unknown.join(), /Open vSwitch does not answer/)
  })
})
