import { closeSync, constants, openSync, type Stats, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Sysfs } from './sysfs.ts'
import { holders, partitions, Users } from './users.ts'

/**
 * Who uses what iSCSI sessions lead to, before they are logged out: beside what an inventory tells (mounts, swap, maps),
 * programs that have a device itself open, and whoever has one for himself without being seen (a file system whose last
 * mount is gone and whose files are not, DRBD, a target): the kernel refuses to open it exclusively then, as it does for
 * wipefs(8) and mkfs(8). For a process of its own: each open may hang with its driver.
 */
export interface SessionUse {
  /** "session3". */
  session: string
  /** "sdb (mounted on /srv)". */
  what: string
}

/** They hold or look into disks for others, and lose nothing. */
const onlookers = new Set(['multipathd', 'systemd-udevd', '(udev-worker)'])

export function sessionUsers(sysfs: Sysfs): SessionUse[] {
  const disks = disksOf(sysfs)
  const others = otherNodesOf(sysfs)
  if (disks.length === 0 && others.length === 0) return []
  const partsOf = partitions(sysfs)
  const stack = holders(sysfs)
  const users = new Users(sysfs, stack)
  const opened = openNodes(sysfs)
  return [
    ...disks.flatMap(({ session, name }) => {
      const own = [name, ...(partsOf.get(name) ?? [])]
      const above = users.above(own)
      const nodes = above.flatMap(one => nodeOf(sysfs.text(`sys/class/block/${one}/dev`), 'block'))
      const seen = [
        ...users.of(
          own,
          own.flatMap(one => stack.get(one) ?? []),
        ),
        ...nodes.flatMap(node => opened.get(node) ?? []),
      ]
      const told = seen.length > 0 ? seen : claimsOf(sysfs, claimable({ own: name, above, users }))
      return told.length === 0 ? [] : [{ session, what: `${name} (${[...new Set(told)].join(', ')})` }]
    }),
    ...others.flatMap(({ session, name, node }) => {
      const told = opened.get(node) ?? []
      return told.length === 0 ? [] : [{ session, what: `${name} (${told.join(', ')})` }]
    }),
  ]
}

/** "session3" of the place of a device in sysfs, for each kind of initiator (scsi_transport_iscsi). */
const sessionOf = (place: string | null): string | null => /\/(session\d+)\//.exec(place ?? '')?.[1] ?? null

function disksOf(sysfs: Sysfs): { session: string; name: string }[] {
  return sysfs.list('sys/block').flatMap(name => {
    const session = sessionOf(sysfs.link(`sys/block/${name}`))
    return session === null ? [] : [{ session, name }]
  })
}

/** Character devices: of disks too, but also of tapes and changers, which have no other. */
const characterClasses = ['scsi_generic', 'scsi_tape', 'scsi_changer', 'bsg']

function otherNodesOf(sysfs: Sysfs): { session: string; name: string; node: string }[] {
  return characterClasses.flatMap(kind =>
    sysfs.list(`sys/class/${kind}`).flatMap(name => {
      const session = sessionOf(sysfs.link(`sys/class/${kind}/${name}`))
      if (session === null) return []
      return nodeOf(sysfs.text(`sys/class/${kind}/${name}/dev`), 'character').map(node => ({ session, name, node }))
    }),
  )
}

const nodeOf = (number: string | null, kind: 'block' | 'character'): string[] =>
  number === null ? [] : [`${kind} ${number}`]

/** Device nodes that programs have open, by kind and number, with who it is. */
function openNodes(sysfs: Sysfs): Map<string, string[]> {
  const found = new Map<string, string[]>()
  for (const pid of sysfs.list('proc').filter(name => /^\d+$/.test(name) && name !== `${process.pid}`)) {
    const who = sysfs.text(`proc/${pid}/comm`)
    if (who === null || onlookers.has(who)) continue
    for (const descriptor of sysfs.list(`proc/${pid}/fd`)) {
      const path = `proc/${pid}/fd/${descriptor}`
      // Nothing but device nodes is asked for more: a file of a network file system may not answer.
      if (sysfs.link(path)?.includes('/dev/') !== true) continue
      const node = numberOf(join(sysfs.root, path))
      if (node === null) continue
      const there = found.get(node) ?? []
      const told = `opened by ${who}, process ${pid}`
      if (!there.includes(told)) found.set(node, [...there, told])
    }
  }
  return found
}

function numberOf(path: string): string | null {
  let stats: Stats
  try {
    stats = statSync(path)
  } catch {
    return null // closed meanwhile
  }
  if (!stats.isBlockDevice() && !stats.isCharacterDevice()) return null
  return `${stats.isBlockDevice() ? 'block' : 'character'} ${deviceNumber(stats.rdev)}`
}

/** "major:minor", as makedev(3) of glibc puts them together. */
function deviceNumber(rdev: number): string {
  const bits = BigInt(rdev)
  const major = ((bits >> 8n) & 0xfffn) | ((bits >> 32n) & 0xfffff000n)
  const minor = (bits & 0xffn) | ((bits >> 12n) & 0xffffff00n)
  return `${major}:${minor}`
}

/** A disk; or, where multipath has it for itself, what that makes of it. */
function claimable({ own, above, users }: { own: string; above: readonly string[]; users: Users }): string[] {
  const maps = above.filter(one => users.isMultipath(one))
  return maps.length === 0 ? [own] : maps
}

/** Errors of a device that is gone or does not answer: then nobody has it for himself either. */
const goneErrors = new Set(['ENXIO', 'ENODEV', 'ENOMEDIUM', 'EIO'])

function claimsOf(sysfs: Sysfs, names: readonly string[]): string[] {
  return names.flatMap(name => {
    const why = claimOf(join(sysfs.root, 'dev', name.replaceAll('!', '/')))
    // A disk that has gone since it was listed is nobody's.
    return why === null || !sysfs.has(`sys/block/${name}`) ? [] : [why]
  })
}

/** null: nobody has it for himself. For reading alone: a device that was open for writing is looked at anew by udev. */
export function claimOf(path: string): string | null {
  try {
    closeSync(openSync(path, constants.O_RDONLY | constants.O_EXCL | constants.O_NONBLOCK))
    return null
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error)
    if (goneErrors.has(code)) return null
    if (code === 'EBUSY') return 'the kernel says that somebody has it for himself'
    return `${path} could not be opened to see whether somebody has it: ${code}`
  }
}
