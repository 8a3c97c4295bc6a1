import { randomUUID } from 'node:crypto'
import { closeSync, constants, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, statSync } from 'node:fs'
import { exec } from '../exec.ts'
import { allocateFd } from '../kernel/file-calls.ts'
import { KernelError } from '../kernel/libc.ts'
import { writeWhole } from '../pair/setup-file.ts'
import { isMountOf, mountAt } from './mounts.ts'
import { readPartitionRecord, writePartitionRecord } from './partition-record.ts'
import { mebibyte } from './set-up-agreement.ts'
import type { PartitionConfig, TreeConfig } from './settings.ts'

/**
 * Makes the partition of a tree and mounts it. Each step leaves something durable and is skipped when it is there, so
 * that an interrupted set-up is simply run again; what stands in the way is refused before (partition-check.ts).
 */
export interface PartitionPart {
  tree: TreeConfig & { partition: PartitionConfig }
  stateDir: string
  /** A step in words, as it begins. */
  progress: (line: string) => void
}

/** Tables of inodes of a disk of many terabytes, on a slow one. */
const formatLimitMs = 15 * 60_000
const mountLimitMs = 60_000
const label = 'understudy'

export async function preparePartition({ tree, stateDir, progress }: PartitionPart): Promise<void> {
  const { name, path, partition } = tree
  const { source } = partition
  let record = readPartitionRecord(stateDir, name)
  if (record === null) {
    record = { version: 1, source, uuid: randomUUID(), isMade: false }
    progress(`the partition of tree ${name} is this host's to make`)
    await writePartitionRecord(stateDir, name, record)
  }
  if (!record.isMade) {
    if (statSync(source, { throwIfNoEntry: false })?.isBlockDevice() !== true) {
      progress(`${source} with ${partition.sizeMb} MiB`)
      allocate(source, (partition.sizeMb ?? 0) * mebibyte)
    }
    progress(`a file system in ${source}`)
    // Nothing is kept back for root: the service's files are all there is. Nothing is given back to the disk below.
    const format = ['mkfs.ext4', '-q', '-F', '-m', '0', '-E', 'nodiscard', '-L', label, '-U', record.uuid, source]
    await must(format, formatLimitMs)
    flush(source)
    await writePartitionRecord(stateDir, name, { ...record, isMade: true })
  }
  if (!existsSync(path)) mkdirSync(path, { recursive: true, mode: 0o755 })
  const mount = mountAt(path)
  if (mount !== null && isMountOf(mount, source)) return
  progress(`${source} is mounted on ${path}`)
  await (hasSystemd() ? mountByUnit : mountAtOnce)(tree, record.uuid)
}

/** All of it at once: a file with holes would let the disk beside it run full under a file system that has room. */
function allocate(path: string, bytes: number): void {
  const fd = openSync(path, constants.O_CREAT | constants.O_RDWR | constants.O_NOFOLLOW, 0o600)
  try {
    const result = allocateFd(fd, bytes)
    if (result < 0) throw new KernelError(`allocating ${bytes} bytes in ${path}`, -result)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

function flush(path: string): void {
  const fd = openSync(path, constants.O_RDWR)
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** sd_booted(3). */
const hasSystemd = (): boolean => existsSync('/run/systemd/system')

async function mountAtOnce({ path, partition }: PartitionPart['tree'], uuid: string): Promise<void> {
  const { what, options } = sourceOf(partition, uuid)
  await must(['mount', '-t', 'ext4', '-o', options, what, path], mountLimitMs)
}

/**
 * A unit of systemd's: it is there again after a boot, before the agent, and mounted in the host's own view, which a
 * set-up from afar is not in. Wanted by the agent alone, so that a disk that is missing keeps no host from booting.
 */
async function mountByUnit({ name, path, partition }: PartitionPart['tree'], uuid: string): Promise<void> {
  const { what, options } = sourceOf(partition, uuid)
  const unit = (await must(['systemd-escape', '--path', '--suffix=mount', path], mountLimitMs)).trim()
  const file = `/etc/systemd/system/${unit}`
  const text = `# Made by understudy for its tree ${name}.
[Unit]
Description=Files of Understudy's tree ${name}
Before=understudy.service

[Mount]
What=${escaped(what)}
Where=${escaped(path)}
Type=ext4
Options=${options}

[Install]
WantedBy=understudy.service
`
  if (!existsSync(file) || readFileSync(file, 'utf8') !== text) await writeWhole(file, text)
  await must(['systemctl', '--no-ask-password', 'daemon-reload'], mountLimitMs)
  await must(['systemctl', '--no-ask-password', 'enable', '--quiet', unit], mountLimitMs)
  await must(['systemctl', '--no-ask-password', 'start', unit], mountLimitMs)
}

/** systemd.unit(5): a percent sign begins a specifier. */
const escaped = (path: string): string => path.replaceAll('%', '%%')

/** A device is found by its file system: its name may be another one's after a boot. */
function sourceOf({ source }: PartitionConfig, uuid: string): { what: string; options: string } {
  if (statSync(source).isBlockDevice()) {
    const byUuid = `/dev/disk/by-uuid/${uuid}`
    return { what: existsSync(byUuid) ? byUuid : source, options: 'nodev' }
  }
  return { what: source, options: 'loop,nodev' }
}

async function must(argv: readonly string[], limitMs: number): Promise<string> {
  const result = await exec(argv, { limitMs })
  if (!result.ok) throw new Error(result.why)
  return result.stdout
}
