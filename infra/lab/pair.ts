/** The product on the lab's machines: configuration files, the witness, the two agents, forming the pair. */

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type HostName, labPaths } from './addresses.ts'
import { hostPaths } from './hosts.ts'
import type { LabState } from './lab-state.ts'

export function dataDirOf(lab: string, host: HostName): string {
  return join(hostPaths(lab, host).diskDir, 'postgres')
}

const formedFile = (lab: string): string => join(labPaths(lab).runDir, 'formed')

export function isPairFormed(lab: string): boolean {
  return existsSync(formedFile(lab))
}

export async function startAgent(_state: LabState, host: HostName): Promise<void> {
  throw new Error(`Host ${host} has no agent yet.`)
}

export async function startWitness(_state: LabState): Promise<void> {
  throw new Error('There is no witness yet.')
}
