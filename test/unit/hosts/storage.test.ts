import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { listAdapters, listSessions } from '../../../node-agent/storage/adapters.ts'
import { listDevices } from '../../../node-agent/storage/devices.ts'
import { readInitiatorName } from '../../../node-agent/storage/initiator-name.ts'
import { parseMultipath } from '../../../node-agent/storage/multipath.ts'
import { chooseAdapters, Scanner } from '../../../node-agent/storage/scan.ts'
import { sessionUsers } from '../../../node-agent/storage/session-users.ts'
import { Sysfs } from '../../../node-agent/storage/sysfs.ts'
import { deviceChange, lunDifferences, type StorageDevice, sharedLuns } from '../../../shared/hosts/storage.ts'
import { ahci, fakeSysfs, fcoeAndNvme, iscsiTcp, mounts, nvmeMultipath, qla2xxx, sas } from './fake-sysfs.ts'

const tree = fakeSysfs([ahci, qla2xxx, iscsiTcp, sas, fcoeAndNvme, nvmeMultipath, mounts].join('\n'))
after(() => tree.remove())
const sysfs = new Sysfs(tree.root)
const adapters = listAdapters(sysfs, { initiatorName: readInitiatorName(tree.root) })
const adapter = (name: string) => adapters.find(one => one.name === name)
const multipathd = JSON.stringify({
  major_version: 0,
  maps: [
    {
      name: 'mpatha',
      sysfs: 'dm-0',
      path_groups: [
        { selector: 'service-time 0', paths: [{ dev: 'sdb', dm_st: 'active' }] },
        { selector: 'service-time 0', paths: [{ dev: 'sdc', dm_st: 'failed' }] },
      ],
    },
  ],
})
const { devices } = listDevices(sysfs, { adapters, maps: parseMultipath(multipathd) })
const device = (name: string): StorageDevice => {
  const found = devices.find(one => one.name === name)
  assert.ok(found, `no device ${name} in ${devices.map(one => one.name).join(' ')}`)
  return found
}

test('every kind of adapter is listed once, sessions of the software initiator under one', () => {
  const kinds = Object.fromEntries(adapters.map(one => [one.name, one.kind]))
  assert.deepEqual(kinds, {
    host0: 'scsi',
    host1: 'scsi',
    host3: 'fc',
    host4: 'sas',
    host6: 'fcoe',
    iscsi: 'iscsi',
    nvme0: 'nvme',
    nvme1: 'nvme',
    nvme2: 'nvme',
    nvme3: 'nvme',
  })
})

test('a local SATA host has a model from its PCI function, a speed, and no identifier', () => {
  assert.deepEqual(adapter('host0'), {
    name: 'host0',
    kind: 'scsi',
    driver: 'ahci',
    model: 'PCI 8086:2922',
    identifier: null,
    state: 'running',
    speed: '6.0 Gbps',
    targets: [],
    hosts: ['host0'],
  })
  assert.equal(adapter('host1')?.speed, null, 'nothing is plugged in there')
})

test('a Fibre Channel host shows its port name, and only remote ports that are targets', () => {
  const fc = adapter('host3')
  assert.equal(fc?.identifier, '21:00:00:24:ff:7e:1a:2b')
  assert.equal(fc?.model, 'QLE2742')
  assert.equal(fc?.state, 'Online')
  assert.deepEqual(fc?.targets, [
    { identifier: '50:0a:09:80:81:23:45:67', state: 'Online' },
    { identifier: '50:0a:09:80:91:23:45:67', state: 'Blocked' },
  ])
})

test('the software initiator has the name of the file, since its hosts say "(null)"', () => {
  const iscsi = adapter('iscsi')
  assert.equal(iscsi?.identifier, 'iqn.2026-01.example.host:a')
  assert.deepEqual(iscsi?.targets, [{ identifier: 'iqn.2026-01.example.store:data', state: 'LOGGED_IN' }])
  assert.deepEqual(
    listSessions(sysfs).map(one => [one.initiatorName, one.portal]),
    [['iqn.2026-01.example.host:a', '[fd00::9]:3260']],
  )
})

test('a SAS host counts the phys that are up', () => {
  assert.equal(adapter('host4')?.speed, '2 × 12.0 Gbit')
  assert.equal(adapter('host4')?.identifier, '50:06:05:b0:0a:1b:2c:3d')
})

test('an unknown speed is no speed, and NVMe over TCP is named by its host', () => {
  assert.equal(adapter('host6')?.speed, null)
  assert.equal(adapter('nvme1')?.identifier, 'nqn.2014-08.org.nvmexpress:uuid:1b4e28ba-2fa1-11d2-883f-0016d3cca427')
  assert.deepEqual(adapter('nvme1')?.targets, [{ identifier: 'nqn.2026-01.example.store:fast', state: 'connecting' }])
})

test('two paths under one multipath map are one device, with the paths that are up', () => {
  const map = device('mpatha')
  assert.equal(map.lun, 1)
  assert.equal(map.sizeBytes, 209_715_200 * 512)
  assert.equal(map.multipathPolicy, 'service-time 0')
  assert.deepEqual(
    map.paths.map(path => [path.name, path.address, path.state, path.up]),
    [
      ['sdb', '3:0:0:1', 'running', true],
      ['sdc', '3:0:1:1', 'transport-offline', false],
    ],
  )
  assert.deepEqual(map.usedBy, ['LVM volume vg0-data'])
})

test('a disk says what is mounted on its partitions', () => {
  assert.deepEqual(device('sda').usedBy, ['mounted on /'])
  assert.equal(device('sda').wwid, 'naa.55cd2e41516e1a2b')
})

test('a disk below a file system of another mount namespace, of btrfs, and below a loop device, is in use', () => {
  const other = fakeSysfs(`
    ${iscsiTcp}
    sys/class/block/sdd/dev = 8:48
    sys/block/sde -> sys/devices/platform/host5/session1/target5:0:0/5:0:0:2/block/sde
    sys/devices/platform/host5/session1/target5:0:0/5:0:0:2/block/sde/size = 2097152
    sys/class/block/sde/dev = 8:64
    sys/block/sdf -> sys/devices/platform/host5/session1/target5:0:0/5:0:0:3/block/sdf
    sys/devices/platform/host5/session1/target5:0:0/5:0:0:3/block/sdf/size = 2097152
    sys/block/sdg -> sys/devices/platform/host5/session1/target5:0:0/5:0:0:4/block/sdg
    sys/devices/platform/host5/session1/target5:0:0/5:0:0:4/block/sdg/size = 2097152
    sys/fs/btrfs/6c1e4f0a-7d7a-4f5b-9d62-0a4f3b0f4f11/devices/sde/x = 1
    sys/fs/btrfs/6c1e4f0a-7d7a-4f5b-9d62-0a4f3b0f4f11/devices/sdf/x = 1
    sys/block/loop3/loop/backing_file = /dev/sdg
    proc/self/mountinfo = 22 1 0:41 / /pool rw - btrfs /dev/sde rw
    proc/77/comm = postgres
    proc/77/mountinfo = 30 1 8:48 / /data rw - ext4 /dev/sdd rw
  `)
  try {
    for (const [pid, namespace] of [
      ['self', 'mnt:[1]'],
      ['77', 'mnt:[2]'],
    ] as const) {
      mkdirSync(join(other.root, `proc/${pid}/ns`), { recursive: true })
      symlinkSync(namespace, join(other.root, `proc/${pid}/ns/mnt`))
    }
    const there = new Sysfs(other.root)
    const found = listDevices(there, { adapters: listAdapters(there, { initiatorName: null }), maps: [] }).devices
    assert.deepEqual(
      found.map(one => [one.name, one.usedBy]),
      [
        ['sdd', ['mounted on /data for postgres']],
        ['sde', ['mounted on /pool']],
        ['sdf', ['part of a mounted btrfs']],
        ['sdg', ['loop device loop3']],
      ],
    )
  } finally {
    other.remove()
  }
})

test('a tape or changer of a session that a program has open is in use by it', () => {
  const other = fakeSysfs(`
    sys/class/scsi_generic/sg3 -> sys/devices/platform/host5/session1/target5:0:0/5:0:0:9/scsi_generic/sg3
    sys/devices/platform/host5/session1/target5:0:0/5:0:0:9/scsi_generic/sg3/dev = 1:3
    proc/77/comm = mtx
    proc/78/comm = multipathd
  `)
  try {
    for (const pid of ['77', '78']) {
      mkdirSync(join(other.root, `proc/${pid}/fd`))
      // Number 1:3, the only one that each machine has.
      symlinkSync('/dev/null', join(other.root, `proc/${pid}/fd/5`))
    }
    assert.deepEqual(sessionUsers(new Sysfs(other.root)), [
      { session: 'session1', what: 'sg3 (opened by mtx, process 77)' },
    ])
  } finally {
    other.remove()
  }
})

test('an NVMe namespace hangs on its controller', () => {
  assert.deepEqual(device('nvme0n1').paths, [
    { name: 'nvme0n1', adapter: 'nvme0', address: null, state: 'live', up: true },
  ])
  assert.equal(device('nvme0n1').lun, 1)
})

test('an NVMe namespace that several controllers lead to has a path by each, up where it may be used there', () => {
  const shared = device('nvme2n1')
  assert.deepEqual(
    [shared.lun, shared.wwid, shared.model, shared.multipathPolicy],
    [7, 'uuid.6c1e4f0a-7d7a-4f5b-9d62-0a4f3b0f4f11', 'Linux', 'numa'],
  )
  assert.deepEqual(
    shared.paths.map(path => [path.name, path.adapter, path.state, path.up]),
    [
      ['nvme2c2n1', 'nvme2', 'live, optimized', true],
      ['nvme2c3n1', 'nvme3', 'live, inaccessible', false],
    ],
  )
})

test('the real machine can be listed too, whatever it has', () => {
  const real = new Sysfs()
  assert.doesNotThrow(() => listDevices(real, { adapters: listAdapters(real, { initiatorName: null }), maps: [] }))
})

test('both hosts see the same LUNs, or each difference is a sentence; local disks are not compared', () => {
  const seen = (list: readonly StorageDevice[]) => ({ luns: sharedLuns({ adapters, devices: [...list] }), whole: true })
  const host = seen(devices)
  const why = (other: readonly StorageDevice[]) => lunDifferences({ a: host, b: seen(other) })
  assert.deepEqual(why(devices), [])
  assert.deepEqual(why(devices.filter(one => one.name !== 'sdd')), [
    { why: 'LUN t10.IET     00010001 (sdd) is seen by a and not by b', blocks: false },
  ])
  assert.deepEqual(
    why(devices.filter(one => one.name !== 'mpatha')).map(one => one.blocks),
    [true],
    'the primary uses it, and a takeover would miss it',
  )
  const grown = devices.map(one => (one.name === 'mpatha' ? { ...one, sizeBytes: one.sizeBytes * 2 } : one))
  assert.match(why(grown)[0]?.why ?? '', /scan the host that is behind/)
  const dead = devices.map(one => ({ ...one, paths: one.paths.map(path => ({ ...path, up: false })) }))
  assert.match(
    why(dead)
      .map(one => one.why)
      .join(),
    /no path that is up on b/,
  )
  assert.deepEqual(why(devices.filter(one => one.name !== 'sda' && one.name !== 'nvme0n1')), [])
})

test('of more LUNs than a host tells, only those are compared that both lists reach', () => {
  const luns = ['naa.1', 'naa.2', 'naa.3'].map(wwid => ({ wwid, name: wwid, sizeBytes: 1, up: true, used: false }))
  // One host lacks the first, so its list of two reaches further.
  const found = lunDifferences({
    a: { luns: luns.slice(0, 2), whole: false },
    b: { luns: luns.slice(1), whole: false },
  })
  assert.deepEqual(
    found.map(one => one.why),
    ['LUN naa.1 (naa.1) is seen by a and not by b', 'only the LUNs up to naa.2 are compared, there are too many'],
  )
})

test('a change of devices is told by identity, not by the name the kernel happened to give', () => {
  const sdb = { ...device('sdd'), name: 'sdz' }
  assert.deepEqual(deviceChange([device('sdd')], [sdb]), { added: [], removed: [], resized: [] })
  const bigger = { ...sdb, sizeBytes: sdb.sizeBytes * 2 }
  assert.deepEqual(deviceChange([device('sdd'), device('sda')], [bigger]), {
    added: [],
    removed: ['sda'],
    resized: [{ name: 'sdz', fromBytes: sdb.sizeBytes, toBytes: bigger.sizeBytes }],
  })
})

const scanPath = join(tree.root, 'sys/class/scsi_host/host3/scan')
const scanner = () =>
  new Scanner({ sysfs, devices: () => Promise.resolve(listDevices(sysfs, { adapters, maps: [] }).devices) })

test('a scan asks the host for everything, reads capacities again, and makes no LIP unless asked', async () => {
  const fc = adapter('host3')!
  const result = await scanner().scan([fc], { limitMs: 5000, lip: false })
  assert.deepEqual(
    result.adapters.map(one => one.ok),
    [true],
  )
  assert.equal(readFileSync(scanPath, 'utf8'), '- - -\n')
  assert.equal(readFileSync(join(tree.root, 'sys/block/sdb/device/rescan'), 'utf8'), '1\n')
  assert.equal(readFileSync(join(tree.root, 'sys/class/fc_host/host3/issue_lip'), 'utf8').trim(), '')
  await scanner().scan([fc], { limitMs: 5000, lip: true })
  assert.equal(readFileSync(join(tree.root, 'sys/class/fc_host/host3/issue_lip'), 'utf8'), '1\n')
})

test('a LIP is made of named adapters alone, and of those that know one; an adapter that is not there is said with those that are', () => {
  const choose = (names: string[], lip: boolean) => {
    const chosen = chooseAdapters(adapters, { names, lip })
    return chosen.ok ? chosen.adapters.map(one => one.name).join() : chosen.why
  }
  assert.equal(choose([], false).split(',').length, adapters.length)
  assert.equal(choose(['host3'], true), 'host3')
  assert.match(choose([], true), /^lip is "true" and .* must be asked for with the names of the adapters/)
  assert.match(
    choose(['host3', 'host0'], true),
    /^lip is "host3, host0" and must name adapters of Fibre Channel.*host0 is of kind scsi/,
  )
  assert.match(
    choose(['host3', 'host77'], false),
    /^adapters is "host77" and must be adapters of this host; it has host0/,
  )
})

test('the limit is for the adapter: what is left of it when devices have taken their time is all that the next one gets', async () => {
  const rescan = (name: string): string => join(tree.root, 'sys/block', name, 'device/rescan')
  for (const name of ['sdb', 'sdc']) writeFileSync(rescan(name), '')
  let now = 0
  const slow = new Scanner({
    sysfs,
    devices: () => Promise.resolve(listDevices(sysfs, { adapters, maps: [] }).devices),
    // Each look at the clock is two minutes later: the scan and the first device are asked, and then the time is over.
    nowMs: () => (now += 120_000),
  })
  const [result] = (await slow.scan([adapter('host3')!], { limitMs: 300_000, lip: false })).adapters
  assert.match(result?.ok === false ? result.why : '', /^the 300000 ms of host3 were over before \/sys\/block\/sdc\//)
  assert.deepEqual(
    ['sdb', 'sdc'].map(name => readFileSync(rescan(name), 'utf8')),
    ['1\n', ''],
  )
})

test('an adapter that hangs is given up after its limit, holds no other one up, and is not asked again meanwhile', async () => {
  // Opening a pipe that nobody reads hangs as a dead path does.
  rmSync(scanPath)
  execFileSync('mkfifo', [scanPath])
  const one = scanner()
  const began = performance.now()
  const result = await one.scan([adapter('host3')!, adapter('host0')!], { limitMs: 1500, lip: false })
  assert.ok(performance.now() - began < 5000)
  const [fc, local] = result.adapters
  assert.match(fc?.ok === false ? fc.why : '', /did not take the request within 1500 ms; its driver hangs/)
  assert.equal(local?.ok, true)
  rmSync(scanPath)
  writeFileSync(scanPath, '')
  // The child of before was killed in the pipe; here that is at once, in a driver it may take minutes.
  const deadline = performance.now() + 5000
  let again = await one.scan([adapter('host3')!], { limitMs: 5000, lip: false })
  while (again.adapters[0]?.ok === false && performance.now() < deadline) {
    await sleep(20)
    again = await one.scan([adapter('host3')!], { limitMs: 5000, lip: false })
  }
  assert.deepEqual(
    again.adapters.map(({ ms: _, ...rest }) => rest),
    [{ adapter: 'host3', ok: true }],
  )
})

test('a device that has gone since the look before holds up no other one of its adapter', async () => {
  const there = device('mpatha')
  const [path] = there.paths
  const gone = { ...there, name: 'gone', paths: [{ ...path!, name: 'sdgone' }] }
  const rescan = join(tree.root, 'sys/block/sdb/device/rescan')
  writeFileSync(rescan, '')
  const both = new Scanner({ sysfs, devices: async () => [gone, there] })
  const [result] = (await both.scan([adapter('host3')!], { limitMs: 5000, lip: false })).adapters
  assert.equal(result?.ok === false ? result.why : '', '')
  assert.equal(readFileSync(rescan, 'utf8'), '1\n')
})

test('an adapter that vanished meanwhile fails alone, with the path that is missing', async () => {
  const gone = { ...adapter('host4')!, name: 'host9', hosts: ['host9'] }
  const [result] = (await scanner().scan([gone], { limitMs: 5000, lip: false })).adapters
  assert.match(result?.ok === false ? result.why : '', /host9\/scan.*No such file/)
})
