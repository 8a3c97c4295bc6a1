import { spawn } from 'node:child_process'
import { readdirSync, writeFileSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ServiceConfig } from '../config-services.ts'
import { takeEndCalmly } from '../kernel/child-end.ts'
import {
  type ProcessIdentity,
  parseIdentity,
  signalGroup,
  startTicksOf,
  statOf,
  stillRuns,
} from '../process-identity.ts'
import { ownerOf, type Runner } from './runner.ts'

/** How soon an end is noticed for a process that another agent started; for our own child the kernel tells. */
const pollMs = 20
/** Whose leader has ended is looked for among all processes, which holds the agent up: after a look so many times what it took. */
const restFactor = 20
/** A program that ends this soon after its start did not start. */
const settleMs = 50
/** A process that waits for a disk that hangs does not even end by SIGKILL. */
const killLimitMs = 2000

/**
 * A program in the foreground, in a process group of its own, that outlives the agent: the next agent finds it by the
 * file with its pid and start time.
 */
export class ProcessRunner implements Runner {
  readonly #service: Extract<ServiceConfig, { run: string[] }>
  readonly #folder: string
  #process: ProcessIdentity | null = null
  #end = 'was not started'
  #tell: (why: string) => void = () => {}

  constructor(options: { service: Extract<ServiceConfig, { run: string[] }>; runtimeDir: string }) {
    this.#service = options.service
    this.#folder = join(options.runtimeDir, 'services')
  }

  async start(env: Record<string, string>): Promise<string> {
    const owner = await ownerOf(this.#service.user)
    if (typeof owner === 'string') return owner
    const [file = '', ...args] = this.#service.run
    const child = spawn(file, args, {
      detached: true,
      stdio: ['ignore', 'inherit', 'inherit'],
      env,
      cwd: '/',
      ...owner,
    })
    takeEndCalmly(child)
    const failed = await new Promise<string>(resolve => {
      child.once('error', error => resolve(`${file} could not be started: ${error.message}`))
      child.once('spawn', () => resolve(''))
    })
    if (failed !== '' || child.pid === undefined) return failed
    const started = identified(child.pid)
    this.#process = started
    child.once('exit', (code, signal) => this.#ended(started, `${file} ended with ${signal ?? `code ${code}`}`))
    child.unref()
    spareNothing(child.pid)
    const unknown = await this.#record(started)
    if (unknown !== '') {
      // An agent that begins anew would start a second one beside it.
      await this.stop(0)
      return `${file} was ended again, ${unknown}`
    }
    await sleep(settleMs)
    return this.#process === started ? '' : this.#end
  }

  async stop(limitMs: number): Promise<string> {
    const stopping = this.#process
    if (stopping === null) return ''
    this.#process = null
    this.#end = 'was stopped'
    signalGroup(stopping.pid, 'SIGTERM')
    const ended = await groupEnds(stopping.pid, limitMs)
    signalGroup(stopping.pid, 'SIGKILL')
    if (!ended && !(await groupEnds(stopping.pid, killLimitMs)))
      return `process group ${stopping.pid} did not end ${killLimitMs} ms after SIGKILL`
    // Left behind it names a process that is gone.
    await rm(this.#file, { force: true }).catch(() => {})
    return ''
  }

  async ended(): Promise<string> {
    const found = this.#process
    if (found !== null && hasEnded(found)) this.#ended(found, 'ended')
    return this.#process === null ? this.#end : ''
  }

  onEnd(tell: (why: string) => void): void {
    this.#tell = tell
  }

  async adopt(): Promise<boolean> {
    const recorded = await readFile(this.#file, 'utf8').then(parseIdentity, () => null)
    if (recorded === null || !stillRuns(recorded)) return false
    this.#process = recorded
    return true
  }

  #ended(which: ProcessIdentity, why: string): void {
    if (this.#process !== which) return
    this.#process = null
    this.#end = why
    // Children of the program would go on holding its port.
    signalGroup(which.pid, 'SIGKILL')
    this.#tell(why)
  }

  /** '' or why not. */
  async #record(started: ProcessIdentity): Promise<string> {
    try {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 })
      await writeFile(this.#file, JSON.stringify(started), { mode: 0o600 })
      return ''
    } catch (error) {
      return `since its process can't be noted: ${error instanceof Error ? error.message : String(error)}`
    }
  }

  get #file(): string {
    return join(this.#folder, `${this.#service.name}.json`)
  }
}

/** The agent is spared when memory runs out, and its children would inherit that: a service that leaks is to be killed. */
function spareNothing(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, '0')
  } catch {
    // It has ended already.
  }
}

/** Without its start time, for want of descriptors, it can't be noted, and is ended again. */
function identified(pid: number): ProcessIdentity {
  try {
    return { pid, startTicks: startTicksOf(pid) ?? '' }
  } catch {
    return { pid, startTicks: '' }
  }
}

/** Not known, for want of descriptors, is not ended: a service that runs would be killed. */
function hasEnded(one: ProcessIdentity): boolean {
  try {
    return !stillRuns(one)
  } catch {
    return false
  }
}

/** True as soon as nothing of the group is left; false after `limitMs`. */
async function groupEnds(group: number, limitMs: number): Promise<boolean> {
  const until = performance.now() + limitMs
  for (;;) {
    const lookedAt = performance.now()
    if (!groupAlive(group)) return true
    if (performance.now() >= until) return false
    await sleep(Math.max(pollMs, restFactor * (performance.now() - lookedAt)))
  }
}

/** A zombie that nobody has waited for yet counts as gone: it runs nothing and holds nothing. Not known is alive. */
function groupAlive(group: number): boolean {
  try {
    process.kill(-group, 0)
  } catch {
    return false
  }
  try {
    if (startTicksOf(group) !== null) return true
    const pids = readdirSync('/proc').filter(name => /^\d+$/.test(name))
    return pids.some(pid => {
      const fields = statOf(pid)
      return fields !== null && fields[2] === String(group) && fields[0] !== 'Z'
    })
  } catch {
    return true
  }
}
