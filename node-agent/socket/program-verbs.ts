import { z } from 'zod'
import { notifier } from '../drivers/notify.ts'
import { VerbError } from './messages.ts'
import type { Verb } from './server.ts'

/** What concerns the process rather than the pair: also a host that waits for its pair answers these. */
export interface ProgramVerbs {
  /** This host has just been made known to a control plane. */
  enrolled: () => void
  /** Begins the program anew in this very process, with the configuration as it is then. */
  restart: (why: string) => void
}

/** So that the answer gets out. */
const answerFirstMs = 50
const restartArgs = z.strictObject({ why: z.string().max(200) })

export function programVerbs(program: ProgramVerbs): Record<string, Verb> {
  return {
    enrolled: async () => {
      program.enrolled()
      return { why: 'the link to the control plane is started' }
    },
    restart: async args => {
      const parsed = restartArgs.safeParse(args)
      if (!parsed.success) throw new VerbError('usage', 'a restart needs its reason, in 200 characters')
      setTimeout(() => program.restart(parsed.data.why), answerFirstMs)
      return { why: 'the agent is started anew' }
    },
  }
}

/** The program again from its beginning: the same process for whoever supervises it, so nothing counts as a failure. */
export function beginAnew(): never {
  const { execPath, execArgv, argv, env, execve } = process
  if (execve === undefined) process.exit(0)
  notifier().beginsAnew()
  return execve(execPath, [execPath, ...execArgv, ...argv.slice(1)], env)
}
