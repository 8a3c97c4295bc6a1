import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
  statfsSync,
  statSync,
} from 'node:fs'
import { dirname } from 'node:path'
import type { ConfigFault } from '../config-faults.ts'
import { exec } from '../exec.ts'
import { isMountOf, mountAt } from './mounts.ts'
import { partitionRecordPath, readPartitionRecord } from './partition-record.ts'
import { mebibyte } from './set-up-agreement.ts'
import type { PartitionConfig, TreeConfig } from './settings.ts'

/** Whether the partition of a tree can be made, or is made already. Reads; changes nothing. */
export interface PartitionWish {
  tree: TreeConfig & { partition: PartitionConfig }
  /** Of the tree, in messages: `sync.trees[0]`. */
  field: string
  stateDir: string
  /** Left free beside a file that is made. */
  reserveMb: number
  /** A device whose contents somebody has given up by name. */
  erase: string | null
}

const programs = ['mkfs.ext4', 'blkid', 'mount'] as const
const programLimitMs = 20_000
/** Looked at from both ends: what has no signature may still be somebody's data. */
const lookedAtBytes = mebibyte

export async function partitionFaults(wish: PartitionWish): Promise<ConfigFault[]> {
  const missing = await missingPrograms(wish.field)
  if (missing.length > 0) return missing
  const { tree, stateDir, field } = wish
  const { source } = tree.partition
  const record = readPartitionRecord(stateDir, tree.name)
  const at = { field: `${field}.partition.source`, value: source }
  if (record !== null && record.source !== source) {
    const rule = `is not ${record.source}, from which this host ${record.isMade ? 'made' : 'began to make'} the partition of tree ${tree.name}`
    const remedy = `name that one, or another tree; ${partitionRecordPath(stateDir, tree.name)} remembers it`
    return [{ ...at, rule, remedy }]
  }
  const there = statSync(source, { throwIfNoEntry: false })
  if (record?.isMade === true) {
    if (there !== undefined) return placeFaults(wish)
    const rule = `was made for tree ${tree.name}, and is not there now`
    return [{ ...at, rule, remedy: 'put it back: the tree’s files are in it' }]
  }
  if (there?.isBlockDevice() === true) {
    const begun = record !== null
    return [...placeFaults(wish), ...(await deviceFaults(wish, { begun }))]
  }
  if (there !== undefined && record === null) {
    const rule = there.isFile() ? 'is a file already' : 'is neither a block device nor a file'
    return [{ ...at, rule, remedy: 'name a file that is not there yet, or an empty block device' }]
  }
  return [...placeFaults(wish), ...fileFaults(wish)]
}

async function missingPrograms(field: string): Promise<ConfigFault[]> {
  const asked = await Promise.all(
    programs.map(async name => ({ name, ...(await exec([name, '-V'], { limitMs: programLimitMs })) })),
  )
  const missing = asked.filter(one => !one.ok && one.code === null).map(one => one.name)
  if (missing.length === 0) return []
  const rule = `needs ${missing.join(' and ')}, which this host lacks`
  return [{ field: `${field}.partition`, value: undefined, rule, remedy: 'install e2fsprogs, util-linux and mount' }]
}

/** Where it is going to be mounted. */
function placeFaults({ tree, field }: PartitionWish): ConfigFault[] {
  const { path, partition } = tree
  const at = { field: `${field}.path`, value: path }
  const stat = lstatSync(path, { throwIfNoEntry: false })
  if (stat === undefined) return []
  if (!stat.isDirectory())
    return [{ ...at, rule: 'is not a directory', remedy: 'name one that is not there yet, or an empty one' }]
  const mount = mountAt(path)
  if (mount !== null) {
    if (isMountOf(mount, partition.source)) return []
    const rule = `has ${mount.source} mounted on it`
    return [{ ...at, rule, remedy: 'leave `partition` out to take that as it is, or unmount it' }]
  }
  const names = readdirSync(path)
  if (names.length === 0) return []
  const rule = `is not empty (${names.slice(0, namesShown).join(', ')}), and the partition would hide that`
  return [{ ...at, rule, remedy: 'move it away, or leave `partition` out to take the directory as it is' }]
}
const namesShown = 3

function fileFaults({ tree, field, reserveMb }: PartitionWish): ConfigFault[] {
  const { source, sizeMb } = tree.partition
  const at = { field: `${field}.partition`, value: source }
  if (sizeMb === null) {
    const rule = 'is no block device of this host, and sizeMb does not say how large a file is to be made'
    return [{ ...at, rule, remedy: 'add sizeMb, or name a device; `lsblk` lists them' }]
  }
  const folder = dirname(source)
  if (!existsSync(folder)) return [{ ...at, rule: `lies in ${folder}, which is not there`, remedy: 'make it first' }]
  const held = lstatSync(source, { throwIfNoEntry: false })?.size ?? 0
  const freeMb = Math.floor((freeBytes(folder) + held) / mebibyte)
  if (freeMb >= sizeMb + reserveMb) return []
  const rule = `needs ${sizeMb} MiB, with ${reserveMb} left beside it, and ${freeMb} MiB are free in ${folder}`
  return [{ ...at, rule, remedy: 'make it smaller, make room, or name another disk' }]
}

/** Space for everybody: what is kept back for root is not counted. */
export function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path)
  return bavail * bsize
}

async function deviceFaults(
  { tree, field, erase }: PartitionWish,
  { begun }: { begun: boolean },
): Promise<ConfigFault[]> {
  const { source, sizeMb } = tree.partition
  const at = { field: `${field}.partition.source`, value: source }
  const fd = openAlone(source)
  if (fd < 0) {
    const rule = 'is in use: mounted, or part of something else (RAID, LVM, swap)'
    return [{ ...at, rule, remedy: '`lsblk` and `findmnt` tell by whom; name a device that nobody uses' }]
  }
  try {
    const bytes = sizeOfDevice(source)
    if (sizeMb !== null && bytes < sizeMb * mebibyte) {
      const rule = `has ${Math.floor(bytes / mebibyte)} MiB, and sizeMb asks for ${sizeMb}`
      return [{ ...at, rule, remedy: 'name a larger device, or ask for less' }]
    }
    // What this set-up began to write there is nobody's data.
    if (begun || (erase !== null && existsSync(erase) && realpathSync(erase) === realpathSync(source))) return []
    const found = await contentOf(source, { fd, bytes })
    if (found === null) return []
    const remedy = `name an empty device; if nothing on it is needed any more: --erase ${source}`
    return [{ ...at, rule: `is not empty: ${found}`, remedy }]
  } finally {
    closeSync(fd)
  }
}

/** open(2): with O_EXCL a block device that the system uses is refused. */
function openAlone(source: string): number {
  try {
    return openSync(source, constants.O_RDONLY | constants.O_EXCL)
  } catch {
    return -1
  }
}

function sizeOfDevice(source: string): number {
  const fd = openSync(source, constants.O_RDONLY)
  try {
    return lastByte(fd)
  } finally {
    closeSync(fd)
  }
}

/** A device has no size in its stat: the largest offset at which a byte can be read, found by halving. */
function lastByte(fd: number): number {
  const one = Buffer.alloc(1)
  const isThere = (offset: number): boolean => readSync(fd, one, 0, 1, offset) === 1
  let [low, high] = [0, 512]
  while (isThere(high - 1)) [low, high] = [high, high * 2]
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2)
    if (isThere(middle - 1)) low = middle
    else high = middle
  }
  return low
}

/** What is on a device, in words; null when it is empty. */
async function contentOf(source: string, { fd, bytes }: { fd: number; bytes: number }): Promise<string | null> {
  const probed = await exec(['blkid', '-p', '-o', 'export', source], { limitMs: programLimitMs })
  // blkid(8): 2 when nothing is known there.
  if (!probed.ok && probed.code !== nothingFound) return `blkid can't tell what it holds (${probed.why})`
  const facts = new Map(
    probed.stdout.split('\n').map(line => [line.split('=')[0] ?? '', line.slice(line.indexOf('=') + 1)]),
  )
  const kind = facts.get('TYPE') ?? facts.get('PTTYPE')
  if (kind !== undefined) {
    const label = facts.get('LABEL')
    const what = facts.has('TYPE') ? kind : `a partition table (${kind})`
    return `it holds ${what}${label === undefined ? '' : `, labelled ${label}`}`
  }
  if (!fstatSync(fd).isBlockDevice()) return 'it is no block device any more'
  const block = Buffer.alloc(lookedAtBytes)
  for (const offset of [0, Math.max(0, bytes - lookedAtBytes)]) {
    const read = readSync(fd, block, 0, lookedAtBytes, offset)
    if (block.subarray(0, read).some(byte => byte !== 0)) return `there is data at ${offset} bytes`
  }
  return null
}
const nothingFound = 2
