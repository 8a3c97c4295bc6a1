import { isPrimary } from '../../shared/protocol/facts.ts'
import type { Agent } from '../agent.ts'
import { askFiles } from './core-side.ts'
import type { TreeConfig } from './settings.ts'

/** Before a planned switchover: everything written is brought to the other host, and nothing is written any more. */

/** What the backup asks the primary to do before it asks it to hand over. */
export const quiesceVerb = 'quiesce files'
/** What is on its way is let arrive for so long. */
const drainLimitMs = 10_000
/** With the services stopped: only what they wrote at their end is left. */
const lastDrainLimitMs = 5_000
/** The worker's answer, with its reason, comes before the core gives up on it. */
const marginMs = 2000
/** Whoever asked for it has handed over by then, or does not any more. */
const resumeAfterMs = 15_000
/** For the other host's question: both drains, and services that take their time to stop. */
export const quiesceLimitMs = 45_000

export interface Quiesced {
  /** Why files of trees that are not required are behind; '' where none are. */
  behind: string
  /** Nothing came of what it was for: the services run again, unless they have been stopped for something newer. */
  resume: () => void
}

/** The newest stop of each agent's services: what an earlier one ends with must not start them under it. */
const newestPauses = new WeakMap<Agent, object>()

/**
 * Drains, stops the services, drains what they wrote at their end.
 * @throws a sentence when a tree that is required can't be brought over; the services run again then
 */
export async function quiesce(agent: Agent): Promise<Quiesced> {
  if (agent.config.sync === null || !isPrimary(agent.state)) return { behind: '', resume: () => {} }
  // While the services run, so that they are away for the shortest time.
  const before = await drained(agent, drainLimitMs)
  if (agent.config.services.length === 0) return { behind: before, resume: () => {} }
  const pause = {}
  newestPauses.set(agent, pause)
  const resume = (): void => {
    if (newestPauses.get(agent) === pause) agent.resumeServices()
  }
  await agent.pauseServices()
  // If nothing comes of it they run again: a switchover takes a second, and a host that is no primary starts none.
  setTimeout(resume, resumeAfterMs).unref()
  try {
    const behind = await drained(agent, lastDrainLimitMs)
    if (behind !== '') agent.note(`switchover with files behind: ${behind}`)
    return { behind, resume }
  } catch (error) {
    resume()
    throw error
  }
}

/** By the answers themselves: what the worker told a moment ago may be true no more, and one that hangs tells nothing. */
async function drained({ config, workers }: Agent, limitMs: number): Promise<string> {
  const behind = { required: [] as string[], async: [] as string[] }
  const drain = async ({ name, policy }: TreeConfig): Promise<void> => {
    try {
      await askFiles(workers, { verb: 'wait', body: { tree: name, limitMs }, limitMs: limitMs + marginMs })
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      behind[policy].push(policy === 'async' ? why : `the files of ${name} are required on the backup: ${why}`)
    }
  }
  await Promise.all((config.sync?.trees ?? []).map(drain))
  if (behind.required.length > 0) throw new Error(behind.required.join('; '))
  return behind.async.join('; ')
}
