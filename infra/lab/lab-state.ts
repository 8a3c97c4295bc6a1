/** What is written down of a lab, so that every command finds it and `down` can follow a crash. */

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type HostName, labPaths, type Member } from './addresses.ts'
import { type FabricFaults, noFabricFaults } from './fabric-faults.ts'
import { isAlive } from './processes.ts'

export interface LabState {
  name: string
  /** Size of each host's own disk; 0: a directory of the machine's. */
  diskMib: number
  agentPid: { [host in HostName]: number | null }
  witnessPid: number | null
  wirePid: number | null
  fabric: FabricFaults
  /** Added to the wall clock of a host's agent. */
  wallClockOffsetMs: { [host in HostName]: number }
  off: Member[]
}

/** Two commands at once take turns; a fault takes some ten ms, `up` holds the lock only between its steps. */
const LOCK_DEADLINE_MS = 30_000

const stateFile = (lab: string): string => join(labPaths(lab).runDir, 'state.json')
const lockDir = (lab: string): string => join(labPaths(lab).runDir, 'lock')

export function newLabState(name: string, diskMib: number): LabState {
  return {
    name,
    diskMib,
    agentPid: { a: null, b: null },
    witnessPid: null,
    wirePid: null,
    fabric: noFabricFaults(),
    wallClockOffsetMs: { a: 0, b: 0 },
    off: [],
  }
}

export function labExists(lab: string): boolean {
  return existsSync(stateFile(lab))
}

/** @throws with the names of the labs that do run */
export function readLabState(lab: string): LabState {
  if (!labExists(lab)) {
    const running = runningLabs()
    const others = running.length > 0 ? `Running: ${running.join(', ')}.` : 'None runs.'
    throw new Error(`There is no lab named "${lab}". ${others} Start it with \`npm run lab -- up --name ${lab}\`.`)
  }
  return JSON.parse(readFileSync(stateFile(lab), 'utf8')) as LabState
}

export function writeLabState(state: LabState): void {
  mkdirSync(labPaths(state.name).runDir, { recursive: true })
  writeFileSync(`${stateFile(state.name)}.new`, JSON.stringify(state, null, 2))
  renameSync(`${stateFile(state.name)}.new`, stateFile(state.name))
}

export function runningLabs(): string[] {
  const top = join(labPaths('x').runDir, '..')
  if (!existsSync(top)) return []
  return readdirSync(top).filter(labExists)
}

/** Changes the state with nobody else changing it meanwhile. The lock of a dead process is taken over. */
export async function withLabState<T>(lab: string, change: (state: LabState) => Promise<T>): Promise<T> {
  const lock = lockDir(lab)
  const deadline = performance.now() + LOCK_DEADLINE_MS
  while (!tryLock(lock)) {
    const owner = lockOwner(lock)
    if (owner !== null && !isAlive(owner)) rmSync(lock, { recursive: true, force: true })
    if (performance.now() > deadline) throw new Error(`Another command (process ${owner}) holds the lab ${lab}.`)
    await sleep(10)
  }
  try {
    const state = readLabState(lab)
    try {
      return await change(state)
    } finally {
      // A fault that failed half-way is written down as well: heal must know what to undo.
      writeLabState(state)
    }
  } finally {
    rmSync(lock, { recursive: true, force: true })
  }
}

function tryLock(lock: string): boolean {
  // The name carries the owner, so that lock and owner appear in one step.
  const mine = `${lock}.${process.pid}`
  mkdirSync(join(mine, String(process.pid)), { recursive: true })
  try {
    renameSync(mine, lock)
    return true
  } catch {
    rmSync(mine, { recursive: true, force: true })
    return false
  }
}

function lockOwner(lock: string): number | null {
  try {
    return Number(readdirSync(lock)[0])
  } catch {
    return null
  }
}
