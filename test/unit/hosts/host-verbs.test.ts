import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { type HostVerbs, runHostVerb } from '../../../node-agent/control/host-verbs.ts'
import { Looker } from '../../../node-agent/inventory/looker.ts'
import { readHost } from '../../../node-agent/inventory/read-host.ts'
import { runChange } from '../../../node-agent/network/change-process.ts'
import { storageInventory } from '../../../node-agent/storage/inventory.ts'
import { Scanner } from '../../../node-agent/storage/scan.ts'
import { Sysfs } from '../../../node-agent/storage/sysfs.ts'
import { ahci, fakeSysfs, iscsiTcp, mounts, qla2xxx } from './fake-sysfs.ts'

/** Commands of the control plane that concern a host alone, on a tree of sysfs. */
const tree = fakeSysfs([ahci, qla2xxx, iscsiTcp, mounts].join('\n'))
const folder = mkdtempSync(join(tmpdir(), 'understudy-verbs-'))
after(() => {
  tree.remove()
  rmSync(folder, { recursive: true, force: true })
})
const configPath = join(folder, 'agent.json')
const configure = (deployment: 'distributed' | 'converged'): void =>
  writeFileSync(
    configPath,
    JSON.stringify({
      stateDir: join(folder, 'state'),
      socket: join(folder, 'agent.sock'),
      pairKeyFile: join(folder, 'pair.key'),
      hostKeyFile: join(folder, 'host.key'),
      postgres: {
        binDir: '/usr/lib/postgresql/15/bin',
        dataDir: join(folder, 'data'),
        socketDir: join(folder, 'run'),
        port: 5432,
        user: 'postgres',
        mode: 'create',
      },
      network: { deployment },
    }),
  )
configure('distributed')
const sysfs = new Sysfs(tree.root)
const settings = {
  networkFolder: join(folder, 'network'),
  storageFolder: join(folder, 'state', 'storage'),
  vips: [],
  configPath,
}
const at: HostVerbs = {
  configPath,
  sysfs,
  host: () => readHost(settings, tree.root),
  storage: () => storageInventory(sysfs),
  scanner: new Scanner({ sysfs, devices: async () => (await storageInventory(sysfs)).devices }),
  tell: async () => null,
  theirInitiatorName: async () => 'iqn.2026-01.example.host:b',
}
const scan = (adapters: string[], lip = false) =>
  runHostVerb({ verb: 'storageScan', args: { adapters, lip, limitSeconds: 5 } }, at)
const iqn = (name: string) => runHostVerb({ verb: 'initiatorName', args: { name, logOutSessions: false } }, at)
const read = (path: string): string => readFileSync(join(tree.root, path), 'utf8').trim()

test('what is a matter of the pair is no verb of the host alone', async () => {
  for (const verb of ['switchover', 'takeover', 'pairBegin'] as const)
    assert.equal(await runHostVerb({ verb, args: {} }, at), null)
})

test('a scan asks the adapters that are named, and refuses one that this host has not before any is asked', async () => {
  const missing = await scan(['host0', 'host77'])
  assert.equal(missing?.phase, 'refused')
  assert.match(
    missing?.message ?? '',
    /adapters is "host77" and must be adapters of this host; it has host0, host1, host3/,
  )
  assert.equal(read('sys/class/scsi_host/host0/scan'), '')
  const done = await scan(['host0'])
  assert.equal(done?.message, '1 adapter looked again')
  assert.equal(read('sys/class/scsi_host/host0/scan'), '- - -')
  assert.equal(read('sys/class/scsi_host/host3/scan'), '')
  assert.ok(done?.phase === 'done')
  const { adapters, change } = done.result as { adapters: { adapter: string }[]; change: object }
  assert.deepEqual(
    adapters.map(one => one.adapter),
    ['host0'],
  )
  assert.deepEqual(change, { added: [], removed: [], resized: [] })
})

test('a LIP is made from afar only when it is asked for, by name and of Fibre Channel', async () => {
  const lip = 'sys/class/fc_host/host3/issue_lip'
  assert.equal((await scan(['host3']))?.phase, 'done')
  for (const wrong of [[], ['host0'], ['host3', 'host0']]) assert.equal((await scan(wrong, true))?.phase, 'refused')
  assert.equal(read(lip), '')
  assert.equal((await scan(['host3'], true))?.phase, 'done')
  assert.equal(read(lip), '1')
})

test('an initiator name that is none, is the other host’s, or would leave a session with the old one, is refused and the file stays', async () => {
  const file = 'etc/iscsi/initiatorname.iscsi'
  const before = read(file)
  const refusals: [string, RegExp][] = [
    ['my host', /the initiator name "my host" must not contain spaces/],
    ['iqn.2026-01.example.host:b', /the other host has it/],
    ['iqn.2026-01.example.host:new', /1 session is logged in \(iqn\.2026-01\.example\.store:data\)/],
  ]
  for (const [name, why] of refusals) {
    const outcome = await iqn(name)
    assert.equal(outcome?.phase, 'refused')
    assert.match(outcome?.message ?? '', why)
  }
  assert.equal(read(file), before)
  assert.equal((await iqn('iqn.2026-01.example.host:a'))?.phase, 'done', 'it has that name already')
})

test('an adapter that hangs costs a command its time and nobody the link: the answer says why', async () => {
  // Opening a pipe that nobody writes to hangs as a read of a dead adapter does.
  const state = join(tree.root, 'sys/class/scsi_host/host0/state')
  const was = readFileSync(state)
  rmSync(state)
  execFileSync('mkfifo', [state])
  // As the link has it: each look is a process of its own.
  const slow = new Looker({ settings, root: tree.root, limitMs: 3000 })
  const began = performance.now()
  let turns = 0
  const beat = setInterval(() => turns++, 50)
  try {
    const hung = { ...at, host: () => slow.host(), storage: () => slow.storage() }
    const outcomes = await Promise.all([
      runHostVerb({ verb: 'inventory', args: {} }, hung),
      runHostVerb({ verb: 'storageScan', args: { adapters: ['host3'], lip: false, limitSeconds: 5 } }, hung),
    ])
    for (const outcome of outcomes) {
      assert.equal(outcome?.phase, 'failed')
      assert.match(outcome?.message ?? '', /a driver hangs/)
    }
    assert.ok(performance.now() - began < 60_000 && turns > 5, `${turns} turns`)
  } finally {
    clearInterval(beat)
    rmSync(state)
    writeFileSync(state, was)
  }
})

test('a vSwitch is asked for of a host that waits for its pair too, and each refusal is a sentence', async () => {
  const missing = await runHostVerb({ verb: 'vswitch', args: { put: null, remove: 'nothere' } }, at)
  assert.equal(missing?.phase, 'failed')
  assert.match(missing?.message ?? '', /there is no vSwitch nothere; this host has .*; nothing was changed/)
  const wish = { name: 'svc0', backend: 'bridge', types: ['service'], addresses: [] } as const
  const put = {
    ...wish,
    description: '',
    vlan: null,
    nics: [],
    bond: null,
    mtu: 1500,
    gateways: Array(5).fill('fd00::1'),
  }
  const many = await runChange(configPath, { set: { ...put, types: [...put.types], addresses: [] } })
  assert.equal(many.ok, false)
  assert.match(many.why, /gateways is "fd00::1" and is a second gateway for IPv6.*nothing was changed/)
})

test('a portal that is none is refused with the rule, and nothing is asked', async () => {
  const outcome = await runHostVerb({ verb: 'storageDiscovery', args: { portal: 'storage.example' } }, at)
  assert.equal(outcome?.phase, 'refused')
  assert.match(outcome?.message ?? '', /portal is "storage\.example" and must be an IPv4 or IPv6 address/)
})

test('arguments of another version fail with a sentence; they never throw into the link', async () => {
  const outcome = await runHostVerb({ verb: 'storageScan', args: { adapters: 'all' } }, at)
  assert.equal(outcome?.phase, 'failed')
  assert.match(outcome?.message ?? '', /adapters/)
})

test('a host of a converged deployment refuses every change from afar, whatever the control plane thinks', async () => {
  configure('converged')
  try {
    const asked = [
      await scan(['host0']),
      await iqn('iqn.2026-01.example.host:a'),
      await runHostVerb({ verb: 'storageDiscovery', args: { portal: '10.0.0.9' } }, at),
      await runHostVerb({ verb: 'vswitch', args: { put: null, remove: 'svc0' } }, at),
    ]
    for (const outcome of asked) {
      assert.equal(outcome?.phase, 'refused')
      assert.match(outcome?.message ?? '', /converged deployment/)
    }
  } finally {
    configure('distributed')
  }
})
