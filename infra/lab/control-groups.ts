/** Control groups (version 2) of the lab: one for each host, so that a power cut reaches every process of it. */

import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** SIGKILLed processes are gone in 10–20 ms; one that waits for a disk may take longer. */
const EMPTY_DEADLINE_MS = 10_000
const POLL_MS = 2

/**
 * Where control groups version 2 are mounted: /sys/fs/cgroup on most systems, /sys/fs/cgroup/unified on hybrid ones.
 * @throws if there is no such mount
 */
export function controlGroupMount(mounts = readFileSync('/proc/self/mounts', 'utf8')): string {
  for (const line of mounts.split('\n')) {
    const [, path, type] = line.split(' ')
    if (type === 'cgroup2' && path !== undefined) return path
  }
  throw new Error('The lab needs control groups version 2, and no cgroup2 file system is mounted here.')
}

export function groupPath(lab: string, member?: string): string {
  const top = join(controlGroupMount(), 'understudy-lab', lab)
  return member === undefined ? top : join(top, member)
}

export function createGroup(lab: string, member: string): string {
  const path = groupPath(lab, member)
  mkdirSync(path, { recursive: true })
  return path
}

function subgroups(group: string): string[] {
  return readdirSync(group, { withFileTypes: true })
    .filter(entry => entry.isDirectory())
    .map(entry => join(group, entry.name))
}

/** Process ids in a group and in all groups below it, those a host made itself included. */
export function processesIn(group: string): number[] {
  if (!existsSync(group)) return []
  const own = readFileSync(join(group, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number)
  return [...own, ...subgroups(group).flatMap(processesIn)]
}

/** SIGKILL to every process of the group at once, in the kernel: nothing can fork its way out. */
export function killGroup(group: string): void {
  if (existsSync(group)) writeFileSync(join(group, 'cgroup.kill'), '1')
}

/** Resolves when no process of the group is left. */
export async function untilEmpty(group: string): Promise<void> {
  const deadline = performance.now() + EMPTY_DEADLINE_MS
  while (existsSync(group) && /populated 1/.test(readFileSync(join(group, 'cgroup.events'), 'utf8'))) {
    if (performance.now() > deadline) {
      throw new Error(
        `Processes ${processesIn(group).join(', ')} in ${group} outlived SIGKILL by ${EMPTY_DEADLINE_MS} ms.`,
      )
    }
    await sleep(POLL_MS)
  }
}

/** Removes an empty group with the groups below it. */
export function removeGroup(group: string): void {
  if (!existsSync(group)) return
  for (const below of subgroups(group)) removeGroup(below)
  rmdirSync(group)
}

/** Kills and removes all of a lab's groups; nothing there is fine. */
export async function destroyGroups(lab: string): Promise<void> {
  const top = groupPath(lab)
  killGroup(top)
  await untilEmpty(top)
  removeGroup(top)
  try {
    rmdirSync(dirname(top))
  } catch {
    // Another lab is still there.
  }
}
