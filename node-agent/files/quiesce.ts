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

/**
 * Drains, stops the services, drains what they wrote at their end. Answers '' or why files are behind nevertheless: of
 * trees that are not required.
 * @throws a sentence when a tree that is required can't be brought over; the services run again then
 */
export async function quiesce(agent: Agent): Promise<string> {
  if (agent.config.sync === null || !isPrimary(agent.state)) return ''
  // While the services run, so that they are away for the shortest time.
  const before = await drained(agent, drainLimitMs)
  if (agent.config.services.length === 0) return before
  await agent.pauseServices()
  // If nothing comes of it they run again: a switchover takes a second, and a host that is no primary starts none.
  setTimeout(() => agent.resumeServices(), resumeAfterMs).unref()
  try {
    const behind = await drained(agent, lastDrainLimitMs)
    if (behind !== '') agent.note(`switchover with files behind: ${behind}`)
    return behind
  } catch (error) {
    agent.resumeServices()
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
