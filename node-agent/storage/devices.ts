import type { StorageAdapter, StorageDevice, StoragePath } from '../../shared/hosts/storage.ts'
import type { MultipathMap } from './multipath.ts'
import { namespacePaths, subsystemOf, subsystemPolicy } from './nvme-paths.ts'
import type { Sysfs } from './sysfs.ts'
import { holders, partitions, Users } from './users.ts'

/**
 * Block devices that storage adapters lead to: one entry for a disk, or for the multipath map over several paths to it.
 * What the kernel makes out of files, memory or other disks (loop, ram, zram, md, device mapper) is not listed, but said
 * where it uses a disk.
 */

/** A report has to stay small; a host with more is told so by `truncated`. */
const devicesMax = 4096
const sectorBytes = 512
/** Documentation/scsi: states in which a SCSI device takes commands. */
const upStates = new Set(['running', 'live'])

export interface DeviceList {
  devices: StorageDevice[]
  /** Disks that were left out. */
  truncated: number
}

interface Disk {
  name: string
  wwid: string | null
  lun: number | null
  sizeBytes: number
  vendor: string
  model: string
  /** One, or the several of an NVMe namespace that the kernel puts together itself. */
  paths: StoragePath[]
  /** Of the kernel; null: each path is a disk of its own. */
  policy: string | null
  /** Names of device-mapper and md devices on it or on its partitions, directly. */
  holders: string[]
  parts: string[]
}

export interface DeviceSources {
  adapters: readonly StorageAdapter[]
  /** What multipathd says; [] where there is none. */
  maps: readonly MultipathMap[]
}

export function listDevices(sysfs: Sysfs, sources: DeviceSources): DeviceList {
  const adapterOf = new Map(sources.adapters.flatMap(adapter => adapter.hosts.map(host => [host, adapter.name])))
  const names = sysfs.list('sys/block').filter(name => /^(sd|sr|st|nvme\d+n)/.test(name) || /^(vd|xvd)/.test(name))
  const partsOf = partitions(sysfs)
  const stack = holders(sysfs)
  const disks = names.slice(0, devicesMax).flatMap(name => {
    const parts = partsOf.get(name) ?? []
    return (
      readDisk(sysfs, { name, adapterOf, parts, holders: [name, ...parts].flatMap(one => stack.get(one) ?? []) }) ?? []
    )
  })
  const users = new Users(sysfs, stack)
  const mapOf = new Map(sources.maps.map(map => [map.device, map]))
  const devices: StorageDevice[] = []
  const byMap = new Map<string, Disk[]>()
  for (const disk of disks) {
    const map = disk.holders.find(holder => users.isMultipath(holder))
    if (map === undefined) devices.push(single(disk, users))
    else byMap.set(map, [...(byMap.get(map) ?? []), disk])
  }
  for (const [map, paths] of byMap) devices.push(multipath(paths, { map, users, policy: mapOf.get(map) }))
  return { devices, truncated: Math.max(0, names.length - devicesMax) }
}

interface DiskFacts {
  name: string
  adapterOf: ReadonlyMap<string, string>
  parts: string[]
  holders: string[]
}

function readDisk(sysfs: Sysfs, { name, adapterOf, parts, holders }: DiskFacts): Disk | null {
  const base = `sys/block/${name}`
  const sectors = sysfs.number(`${base}/size`)
  if (sectors === null) return null
  const real = sysfs.link(base) ?? ''
  const address = /\/(\d+:\d+:\d+:(\d+))\/block\//.exec(real)
  const nvme = name.startsWith('nvme')
  const subsystem = subsystemOf(real)
  const paths =
    subsystem === null
      ? onlyPath(sysfs, { name, adapterOf, address: address?.[1] ?? null, real })
      : namespacePaths(sysfs, { name, subsystem })
  // A paravirtual disk has no adapter of its own and is nobody else's.
  if (paths === null) return null
  return {
    name,
    // "naa.6001405…", "eui.…", "t10.…" (SPC-4, page 0x83), or NVMe's own. A disk that only names itself has none.
    wwid: sysfs.text(nvme ? `${base}/wwid` : `${base}/device/wwid`),
    lun: address === null ? (sysfs.number(`${base}/nsid`) ?? namespaceOf(name)) : Number(address[2]),
    sizeBytes: sectors * sectorBytes,
    vendor: sysfs.text(`${base}/device/vendor`) ?? (nvme ? 'NVMe' : 'unknown'),
    model: sysfs.text(`${base}/device/model`) ?? 'unknown',
    paths,
    policy: subsystem === null ? null : subsystemPolicy(sysfs, subsystem),
    holders: [...new Set(holders)],
    parts,
  }
}

interface PathFacts {
  name: string
  adapterOf: ReadonlyMap<string, string>
  /** host:channel:target:lun */
  address: string | null
  real: string
}

function onlyPath(sysfs: Sysfs, { name, adapterOf, address, real }: PathFacts): StoragePath[] | null {
  const host = address === null ? undefined : `host${address.split(':')[0]}`
  const adapter = host === undefined ? /\/(nvme\d+)\//.exec(real)?.[1] : (adapterOf.get(host) ?? host)
  if (adapter === undefined) return null
  const state = sysfs.text(`sys/block/${name}/device/state`) ?? 'unknown'
  return [{ name, adapter, address, state, up: upStates.has(state) }]
}

/** An NVMe namespace's id is in its name, counted from 1. */
const namespaceOf = (name: string): number | null => {
  const id = /n(\d+)$/.exec(name)?.[1]
  return id === undefined ? null : Number(id)
}

const single = (disk: Disk, users: Users): StorageDevice => ({
  name: disk.name,
  wwid: disk.wwid,
  lun: disk.lun,
  sizeBytes: disk.sizeBytes,
  vendor: disk.vendor,
  model: disk.model,
  paths: disk.paths,
  multipathPolicy: disk.policy,
  usedBy: users.of([disk.name, ...disk.parts], disk.holders),
})

function multipath(
  paths: readonly Disk[],
  { map, users, policy }: { map: string; users: Users; policy: MultipathMap | undefined },
): StorageDevice {
  const first = paths[0]!
  const holders = users.holdersOf(map)
  const down = new Set(policy?.paths.filter(path => !path.up).map(path => path.name))
  return {
    ...single(first, users),
    name: users.nameOf(map),
    paths: paths.flatMap(one => one.paths).map(path => ({ ...path, up: path.up && !down.has(path.name) })),
    multipathPolicy: policy?.policy ?? 'unknown',
    usedBy: users.of([map], holders),
  }
}
