import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  statfsSync,
  statSync,
} from 'node:fs'
import { join } from 'node:path'
import { type Config, ConfigError } from '../config.ts'
import type { ConfigFault } from '../config-faults.ts'
import { exec } from '../exec.ts'
import { readState } from '../state-file/state-file.ts'
import { isMountOf, mountAt } from './mounts.ts'
import { preparePartition } from './partition.ts'
import { freeBytes, partitionFaults } from './partition-check.ts'
import { roleRecordPath } from './role-file.ts'
import { type HeldTree, mebibyte } from './set-up-agreement.ts'
import type { PartitionConfig, TreeConfig } from './settings.ts'

/** As many as one reads. */
const namedMax = 8

export interface TreesSetUp {
  /** joins: this host gets the other one's files. adds: a pair that is there gets another tree. */
  part: 'begins' | 'joins' | 'adds'
  /** A set-up of this host was begun before: its own agent may be at work. */
  resumed: boolean
  /** A device whose contents somebody has given up by name. */
  erase: string | null
  /** What the other host's trees hold, where it is known. */
  other: readonly HeldTree[]
}

/**
 * What keeps the trees of a configuration from being replicated, before anything is changed. The host that joins gets the
 * other one's files: whoever has files open below its trees would go on in what is replaced. The same for a directory
 * that a partition is going to be mounted on: it would go on in what is hidden.
 */
export async function treeFaults(config: Config, how: TreesSetUp): Promise<ConfigFault[]> {
  const found: ConfigFault[] = []
  for (const [index, tree] of (config.sync?.trees ?? []).entries())
    found.push(...(await oneTreeFaults(tree, { ...how, field: `sync.trees[${index}]`, host: config })))
  if (how.erase !== null && !(config.sync?.trees ?? []).some(one => one.partition?.source === how.erase)) {
    const remedy = 'name it as `partition.source` of a tree, exactly as here'
    found.push({ field: '--erase', value: how.erase, rule: 'is the partition of no tree', remedy })
  }
  return found
}

/** Whose state and limits count; `node` null: a host without a pair. */
type Host = Pick<Config, 'stateDir' | 'limits'> & { node: Config['node'] | null }

/** Of one tree. */
export async function oneTreeFaults(
  tree: TreeConfig,
  how: TreesSetUp & { field: string; host: Host },
): Promise<ConfigFault[]> {
  const { partition } = tree
  const { field, host, part } = how
  const isMade = partition !== null && isMountedHere(tree.path, partition)
  const faults =
    partition === null
      ? directoryFaults(tree, field)
      : await partitionFaults({
          tree: { ...tree, partition },
          field,
          stateDir: host.stateDir,
          reserveMb: host.limits.freeDiskMb,
          erase: how.erase,
        })
  // One reason at a time: a directory that is not there has neither users nor room.
  if (faults.length > 0 || how.resumed || isMade) return faults
  const isReplaced = part === 'joins' || (part === 'adds' && isNewOnBackup(tree, host))
  const why = isReplaced ? 'this host’s copy is replaced by the other one’s' : 'a partition is mounted over them'
  const users = isReplaced || partition !== null ? userFaults(tree, { field, why }) : []
  const held = how.other.find(one => one.name === tree.name)
  return held === undefined ? users : [...users, ...roomFaults(tree, { field, held })]
}

function directoryFaults({ path }: TreeConfig, field: string): ConfigFault[] {
  const stat = lstatSync(path, { throwIfNoEntry: false })
  if (stat?.isDirectory() === true) return []
  const rule = stat === undefined ? 'is not there' : 'is not a directory'
  const remedy = `make it (mkdir -p ${path}), mount its partition there, or let one be made by \`partition\``
  return [{ field: `${field}.path`, value: path, rule, remedy }]
}

/** As of the register's newest value that this host knows. A tree that is replicated already has its own worker below it. */
function isNewOnBackup({ name }: TreeConfig, { stateDir, node }: Host): boolean {
  if (node === null || existsSync(roleRecordPath(stateDir, name))) return false
  const state = readState(stateDir)
  const known = state.ok ? state.durable.known : null
  return known !== null && known.value.primary !== node
}

function userFaults({ path }: TreeConfig, { field, why }: { field: string; why: string }): ConfigFault[] {
  const users = existsSync(path) ? openBelow(path) : []
  if (users.length === 0) return []
  const rule = `has files open by ${users.slice(0, namedMax).join(', ')}${users.length > namedMax ? ', …' : ''}`
  return [{ field: `${field}.path`, value: path, rule, remedy: `stop them: ${why}` }]
}

/** What the other host has fits here, beside what is not going to be replaced. */
function roomFaults(
  { path, partition }: TreeConfig,
  { field, held }: { field: string; held: HeldTree },
): ConfigFault[] {
  const heldMb = Math.ceil(held.usedBytes / mebibyte)
  if (partition?.sizeMb != null && held.partitionMb !== null) {
    if (partition.sizeMb >= held.partitionMb) return []
    const rule = `is smaller than the other host’s partition of ${held.partitionMb} MiB`
    const remedy = 'make both equal: what fits on the one has to fit on the other'
    return [{ field: `${field}.partition.sizeMb`, value: partition.sizeMb, rule, remedy }]
  }
  if (partition !== null) {
    if (partition.sizeMb === null || partition.sizeMb > heldMb) return []
    const rule = `has no room for the ${heldMb} MiB that the other host’s copy holds`
    return [{ field: `${field}.partition.sizeMb`, value: partition.sizeMb, rule, remedy: 'make it larger' }]
  }
  const freeMb = Math.floor(freeBytes(path) / mebibyte)
  if (freeMb >= heldMb) return []
  const rule = `lies where ${freeMb} MiB are free, and the other host’s copy holds ${heldMb} MiB`
  return [{ field: `${field}.path`, value: path, rule, remedy: 'make room, or name a path on a larger disk' }]
}

function isMountedHere(path: string, { source }: PartitionConfig): boolean {
  const mount = mountAt(path)
  return mount !== null && isMountOf(mount, source)
}

/** Checked and made before the agent starts anew with them. @throws ConfigError */
export async function prepareWishedTrees(config: Config): Promise<void> {
  const faults = await treeFaults(config, { part: 'adds', resumed: false, erase: null, other: [] })
  if (faults.length > 0) throw new ConfigError('this wish', faults)
  await prepareTrees(config, () => undefined)
}

/** Makes the partitions that the configuration names, or goes on with them. Checks come before: {@link treeFaults}. */
export async function prepareTrees({ sync, stateDir }: Config, progress: (line: string) => void): Promise<void> {
  for (const tree of sync?.trees ?? []) {
    const { partition } = tree
    if (partition !== null) await preparePartition({ tree: { ...tree, partition }, stateDir, progress })
  }
}

/** Of millions of files, on a slow disk. */
const countLimitMs = 120_000

/** What the trees of this host hold, for the other one. What can't be told in time is left out. */
export async function heldTrees({ sync }: Config): Promise<HeldTree[]> {
  const held: HeldTree[] = []
  for (const { name, path, partition } of sync?.trees ?? []) {
    const usedBytes = mountAt(path) === null ? await countedBytes(path) : usedOfFileSystem(path)
    if (usedBytes !== null) held.push({ name, usedBytes, partitionMb: partition?.sizeMb ?? null })
  }
  return held
}

function usedOfFileSystem(path: string): number {
  const { blocks, bfree, bsize } = statfsSync(path)
  return (blocks - bfree) * bsize
}

async function countedBytes(path: string): Promise<number | null> {
  const counted = await exec(['du', '-s', '-x', '--block-size=1', '--', path], { limitMs: countLimitMs })
  const bytes = Number.parseInt(counted.stdout, 10)
  return Number.isFinite(bytes) ? bytes : null
}

/**
 * Processes with a file, a program, a working directory or a root in a folder, as `command (pid)`. One for which this path leads to
 * another directory, such as a container's, is none of them.
 */
export function openBelow(folder: string): string[] {
  const real = realpathSync(folder)
  const own = statSync(real)
  const view = link('/proc/self/ns/mnt')
  const seesIt = (at: string): boolean => {
    if (link(join(at, 'ns/mnt')) === view) return true
    const seen = statOf(join(at, 'root', real))
    return seen !== null && seen.dev === own.dev && seen.ino === own.ino
  }
  const isBelow = (target: string | null): boolean => target === real || target?.startsWith(`${real}/`) === true
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter(pid => {
      const at = join('/proc', pid)
      if (!seesIt(at)) return false
      const links = ['cwd', 'root', 'exe'].map(name => link(join(at, name)))
      return [...links, ...descriptors(at), ...mapped(at)].some(isBelow)
    })
    .map(pid => `${command(pid)} (${pid})`)
}

function descriptors(at: string): (string | null)[] {
  try {
    return readdirSync(join(at, 'fd')).map(fd => link(join(at, 'fd', fd)))
  } catch {
    // It has ended.
    return []
  }
}

/** What is in its memory needs no descriptor: programs, libraries, files of a database that maps them (proc_pid_maps(5)). */
function mapped(at: string): string[] {
  try {
    const lines = readFileSync(join(at, 'maps'), 'utf8').split('\n')
    return lines.filter(line => line.includes('/')).map(line => line.slice(line.indexOf('/')))
  } catch {
    // It has ended.
    return []
  }
}

function statOf(path: string): { dev: number; ino: number } | null {
  try {
    return statSync(path)
  } catch {
    return null
  }
}

function link(path: string): string | null {
  try {
    return readlinkSync(path)
  } catch {
    return null
  }
}

function command(pid: string): string {
  try {
    return readFileSync(join('/proc', pid, 'comm'), 'utf8').trim()
  } catch {
    return 'a process'
  }
}
