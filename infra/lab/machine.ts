/** The lab as machines without a product on them: two hosts, a witness box and a client, made and removed as a whole. */

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { HOSTS, type HostName, labPaths, type Member } from './addresses.ts'
import { destroyGroups, groupPath } from './control-groups.ts'
import { createDisk, destroyDisk, releaseDisk } from './disk.ts'
import { applyFabric } from './fabric.ts'
import { noFabricFaults } from './fabric-faults.ts'
import { hostPaths, powerCut, powerOn } from './hosts.ts'
import { type LabState, labExists, newLabState, writeLabState } from './lab-state.ts'
import { createNetwork, destroyNetwork, existingNamespaces } from './network.ts'

/** The members that are machines with programs; the client only lends its network to the lab's tools. */
const MACHINES: readonly Member[] = ['a', 'b', 'w']

export interface MachineOptions {
  name: string
  /** Size of a disk of its own for each host; 0: a directory, which is faster and cannot be filled. */
  diskMib?: number
}

/** Makes the machines and switches them on. Whatever an earlier lab of this name left is removed first. */
export async function createMachines(options: MachineOptions): Promise<void> {
  const { name, diskMib = 0 } = options
  if (labExists(name))
    throw new Error(`A lab named "${name}" is there already: \`npm run lab -- down --name ${name}\` ends it.`)
  await destroyMachines(name)
  const { runDir } = labPaths(name)
  mkdirSync(join(runDir, 'log'), { recursive: true })
  writeLabState(newLabState(name, diskMib))
  await createNetwork(name)
  for (const host of HOSTS) if (diskMib > 0) await createDisk(hostPaths(name, host).diskDir, diskMib)
  for (const machine of MACHINES) await powerOn(name, machine)
}

/** Removes everything of a lab, in whatever state a crash left it; nothing there is fine. */
export async function destroyMachines(name: string): Promise<void> {
  for (const host of HOSTS) await releaseDisk(hostPaths(name, host).diskDir)
  await destroyGroups(name)
  await destroyNetwork(name)
  const { runDir, diskDir } = labPaths(name)
  for (const host of HOSTS) await destroyDisk(hostPaths(name, host).diskDir)
  const mounted = mountsBelow(diskDir)
  if (mounted.length > 0) throw new Error(`Still mounted, and so not removed: ${mounted.join(', ')}.`)
  rmSync(diskDir, { recursive: true, force: true })
  rmSync(runDir, { recursive: true, force: true })
}

/** What of a lab is there, by name; empty after a `down`. */
export function remainsOf(name: string): string[] {
  const { runDir, diskDir } = labPaths(name)
  const paths = [runDir, diskDir, groupPath(name)].filter(path => existsSync(path))
  return [...existingNamespaces(name), ...mountsBelow(diskDir), ...paths]
}

function mountsBelow(path: string): string[] {
  const mounts = readFileSync('/proc/self/mounts', 'utf8').split('\n')
  return mounts.map(line => line.split(' ')[1] ?? '').filter(mount => mount.startsWith(`${path}/`))
}

export async function cutPower(state: LabState, host: HostName): Promise<void> {
  // Who waits for a disk that hangs cannot be killed.
  await releaseDisk(hostPaths(state.name, host).diskDir)
  await powerCut(state.name, host)
  state.agentPid[host] = null
  if (!state.off.includes(host)) state.off.push(host)
}

/** Switches a host on as far as its own programs; its agent is started by whoever formed the pair. */
export async function bootHost(state: LabState, host: HostName): Promise<void> {
  if (!state.off.includes(host)) throw new Error(`Host ${host} is on already.`)
  await powerOn(state.name, host)
  setWallClock(state, host)
  state.off = state.off.filter(member => member !== host)
  await applyFabric(state)
}

export function wallClockFile(lab: string, host: HostName): string {
  return join(hostPaths(lab, host).runDir, 'wall-clock-offset-ms')
}

export function setWallClock(state: LabState, host: HostName): void {
  writeFileSync(wallClockFile(state.name, host), String(state.wallClockOffsetMs[host]))
}

export async function healFabric(state: LabState): Promise<void> {
  state.fabric = noFabricFaults()
  await applyFabric(state)
}
