import { z } from 'zod'
import type { Agent } from '../agent.ts'
import { askFiles } from '../files/core-side.ts'
import { quiesce, quiesceLimitMs, quiesceVerb } from '../files/quiesce.ts'
import { VerbError } from './messages.ts'
import type { Verb } from './server.ts'

const hourMs = 3_600_000
/** The worker's answer, with its reason, comes before the core gives up on it. */
const marginMs = 2000

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
 * Before a planned switchover, on either host: the primary brings over what was written, stops its services and brings
 * over what they wrote at their end. A tree that is required and can't be brought over stands in the way.
 * @returns what starts the services of this host again where nothing comes of it
 */
export async function quiesceForSwitchover(agent: Agent, where: 'here' | 'on the other host'): Promise<() => void> {
  if (agent.config.sync === null) return () => {}
  if (where === 'here') {
    const { resume } = await quiesce(agent).catch(error => {
      throw new VerbError('refused', error instanceof Error ? error.message : String(error))
    })
    return resume
  }
  const answer = await agent.ports.peer.ask({ verb: quiesceVerb, body: null, limitMs: quiesceLimitMs })
  if (!answer.ok) throw new VerbError('refused', `${agent.state.peer} does not bring its files over: ${answer.why}`)
  return () => {}
}
