import { type ChildProcess, spawn } from 'node:child_process'
import { createServer } from 'node:net'
import type { SystemUser } from './users.ts'

/** A server that belongs to this process: it ends with it, however that ends. */
export interface Child {
  process: ChildProcess
  /** Resolves when it has ended, with why. */
  ended: Promise<string>
  /** The end of what it wrote to stderr, for messages. */
  lastWords: () => string
  hasEnded: () => boolean
  stop: (signal: NodeJS.Signals) => Promise<void>
}

const keptLetters = 4000
const stopLimitMs = 20_000

/**
 * `setpriv` (util-linux) gives up root and arranges the signal that the kernel sends when we die: nothing is left
 * behind by a kill -9.
 */
export function startChild(
  command: string,
  args: readonly string[],
  options: { user: SystemUser | null; deathSignal: 'INT' | 'TERM'; env?: NodeJS.ProcessEnv },
): Child {
  const { user, deathSignal } = options
  const as = user === null ? [] : [`--reuid=${user.uid}`, `--regid=${user.gid}`, '--clear-groups']
  const child = spawn('setpriv', [...as, `--pdeathsig=${deathSignal}`, '--', command, ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: process.env.PATH, LC_ALL: 'C.UTF-8', ...options.env },
  })
  let words = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    words = (words + chunk.toString()).slice(-keptLetters)
  })
  const ended = new Promise<string>(resolve => {
    child.once('error', error => resolve(error.message))
    child.once('exit', (code, signal) => resolve(`${command} ended with ${signal ?? `code ${code}`}`))
  })
  const hasEnded = (): boolean => child.exitCode !== null || child.signalCode !== null
  const stop = async (signal: NodeJS.Signals): Promise<void> => {
    if (hasEnded()) return
    child.kill(signal)
    const timer = setTimeout(() => child.kill('SIGKILL'), stopLimitMs)
    await ended
    clearTimeout(timer)
  }
  return { process: child, ended, lastWords: () => words.trim(), hasEnded, stop }
}

/** Runs a program to its end. @throws with what it said */
export async function runProgram(
  command: string,
  args: readonly string[],
  options: { user: SystemUser | null; env?: NodeJS.ProcessEnv },
): Promise<void> {
  const child = startChild(command, args, { ...options, deathSignal: 'TERM' })
  const why = await child.ended
  if (child.process.exitCode !== 0) throw new Error(`${why}: ${child.lastWords()}`)
}

/**
 * Starts a server on a port that was free a moment ago, and on another one where somebody was faster.
 * @throws what `start` throws
 */
export async function onFreePort<Server>(
  start: (port: number) => Promise<Server>,
  { pick = freePort }: { pick?: () => Promise<number> } = {},
): Promise<Server> {
  for (let tries = 1; ; tries++) {
    const port = await pick()
    try {
      return await start(port)
    } catch (error) {
      const isTaken = error instanceof Error && /address already in use/i.test(error.message)
      if (!isTaken || tries === portTriesMax) throw error
    }
  }
}
const portTriesMax = 5

/** One that was free a moment ago; whoever takes it reports if somebody was faster. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() =>
        typeof address === 'object' && address !== null ? resolve(address.port) : reject(new Error('no port')),
      )
    })
  })
}
