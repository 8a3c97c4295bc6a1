import { z } from 'zod'
import type { Agent } from '../agent.ts'
import { askFiles, filesObstacles, reportedTrees } from '../files/core-side.ts'
import { VerbError } from './messages.ts'
import type { Verb } from './server.ts'

const hourMs = 3_600_000
/** The worker's answer, with its reason, comes before the core gives up on it. */
const marginMs = 2000
/** Before a planned change of roles: what is on its way is let arrive. */
const drainLimitMs = 10_000

const treeArgs = z.strictObject({ tree: z.string().max(64).optional() })
const scrubArgs = treeArgs.extend({ what: z.enum(['metadata', 'contents']).optional() })
const waitArgs = treeArgs.extend({ limitMs: z.int().min(1).max(hourMs) })

/** The synchronisation partition: answered by the files worker, never by the core's own loop. */
export function syncVerbs(agent: Agent): Record<string, Verb> {
  const ask = async (verb: string, body: unknown, limitMs?: number): Promise<unknown> => {
    try {
      return await askFiles(agent.workers, { verb, body, ...(limitMs === undefined ? {} : { limitMs }) })
    } catch (error) {
      throw new VerbError('failed', error instanceof Error ? error.message : String(error))
    }
  }
  return {
    syncStatus: async () => (agent.config.sync === null ? { why: '', trees: [] } : ask('status', {})),
    syncWait: async args => {
      const parsed = waitArgs.safeParse(args)
      if (!parsed.success) throw new VerbError('usage', `limitMs has to be from 1 to ${hourMs}`)
      return ask('wait', parsed.data, parsed.data.limitMs + marginMs)
    },
    syncScrub: async args => {
      const parsed = scrubArgs.safeParse(args)
      if (!parsed.success)
        throw new VerbError('usage', 'give the name of a tree, or none, and what: metadata or contents')
      return ask('scrub', parsed.data)
    },
  }
}

/**
 * Before a planned switchover everything written so far is brought to the other host. A tree that is required and can't
 * be stands in the way; of another one is said that it is behind.
 */
export async function drainFiles(agent: Agent): Promise<void> {
  if (agent.config.sync === null) return
  try {
    const body = { limitMs: drainLimitMs }
    await askFiles(agent.workers, { verb: 'wait', body, limitMs: drainLimitMs + marginMs })
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    const obstacles = filesObstacles(reportedTrees(agent.workers))
    if (obstacles.length > 0) throw new VerbError('refused', `${obstacles.join('; ')}: ${why}`)
    agent.note(`switchover with files behind: ${why}`)
  }
}
