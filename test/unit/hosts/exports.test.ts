import assert from 'node:assert/strict'
import { test } from 'node:test'
import { listAdapters } from '../../../node-agent/storage/adapters.ts'
import { listDevices } from '../../../node-agent/storage/devices.ts'
import { sessionUsers } from '../../../node-agent/storage/session-users.ts'
import { Sysfs } from '../../../node-agent/storage/sysfs.ts'
import { fakeSysfs, iscsiTcp } from './fake-sysfs.ts'

test('a disk that this host gives to others is in use, whether their kernel part has it for itself or not', () => {
  const core = 'sys/kernel/config/target/core'
  const namespaces = 'sys/kernel/config/nvmet/subsystems/nqn.2024-01.org.example:a/namespaces'
  const other = fakeSysfs(`
    ${iscsiTcp}
    sys/block/sde -> sys/devices/platform/host5/session1/target5:0:0/5:0:0:2/block/sde
    sys/devices/platform/host5/session1/target5:0:0/5:0:0:2/block/sde/size = 2097152
    sys/class/block/sde1/dev = 8:65
    sys/block/sdf -> sys/devices/platform/host5/session1/target5:0:0/5:0:0:3/block/sdf
    sys/devices/platform/host5/session1/target5:0:0/5:0:0:3/block/sdf/size = 2097152
    dev/disk/by-id/wwn-0x6001405 -> dev/sdd
    dev/sde1/x = 1
    dev/sdf/x = 1
    ${core}/iblock_0/one/enable = 1
    ${core}/iblock_0/one/udev_path = /dev/disk/by-id/wwn-0x6001405
    ${core}/fileio_1/two/enable = 1
    ${core}/fileio_1/two/info = TCM FILEIO ID: 0 File: /dev/sde1 Size: 1073741824 Mode: O_DSYNC Async: 0
    ${core}/fileio_1/three/enable = 0
    ${core}/fileio_1/three/udev_path = /dev/sdf
    ${namespaces}/1/enable = 1
    ${namespaces}/1/device_path = /dev/sdd
    ${namespaces}/2/enable = 0
    ${namespaces}/2/device_path = (null)
  `)
  try {
    const there = new Sysfs(other.root)
    const found = listDevices(there, { adapters: listAdapters(there, { initiatorName: null }), maps: [] }).devices
    const overNvme = 'exported over NVMe as namespace 1 of nqn.2024-01.org.example:a'
    assert.deepEqual(
      found.map(one => [one.name, one.usedBy]),
      [
        ['sdd', ['exported by LIO as iblock_0/one', overNvme]],
        ['sde', ['exported by LIO as fileio_1/two']],
        ['sdf', []],
      ],
    )
    assert.deepEqual(
      sessionUsers(there).map(one => one.what),
      [`sdd (exported by LIO as iblock_0/one, ${overNvme})`, 'sde (exported by LIO as fileio_1/two)'],
    )
  } finally {
    other.remove()
  }
})
