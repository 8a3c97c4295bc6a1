import { basename } from 'node:path'
import { type MountLine, mountLines } from '../kernel/mountinfo.ts'
import { exportedDevices } from './exports.ts'
import type { Sysfs } from './sysfs.ts'

/**
 * Who is on a block device: file systems, in whichever mount namespace, swap, other hosts to which it is given, and what the
 * kernel makes of it (maps, arrays, loop devices), followed to their ends.
 */
export class Users {
  readonly #sysfs: Sysfs
  readonly #stack: ReadonlyMap<string, string[]>
  /** In words, by "major:minor" (proc(5), mountinfo), or by name where the file system has a number of its own. */
  readonly #mounts = new Map<string, Set<string>>()
  readonly #swaps: Set<string>
  /** Disks of mounted btrfs file systems; mountinfo names one of several. */
  readonly #btrfs: Set<string>
  readonly #exports: ReadonlyMap<string, string[]>

  constructor(sysfs: Sysfs, stack: ReadonlyMap<string, string[]>) {
    this.#sysfs = sysfs
    this.#stack = stack
    for (const line of mountLines(sysfs.file('proc/self/mountinfo') ?? '')) this.#mount(line, '')
    for (const { who, lines } of otherMounts(sysfs)) for (const line of lines) this.#mount(line, ` for ${who}`)
    const swaps = (sysfs.file('proc/swaps') ?? '').split('\n').slice(1)
    this.#swaps = new Set(swaps.map(line => line.split(/\s/)[0]?.replace(/^\/dev\//, '') ?? ''))
    const btrfs = sysfs.list('sys/fs/btrfs').flatMap(id => sysfs.list(`sys/fs/btrfs/${id}/devices`))
    this.#btrfs = new Set(btrfs)
    this.#exports = exportedDevices(sysfs)
  }

  /** A path to a disk, or a partition of what paths lead to: what is above it counts, not itself. */
  isMultipath(name: string): boolean {
    return /^(part\d+-)?mpath-/.test(this.#sysfs.text(`sys/block/${name}/dm/uuid`) ?? '')
  }

  nameOf(name: string): string {
    return this.#sysfs.text(`sys/block/${name}/dm/name`) ?? name
  }

  holdersOf(name: string): string[] {
    return this.#stack.get(name) ?? []
  }

  of(names: readonly string[], holders: readonly string[]): string[] {
    const found = names.flatMap(name => this.#direct(name))
    return [...new Set([...found, ...this.#stacked(holders, depthMax)])].slice(0, usersMax)
  }

  /** Everything that stands on these, themselves included. */
  above(names: readonly string[], depth = depthMax): string[] {
    if (depth === 0 || names.length === 0) return [...names]
    return [
      ...new Set([
        ...names,
        ...this.above(
          names.flatMap(name => this.holdersOf(name)),
          depth - 1,
        ),
      ]),
    ]
  }

  #mount({ device, point, source }: MountLine, who: string): void {
    const keys = device.startsWith('0:') ? sourcesOf(this.#sysfs, source) : [device]
    for (const key of keys) {
      const there = this.#mounts.get(key) ?? new Set<string>()
      // Most of what another namespace has is what this one has.
      if (!there.has(`mounted on ${point}`)) there.add(`mounted on ${point}${who}`)
      this.#mounts.set(key, there)
    }
  }

  #direct(name: string): string[] {
    const device = this.#sysfs.text(`sys/class/block/${name}/dev`)
    const mounts = [...((device === null ? null : this.#mounts.get(device)) ?? this.#mounts.get(name) ?? [])]
    const btrfs = mounts.length === 0 && this.#btrfs.has(name) ? ['part of a mounted btrfs'] : []
    return [...mounts, ...btrfs, ...(this.#swaps.has(name) ? ['swap'] : []), ...(this.#exports.get(name) ?? [])]
  }

  #stacked(holders: readonly string[], depth: number): string[] {
    if (depth === 0) return []
    return holders.flatMap(holder => {
      const what = this.isMultipath(holder) ? [] : [this.#kindOf(holder)]
      return [...what, ...this.#direct(holder), ...this.#stacked(this.holdersOf(holder), depth - 1)]
    })
  }

  #kindOf(holder: string): string {
    if (holder.startsWith('md')) return `array ${holder}`
    if (holder.startsWith('loop')) return `loop device ${holder}`
    const uuid = this.#sysfs.text(`sys/block/${holder}/dm/uuid`)
    const kind = uuid?.startsWith('LVM-') ? 'LVM volume' : uuid?.startsWith('CRYPT-') ? 'encrypted volume' : 'map'
    return `${kind} ${this.nameOf(holder)}`
  }
}

/** Partition, RAID, encryption, volume, map: deeper stacks are not made by people. */
const depthMax = 6
const usersMax = 32
/** A host with more has containers by the thousand, and what they mount comes from it. */
const namespacesMax = 256

/** Who stands on a block device, directly: read from above, since few devices are made of others. */
export function holders(sysfs: Sysfs): Map<string, string[]> {
  const found = new Map<string, string[]>()
  const put = (below: string, name: string): void => {
    found.set(below, [...(found.get(below) ?? []), name])
  }
  for (const name of sysfs.list('sys/block')) {
    if (/^(dm-|md|bcache)/.test(name)) for (const below of sysfs.list(`sys/block/${name}/slaves`)) put(below, name)
    // Over a disk instead of a file; what has none has no such attribute.
    const file = name.startsWith('loop') ? sysfs.text(`sys/block/${name}/loop/backing_file`) : null
    if (file?.startsWith('/dev/')) put(basename(sysfs.target(file.slice(1)) ?? file), name)
  }
  return found
}

/** Partitions by disk. One listing for all of them: a large host has thousands of disks. */
export function partitions(sysfs: Sysfs): Map<string, string[]> {
  const found = new Map<string, string[]>()
  for (const name of sysfs.list('sys/class/block')) {
    const disk = /^(sd[a-z0-9]*?[a-z])\d+$/.exec(name)?.[1] ?? /^(nvme\d+n\d+)p\d+$/.exec(name)?.[1]
    if (disk !== undefined) found.set(disk, [...(found.get(disk) ?? []), name])
  }
  return found
}

/** Those of other mount namespaces, each once, by the name of a process that is in it. */
function otherMounts(sysfs: Sysfs): { who: string; lines: MountLine[] }[] {
  const seen = new Set([sysfs.link('proc/self/ns/mnt')])
  return sysfs
    .list('proc')
    .filter(name => /^\d+$/.test(name))
    .flatMap(pid => {
      const namespace = sysfs.link(`proc/${pid}/ns/mnt`)
      if (namespace === null || seen.has(namespace) || seen.size > namespacesMax) return []
      const text = sysfs.file(`proc/${pid}/mountinfo`)
      // It has ended meanwhile; another one of its namespace may be there.
      if (text === null) return []
      seen.add(namespace)
      return [{ who: sysfs.text(`proc/${pid}/comm`) ?? `process ${pid}`, lines: mountLines(text) }]
    })
}

/** The kernel's names of what a file system without a device number of its own is on (btrfs; bcachefs: several). */
const sourcesOf = (sysfs: Sysfs, source: string): string[] =>
  source
    .split(':')
    .filter(one => one.startsWith('/dev/'))
    .map(one => basename(sysfs.target(one.slice(1)) ?? one))
