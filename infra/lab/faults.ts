/** Carries out a fault, and undoes all of them. */

import { setTimeout as sleep } from 'node:timers/promises'
import { HOSTS, type HostName, type LinkName, type Member } from './addresses.ts'
import { emptyDisk, fillDisk, hangDisk, hasDisk, releaseDisk } from './disk.ts'
import { applyFabric } from './fabric.ts'
import { type Direction, directionsBetween, sameDirection } from './fabric-faults.ts'
import type { Fault, KillWhat } from './fault-verbs.ts'
import { hostPaths } from './hosts.ts'
import { type LabState, withLabState } from './lab-state.ts'
import { bootHost, cutPower, healFabric, setWallClock } from './machine.ts'
import { dataDirOf, isPairFormed, startAgent, startWitness } from './pair.ts'
import {
  commandLine,
  continueProcesses,
  databaseProcess,
  hostProcesses,
  isAlive,
  postmasterPid,
  signal,
  stopProcesses,
} from './processes.ts'

/** One that waits for a disk that hangs does not end before the disk goes on, and is not waited for. */
const KILL_DEADLINE_MS = 2_000

/** Makes one fault; resolves when it is in force. */
export function inject(lab: string, fault: Fault): Promise<void> {
  return withLabState(lab, state => apply(state, fault))
}

async function apply(state: LabState, fault: Fault): Promise<void> {
  switch (fault.kind) {
    case 'power':
      return cutPower(state, fault.host)
    case 'power-on':
      await bootHost(state, fault.host)
      if (isPairFormed(state.name)) await startAgent(state, fault.host)
      return
    case 'isolate':
      state.fabric.mute = union(state.fabric.mute, fault.member)
      state.fabric.deaf = union(state.fabric.deaf, fault.member)
      return applyFabric(state)
    case 'mute':
    case 'deaf':
      state.fabric[fault.kind] = union(state.fabric[fault.kind], fault.member)
      return applyFabric(state)
    case 'cut': {
      const directions = affected(fault).filter(direction => !fault.oneWay || direction.from === fault.from)
      state.fabric.cuts = replaceDirections(state.fabric.cuts, directions)
      return applyFabric(state)
    }
    case 'loss': {
      const perMille = Math.round(fault.percent * 10)
      const lossy = affected(fault).map(direction => ({ ...direction, perMille }))
      state.fabric.loss = replaceDirections(state.fabric.loss, lossy)
      return applyFabric(state)
    }
    case 'slow': {
      const { delayMs, jitterMs } = fault
      const duplicatePerMille = Math.round(fault.duplicatePercent * 10)
      const slow = affected(fault).map(direction => ({ ...direction, delayMs, jitterMs, duplicatePerMille }))
      state.fabric.slow = replaceDirections(state.fabric.slow, slow)
      return applyFabric(state)
    }
    case 'freeze':
      if (stopProcesses(state.name, fault.host, fault.what).length === 0) {
        throw new Error(`Host ${fault.host} runs nothing to freeze (${fault.what}).`)
      }
      return
    case 'continue':
      continueProcesses(state.name, fault.host)
      return
    case 'kill':
      return kill(state, fault.host, fault.what)
    case 'start-agent':
      if (runs(state.agentPid[fault.host])) throw new Error(`The agent of host ${fault.host} runs already.`)
      return startAgent(state, fault.host)
    case 'disk-full':
      return fillDisk(hostPaths(state.name, fault.host).diskDir)
    case 'disk-hang':
      return hangDisk(hostPaths(state.name, fault.host).diskDir)
    case 'clock':
      state.wallClockOffsetMs[fault.host] += fault.jumpMs
      return setWallClock(state, fault.host)
    case 'witness-down':
      if (state.witnessPid !== null) signal([state.witnessPid], 'SIGKILL')
      state.witnessPid = null
      return
    case 'witness-up':
      if (runs(state.witnessPid)) throw new Error('The witness runs already.')
      await startWitness(state)
      return
    case 'witness-slow': {
      // Half on the way there, half on the way back.
      const late = { delayMs: fault.delayMs / 2, jitterMs: 0, duplicatePerMille: 0 }
      const slow = HOSTS.flatMap(host => directionsBetween(host, 'w')).map(direction => ({ ...direction, ...late }))
      state.fabric.slow = replaceDirections(state.fabric.slow, slow)
      return applyFabric(state)
    }
  }
}

/** Undoes every fault: links whole, processes continued, hosts on, disks empty, clocks right, agents and witness running. */
export function heal(lab: string): Promise<void> {
  return withLabState(lab, async state => {
    await healFabric(state)
    for (const host of HOSTS) {
      await releaseDisk(hostPaths(lab, host).diskDir)
      if (state.off.includes(host)) await bootHost(state, host)
      continueProcesses(state.name, host)
      state.wallClockOffsetMs[host] = 0
      setWallClock(state, host)
      if (hasDisk(hostPaths(lab, host).diskDir)) emptyDisk(hostPaths(lab, host).diskDir)
    }
    if (!isPairFormed(lab)) return
    if (!runs(state.witnessPid)) await startWitness(state)
    for (const host of HOSTS) if (!runs(state.agentPid[host])) await startAgent(state, host)
  })
}

function runs(pid: number | null): boolean {
  return pid !== null && isAlive(pid)
}

async function kill(state: LabState, host: HostName, what: KillWhat): Promise<void> {
  const reached = signal(targetsOf(state, host, what), 'SIGKILL')
  if (reached.length === 0) throw new Error(`Host ${host} runs no ${what} to kill.`)
  const deadline = performance.now() + KILL_DEADLINE_MS
  while (reached.some(isAlive) && performance.now() < deadline) await sleep(1)
}

function targetsOf(state: LabState, host: HostName, what: KillWhat): number[] {
  const postmaster = postmasterPid(dataDirOf(state.name, host))
  switch (what) {
    case 'agent':
      return state.agentPid[host] === null ? [] : [state.agentPid[host]]
    case 'postmaster':
      return postmaster === null ? [] : [postmaster]
    case 'backend':
      return databaseProcess(hostProcesses(state.name, host, 'postgres'), 'client backend')
    case 'walsender':
    case 'walreceiver':
      return databaseProcess(hostProcesses(state.name, host, 'postgres'), what)
    case 'service':
      return hostProcesses(state.name, host, 'agent').filter(pid => isService(pid, state.agentPid[host]))
  }
}

function isService(pid: number, agent: number | null): boolean {
  return pid !== agent && commandLine(pid).some(argument => argument.endsWith('web-service.ts'))
}

function union(members: readonly Member[], member: Member): Member[] {
  return [...new Set([...members, member])]
}

function affected(fault: { from: Member; to: Member; link?: LinkName }): Direction[] {
  const directions = directionsBetween(fault.from, fault.to, fault.link)
  if (directions.length === 0) throw new Error(`No link ${fault.link} joins ${fault.from} and ${fault.to}.`)
  return directions
}

/** The newest fault on a direction replaces an older one of its kind. */
function replaceDirections<T extends Direction>(present: readonly T[], added: readonly T[]): T[] {
  return [...present.filter(one => !added.some(other => sameDirection(one, other))), ...added]
}
