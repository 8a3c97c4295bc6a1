import { parentPort } from 'node:worker_threads'
import { Violation } from '../simulation/checkers/check.ts'
import { explore, type Limits, nothingYet, type Report } from './explore.ts'
import { startOf } from './starts.ts'

/** Searches one start after the other, in a thread of its own. */
export interface Task {
  name: string
  limits: Limits
}

function search({ name, limits }: Task): Report {
  try {
    return explore(startOf(name).world(), limits)
  } catch (error) {
    if (!(error instanceof Violation)) throw error
    // On the calm way to the start already.
    return { ...nothingYet, found: { checker: error.checker, message: error.message, trace: [], depth: 0, cost: 0 } }
  }
}

parentPort?.on('message', (task: Task) => parentPort?.postMessage(search(task)))
