/**
 * How every program that makes labs ends: `npm start`, the demo, the benchmarks. Told to end by a signal, whatever it is
 * doing, it removes what it has made first; an impatient second Ctrl-C must not leave half of it behind.
 */

import { readdirSync, readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { signal } from './processes.ts'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
/** bash(1), "Exit status": 128 and the signal's number. */
const codeOf = (name: (typeof SIGNALS)[number]): number => 128 + constants.signals[name]

type Removal = () => Promise<unknown>
const removals = new Set<Removal>()

/** An interrupted program calls `remove` before it ends. @returns takes it back, when all is removed anyway */
export function removeWhenInterrupted(remove: Removal): () => void {
  removals.add(remove)
  return () => removals.delete(remove)
}

export interface ProgramOptions {
  say: (line: string) => void
  /** For one that Ctrl-C ends as meant. */
  interruptedCode?: number
}

let interrupted = false
export const isInterrupted = (): boolean => interrupted

/** Runs the program to its exit code. An error is a line on standard error and the code 1. */
export function runProgram(main: () => Promise<number>, { say, interruptedCode }: ProgramOptions): void {
  const end = async (code: number): Promise<void> => {
    say('\nremoving everything ...')
    // Busy processes and watchers, and commands that are under way; what stands in a lab of its own goes with it.
    signal(ownChildren(), 'SIGKILL')
    const results = await Promise.allSettled([...removals].map(remove => remove()))
    const failed = results.find(result => result.status === 'rejected')
    if (failed !== undefined) process.stderr.write(`${sentenceOf(failed.reason)}\n`)
    else say('everything is removed')
    process.exit(failed === undefined ? code : 1)
  }
  for (const name of SIGNALS) {
    process.on(name, () => {
      if (interrupted) return
      interrupted = true
      void end(interruptedCode ?? codeOf(name))
    })
  }
  main().then(
    code => {
      if (!interrupted) process.exit(code)
    },
    error => {
      // What was under way when it was interrupted fails now, which is nobody's concern.
      if (interrupted) return
      process.stderr.write(`${sentenceOf(error)}\n`)
      process.exit(1)
    },
  )
}

/** proc(5), /proc/PID/task/TID/children. */
function ownChildren(): number[] {
  return readdirSync('/proc/self/task').flatMap(thread =>
    readFileSync(`/proc/self/task/${thread}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
  )
}

const sentenceOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
