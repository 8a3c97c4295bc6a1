/** Runs other programs: always an argument array, always a deadline, and an error that says what the program said. */

import { execFile, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'

/** `ip` and `nft` answer within milliseconds; a minute means that the machine is in trouble. */
const DEADLINE_MS = 60_000
/** `nft list ruleset` and `ps` of a large lab stay far below this. */
const OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024

export class CommandFailed extends Error {
  readonly exitCode: number | null
  readonly stderr: string

  constructor(command: string, args: readonly string[], exitCode: number | null, stderr: string) {
    super(`${command} ${args.join(' ')} failed (${exitCode ?? 'killed'}): ${stderr.trim() || 'it said nothing'}`)
    this.exitCode = exitCode
    this.stderr = stderr
  }
}

export interface RunOptions {
  /** Written to the program's standard input. */
  input?: string
  deadlineMs?: number
  env?: NodeJS.ProcessEnv
}

/** Resolves to standard output; rejects with {@link CommandFailed} on any exit code but 0. */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const limits = { timeout: options.deadlineMs ?? DEADLINE_MS, maxBuffer: OUTPUT_LIMIT_BYTES }
    const child = execFile(command, args, { ...limits, env: options.env ?? process.env }, (error, stdout, stderr) => {
      if (!error) return resolve(stdout)
      const code = typeof error.code === 'number' ? error.code : null
      reject(new CommandFailed(command, args, code, stderr || error.message))
    })
    // A program that exits early makes the pipe fail; its exit code says why, the pipe's error does not.
    child.stdin?.on('error', () => {})
    child.stdin?.end(options.input ?? '')
  })
}

/** As {@link run}, for cleaning up: a failure is the answer `false`, because what is already gone is not an error. */
export async function tryRun(command: string, args: readonly string[]): Promise<boolean> {
  return run(command, args).then(
    () => true,
    () => false,
  )
}

export interface DetachedOptions {
  logFile: string
  cwd?: string
  env?: NodeJS.ProcessEnv
}

/** Starts a program that outlives this process; its output goes to a file. Resolves to its process id. */
export function startDetached(command: string, args: readonly string[], options: DetachedOptions): Promise<number> {
  const log = openSync(options.logFile, 'a')
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      detached: true,
      stdio: ['ignore', log, log],
      cwd: options.cwd,
      env: options.env ?? process.env,
    })
    closeSync(log)
    child.once('error', reject)
    child.once('spawn', () => {
      child.unref()
      resolve(child.pid!)
    })
  })
}
