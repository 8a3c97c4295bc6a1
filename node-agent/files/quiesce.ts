import { isPrimary } from '../../shared/protocol/facts.ts'
import type { Agent } from '../agent.ts'
import { askFiles, filesObstacles, reportedTrees } from './core-side.ts'

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
  refuseIfRequired(agent, before)
  if (agent.config.services.length === 0) return before
  await agent.pauseServices()
  // If nothing comes of it they run again: a switchover takes a second, and a host that is no primary starts none.
  setTimeout(() => agent.resumeServices(), resumeAfterMs).unref()
  const behind = await drained(agent, lastDrainLimitMs)
  try {
    refuseIfRequired(agent, behind)
  } catch (error) {
    agent.resumeServices()
    throw error
  }
  if (behind !== '') agent.note(`switchover with files behind: ${behind}`)
  return behind
}

async function drained(agent: Agent, limitMs: number): Promise<string> {
  try {
    await askFiles(agent.workers, { verb: 'wait', body: { limitMs }, limitMs: limitMs + marginMs })
    return ''
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

function refuseIfRequired(agent: Agent, why: string): void {
  const obstacles = why === '' ? [] : filesObstacles(reportedTrees(agent.workers))
  if (obstacles.length > 0) throw new Error(`${obstacles.join('; ')}: ${why}`)
}
