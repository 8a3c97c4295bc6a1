import type { StorageAdapter, StorageDevice, StoragePath } from '../../shared/hosts/storage.ts'
import { mountLines } from '../kernel/mountinfo.ts'
import type { MultipathMap } from './multipath.ts'
import { namespacePaths, subsystemOf, subsystemPolicy } from './nvme-paths.ts'
import type { Sysfs } from './sysfs.ts'

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

/** Partitions by disk. One listing for all of them: a large host has thousands of disks. */
function partitions(sysfs: Sysfs): Map<string, string[]> {
  const found = new Map<string, string[]>()
  for (const name of sysfs.list('sys/class/block')) {
    const disk = /^(sd[a-z0-9]*?[a-z])\d+$/.exec(name)?.[1] ?? /^(nvme\d+n\d+)p\d+$/.exec(name)?.[1]
    if (disk !== undefined) found.set(disk, [...(found.get(disk) ?? []), name])
  }
  return found
}

/** Who stands on a block device, directly: read from above, since few devices are made of others. */
function holders(sysfs: Sysfs): Map<string, string[]> {
  const found = new Map<string, string[]>()
  for (const name of sysfs.list('sys/block').filter(one => /^(dm-|md|bcache)/.test(one))) {
    for (const below of sysfs.list(`sys/block/${name}/slaves`)) found.set(below, [...(found.get(below) ?? []), name])
  }
  return found
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

/** Who is on a block device: file systems, swap, and the maps and arrays stacked on it, followed to their ends. */
class Users {
  readonly #sysfs: Sysfs
  /** Mount points by "major:minor" (proc(5), mountinfo). */
  readonly #mounts = new Map<string, string[]>()
  readonly #swaps: Set<string>

  readonly #stack: ReadonlyMap<string, string[]>

  constructor(sysfs: Sysfs, stack: ReadonlyMap<string, string[]>) {
    this.#sysfs = sysfs
    this.#stack = stack
    for (const { device, point } of mountLines(sysfs.file('proc/self/mountinfo') ?? ''))
      this.#mounts.set(device, [...(this.#mounts.get(device) ?? []), point])
    const swaps = (sysfs.file('proc/swaps') ?? '').split('\n').slice(1)
    this.#swaps = new Set(swaps.map(line => line.split(/\s/)[0]?.replace(/^\/dev\//, '') ?? ''))
  }

  isMultipath(name: string): boolean {
    return this.#sysfs.text(`sys/block/${name}/dm/uuid`)?.startsWith('mpath-') === true
  }

  nameOf(name: string): string {
    return this.#sysfs.text(`sys/block/${name}/dm/name`) ?? name
  }

  holdersOf(name: string): string[] {
    return this.#stack.get(name) ?? []
  }

  of(names: readonly string[], holders: readonly string[]): string[] {
    const found = names.flatMap(name => this.#direct(name))
    return [...found, ...this.#stacked(holders, depthMax)].slice(0, usersMax)
  }

  #direct(name: string): string[] {
    const device = this.#sysfs.text(`sys/class/block/${name}/dev`)
    const mounts = device === null ? [] : (this.#mounts.get(device) ?? [])
    return [...mounts.map(point => `mounted on ${point}`), ...(this.#swaps.has(name) ? ['swap'] : [])]
  }

  #stacked(holders: readonly string[], depth: number): string[] {
    if (depth === 0) return []
    return holders.flatMap(holder => {
      const uuid = this.#sysfs.text(`sys/block/${holder}/dm/uuid`)
      const kind = uuid?.startsWith('LVM-') ? 'LVM volume' : uuid?.startsWith('CRYPT-') ? 'encrypted volume' : 'map'
      const what = holder.startsWith('md') ? `array ${holder}` : `${kind} ${this.nameOf(holder)}`
      return [what, ...this.#direct(holder), ...this.#stacked(this.holdersOf(holder), depth - 1)]
    })
  }
}

/** Partition, RAID, encryption, volume, map: deeper stacks are not made by people. */
const depthMax = 6
const usersMax = 32
