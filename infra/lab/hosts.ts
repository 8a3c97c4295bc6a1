/**
 * A lab host: a network namespace, a control group and the namespaces that make it look like a machine of its own
 * (mounts, shared memory, host name, boot id, clocks). All of it is made at power-on and gone at a power cut; only the
 * disk (a directory) stays.
 */

import { randomInt, randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { labPaths, type Member, namespacePath } from './addresses.ts'
import { createGroup, groupPath, killGroup, processesIn, removeGroup, untilEmpty } from './control-groups.ts'
import { CommandFailed, run, startDetached } from './exec.ts'
import { dropCarrier, plugIn, unplug } from './network.ts'

const HERE = import.meta.dirname
/** Some ten milliseconds; on a starved machine many times that. */
const INIT_DEADLINE_MS = 30_000
/** A host's clocks start anywhere in ten days, so that two hosts, and two boots of one, never agree by chance. */
const LARGEST_UPTIME_S = 10 * 24 * 3600
/** Time slept in suspend, by which CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC. */
const LARGEST_SUSPEND_S = 3600

export interface HostPaths {
  /** Like /run of a real host: emptied by a power cut. */
  runDir: string
  /** The host's disk: survives. */
  diskDir: string
  /** What the host's programs print; kept over power cuts for whoever looks for a reason. */
  logDir: string
  bootIdFile: string
  initPidFile: string
}

export function hostPaths(lab: string, member: Member): HostPaths {
  const paths = labPaths(lab)
  const runDir = join(paths.runDir, member)
  return {
    runDir,
    diskDir: join(paths.diskDir, member),
    logDir: join(paths.runDir, 'log'),
    bootIdFile: join(runDir, 'boot-id'),
    initPidFile: join(runDir, 'init.pid'),
  }
}

/** Power on: links, boot id, clocks, an empty /run; no program yet. The member must be off. */
export async function powerOn(lab: string, member: Member): Promise<void> {
  const paths = hostPaths(lab, member)
  rmSync(paths.runDir, { recursive: true, force: true })
  for (const dir of [paths.runDir, paths.diskDir, paths.logDir]) mkdirSync(dir, { recursive: true })
  writeFileSync(paths.bootIdFile, `${randomUUID()}\n`)
  const group = createGroup(lab, member)
  if (!existsSync(namespacePath(lab, member))) await plugIn(lab, member)
  const uptimeS = randomInt(LARGEST_SUSPEND_S, LARGEST_UPTIME_S)
  const clocks = ['--boottime', String(uptimeS), '--monotonic', String(uptimeS - randomInt(LARGEST_SUSPEND_S))]
  const unshare = ['unshare', '--mount', '--ipc', '--uts', '--propagation', 'private', '--time', ...clocks, '--fork']
  const init = [join(HERE, 'host-init'), group, paths.bootIdFile, `${member}.${lab}`, paths.initPidFile, paths.diskDir]
  const logFile = join(paths.logDir, `${member}-init.log`)
  // `unshare --fork` waits for its child, so it belongs to the group as well.
  const inGroup = [join(HERE, 'join-group'), group, ...unshare, ...init]
  await startDetached('nsenter', [`--net=${namespacePath(lab, member)}`, ...inGroup], { logFile, cwd: '/' })
  const deadline = performance.now() + INIT_DEADLINE_MS
  while (!existsSync(paths.initPidFile)) {
    if (performance.now() > deadline) {
      throw new Error(`Host ${member} did not start within ${INIT_DEADLINE_MS} ms: ${readFileSync(logFile, 'utf8')}`)
    }
    await sleep(2)
  }
}

/**
 * Power cut: the links go first, then every process at once by SIGKILL; nothing is told to anyone. Kernel state
 * (addresses, ruleset, shared memory) goes with the namespaces. What was written but not yet on disk is NOT lost here,
 * unlike on a real machine: the page cache is the lab machine's.
 */
export async function powerCut(lab: string, member: Member): Promise<void> {
  if (!existsSync(namespacePath(lab, member))) return
  await dropCarrier(lab, member)
  const group = groupPath(lab, member)
  killGroup(group)
  await untilEmpty(group)
  removeGroup(group)
  await unplug(lab, member)
}

export function isPoweredOn(lab: string, member: Member): boolean {
  return existsSync(hostPaths(lab, member).initPidFile) && processesIn(groupPath(lab, member)).length > 0
}

function inside(lab: string, member: Member, command: readonly string[]): string[] {
  const paths = hostPaths(lab, member)
  if (!isPoweredOn(lab, member)) throw new Error(`Host ${member} of lab ${lab} is off.`)
  const init = readFileSync(paths.initPidFile, 'utf8').trim()
  const enter = ['--target', init, '--net', '--mount', '--ipc', '--uts', '--time']
  return [...enter, join(HERE, 'join-group'), groupPath(lab, member), ...command]
}

export interface ProgramOptions {
  /** Log file name without a directory. */
  log: string
  env?: NodeJS.ProcessEnv
}

/** Starts a program on a host that is on; it runs until it ends or the power is cut. Resolves to its process id. */
export async function startOnHost(
  lab: string,
  member: Member,
  command: readonly string[],
  options: ProgramOptions,
): Promise<number> {
  const logFile = join(hostPaths(lab, member).logDir, options.log)
  const env = options.env ?? process.env
  return startDetached('nsenter', inside(lab, member, command), { logFile, cwd: '/', env })
}

/** Runs a program on a host to its end and resolves to its output. */
export async function runOnHost(lab: string, member: Member, command: readonly string[]): Promise<string> {
  return run('nsenter', inside(lab, member, command))
}

/** A program in the member's network only: it is outside the host, sees its addresses, and survives its power cut. */
export function networkOf(lab: string, member: Member, command: readonly string[]): [string, string[]] {
  return ['nsenter', [`--net=${namespacePath(lab, member)}`, ...command]]
}

/** Whether `run` failed because the program said no, rather than because the lab is broken. */
export function isRefusal(error: unknown): error is CommandFailed {
  return error instanceof CommandFailed && error.exitCode !== null
}
