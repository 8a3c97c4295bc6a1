import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { mkdir, open } from 'node:fs/promises'
import { join } from 'node:path'
import { isNoProcess } from '../process-identity.ts'
import { bin, type ClusterSpec, configFile, logFile, recordedPid } from './cluster.ts'

/**
 * The processes of a cluster: started in a cgroup of their own, killed by it, and proven gone. Backends outlive a killed
 * postmaster and leave its process group (each calls setsid), so only the cgroup and the scan find all of them.
 */

/** Killing takes 10 to 20 ms; what is left after this is stuck in the kernel, and no proof can be given. */
const killLimitMs = 10_000
const pollMs = 1

/** Starts the postmaster. It outlives this process: the next agent adopts it. */
export async function startPostmaster(spec: ClusterSpec): Promise<ChildProcess> {
  await mkdir(spec.socketDir, { recursive: true })
  const log = await open(logFile(spec), 'a', 0o600)
  try {
    const child = spawn(bin(spec, 'postgres'), ['-D', spec.dataDir, '-c', `config_file=${configFile(spec)}`], {
      uid: spec.user.uid,
      gid: spec.user.gid,
      cwd: spec.dataDir,
      env: {
        PATH: '/usr/bin:/bin',
        LC_ALL: 'C.UTF-8',
        PGDATA: spec.dataDir,
        PG_OOM_ADJUST_FILE: '/proc/self/oom_score_adj',
        PG_OOM_ADJUST_VALUE: '0',
      },
      stdio: ['ignore', log.fd, log.fd],
      detached: true,
    })
    // Told by its missing pid; without a listener it would end the agent.
    child.on('error', () => {})
    child.unref()
    if (child.pid !== undefined) enterCgroup(spec, child.pid)
    return child
  } finally {
    await log.close()
  }
}

export function makeCgroup(spec: ClusterSpec): void {
  // Not recursive: on a cgroup file system Node's recursive mkdir repeats itself for ever when the parent is missing.
  if (spec.cgroup !== null && !existsSync(spec.cgroup)) mkdirSync(spec.cgroup)
}

function enterCgroup(spec: ClusterSpec, pid: number): void {
  if (spec.cgroup === null) return
  try {
    writeFileSync(join(spec.cgroup, 'cgroup.procs'), String(pid))
  } catch {
    // It ended already, or the cgroup is gone: the scan finds what the cgroup does not.
  }
}

/** Children that were forked before their postmaster had entered the cgroup. */
export function gatherIntoCgroup(spec: ClusterSpec): void {
  for (const pid of scan(spec)) enterCgroup(spec, pid)
}

/**
 * Every process whose working directory is the data directory: the postmaster and all its children chdir there.
 * @throws where one of them can't be looked at: a list without it would pass for a proof
 */
export function scan(spec: ClusterSpec): number[] {
  const found: number[] = []
  for (const name of readdirSync('/proc')) {
    const pid = Number(name)
    if (Number.isInteger(pid) && worksIn(pid, spec.dataDir) && isServer(pid)) found.push(pid)
  }
  return found
}

/** One that ended between the listing and the look does not, nor one that this process may not look at. */
function worksIn(pid: number, folder: string): boolean {
  try {
    return readlinkSync(`/proc/${pid}/cwd`) === folder
  } catch {
    return false
  }
}

function isServer(pid: number): boolean {
  try {
    return /^(postgres|postmaster)/.test(readFileSync(`/proc/${pid}/comm`, 'utf8')) && !hasEnded(pid)
  } catch (error) {
    if (isNoProcess(error)) return false
    throw error
  }
}

/** False also where the kernel does not say, for want of descriptors: a server that runs must not be taken for dead. */
export function isGone(pid: number): boolean {
  try {
    return hasEnded(pid)
  } catch {
    return false
  }
}

/** The state letter of /proc/PID/stat; a zombie is as good as gone. @throws where the kernel does not say */
function hasEnded(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const state = stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3)
    return state === 'Z' || state === 'X'
  } catch (error) {
    if (isNoProcess(error)) return true
    throw error
  }
}

/** The living postmaster of this data directory, or null. A pid that was reused by another program is none. */
export async function findPostmaster(spec: ClusterSpec): Promise<number | null> {
  const pid = await recordedPid(spec)
  if (pid === null || isGone(pid)) return null
  try {
    return readlinkSync(`/proc/${pid}/cwd`) === spec.dataDir ? pid : null
  } catch {
    return null
  }
}

/**
 * Kills every process of the cluster. True is a proof that none is left; false after killLimitMs. The kernel takes 10 ms
 * and more to tear a server down; what is outside of the cgroup is looked for meanwhile, since a process in it can have
 * no child outside.
 */
export async function killAll(spec: ClusterSpec): Promise<boolean> {
  const until = performance.now() + killLimitMs
  const events = spec.cgroup === null ? '' : join(spec.cgroup, 'cgroup.events')
  const inCgroup = (): boolean => events !== '' && existsSync(events) && isPopulated(events)
  for (;;) {
    if (inCgroup() && spec.cgroup !== null) writeFileSync(join(spec.cgroup, 'cgroup.kill'), '1')
    // The scan holds the loop for some milliseconds: what else this turn has to do comes first.
    await sleep(0)
    const members = membersOf(spec)
    const outside = scan(spec).filter(pid => !members.includes(pid))
    for (const pid of outside) killOne(pid)
    while (inCgroup() && performance.now() < until) await sleep(pollMs)
    if (outside.length === 0 && !inCgroup()) return true
    if (performance.now() > until) return false
    await sleep(pollMs)
  }
}

/** Of its cgroup; none where there is no such thing. */
export function membersOf({ cgroup }: ClusterSpec): number[] {
  if (cgroup === null) return []
  try {
    return readFileSync(join(cgroup, 'cgroup.procs'), 'latin1').split('\n').filter(Boolean).map(Number)
  } catch {
    return []
  }
}

/**
 * A killed postmaster that nobody has reaped yet still has its process id, and a new one takes that for a rival ("lock
 * file postmaster.pid already exists").
 */
export async function awaitReaped(spec: ClusterSpec): Promise<void> {
  const pid = await recordedPid(spec)
  const until = performance.now() + reapLimitMs
  while (pid !== null && existsSync(`/proc/${pid}`) && isGone(pid) && performance.now() < until) await sleep(pollMs)
}
/** Reaping is one turn of our own loop, or of init's. */
const reapLimitMs = 2000

const isPopulated = (events: string): boolean => /populated 1/.test(readFileSync(events, 'utf8'))

function killOne(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // Gone already.
  }
}

export const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
