/** Which processes of a lab host are what, and signals to them. Everything is read from /proc at the time of asking. */

import { readFileSync, readlinkSync } from 'node:fs'
import { basename } from 'node:path'
import type { HostName } from './addresses.ts'
import { groupPath, processesIn } from './control-groups.ts'

/** `agent`: everything that is not the database. `all`: the whole host but its init. */
export type ProcessClass = 'agent' | 'postgres' | 'all'

/** New children may be forked while the signal goes round; after this many rounds without a new one there are none. */
const FREEZE_ROUNDS_LIMIT = 50

function executable(pid: number): string | null {
  try {
    return basename(readlinkSync(`/proc/${pid}/exe`))
  } catch {
    return null
  }
}

function isSurroundings(pid: number): boolean {
  // The host's init (`sleep`) and the `unshare` that waits for it are the machine, not its programs.
  const name = executable(pid)
  return name === 'sleep' || name === 'unshare' || name === null
}

/** The state letter of /proc/PID/stat (proc(5)), or null when there is no such process. */
export function processState(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3)
  } catch {
    return null
  }
}

export function isAlive(pid: number): boolean {
  const state = processState(pid)
  return state !== null && state !== 'Z' && state !== 'X'
}

export function hostProcesses(lab: string, host: HostName, which: ProcessClass): number[] {
  return processesIn(groupPath(lab, host)).filter(pid => {
    if (isSurroundings(pid)) return false
    if (which === 'all') return true
    return (executable(pid) === 'postgres') === (which === 'postgres')
  })
}

/** A signal to processes that may just have ended, which is no error. Returns those it reached. */
export function signal(pids: readonly number[], name: NodeJS.Signals): number[] {
  return pids.filter(pid => {
    try {
      return process.kill(pid, name)
    } catch {
      return false
    }
  })
}

/** SIGSTOP to every process of the class, until a whole round finds none that still runs. */
export function stopProcesses(lab: string, host: HostName, which: ProcessClass): number[] {
  const stopped = new Set<number>()
  for (let round = 0; round < FREEZE_ROUNDS_LIMIT; round += 1) {
    const running = hostProcesses(lab, host, which).filter(pid => !stopped.has(pid))
    if (running.length === 0) return [...stopped]
    for (const pid of signal(running, 'SIGSTOP')) stopped.add(pid)
  }
  throw new Error(`The processes of host ${host} fork faster than they can be stopped.`)
}

/** SIGCONT to everything on the host that is stopped. */
export function continueProcesses(lab: string, host: HostName): number[] {
  const stopped = processesIn(groupPath(lab, host)).filter(pid => processState(pid) === 'T')
  return signal(stopped, 'SIGCONT')
}

/** The postmaster of a data directory, by its postmaster.pid (PostgreSQL, "Server Start-up"), or null. */
export function postmasterPid(dataDir: string): number | null {
  try {
    const pid = Number(readFileSync(`${dataDir}/postmaster.pid`, 'utf8').split('\n')[0])
    return Number.isInteger(pid) && pid > 1 && executable(pid) === 'postgres' ? pid : null
  } catch {
    return null
  }
}

/** The arguments a process was started with (or, for PostgreSQL, the title it gave itself); empty when it is gone. */
export function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').filter(Boolean)
  } catch {
    return []
  }
}

/** PostgreSQL's processes of a kind, by the titles they give themselves ("postgres: walsender …"). */
export function databaseProcess(
  pids: readonly number[],
  kind: 'client backend' | 'walsender' | 'walreceiver' | 'startup',
): number[] {
  return pids.filter(pid => {
    const title = commandLine(pid).join(' ')
    if (!title.startsWith('postgres: ')) return false
    if (kind !== 'client backend') return title.includes(kind)
    // A client's backend is titled "[cluster: ]user database address(port) activity".
    return !title.includes('walsender') && /^postgres: (\S+: )?\S+ \S+ \S+\(\d+\)/.test(title)
  })
}
