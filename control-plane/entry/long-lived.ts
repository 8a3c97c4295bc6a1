import type { LogLine } from '../deps.ts'
import { faultText } from '../fault-text.ts'

/** What the runtimes share that live longer than a request: Node and Deno. */

/** Time steps of operations; the work of a sweep that finds nothing is a few index look-ups. */
const sweepEveryMs = 2_000

/** One at a time: a database that is slow must not find all its connections taken by sweeps that wait for each other. */
export function startSweeping(
  work: () => Promise<unknown>,
  { log, everyMs = sweepEveryMs }: { log: (line: LogLine) => void; everyMs?: number },
): { stop: () => Promise<void> } {
  let running: Promise<unknown> = Promise.resolve()
  let idle = true
  const timer = setInterval(() => {
    if (!idle) return
    idle = false
    running = work()
      .catch((error: unknown) => log({ level: 'error', message: `the sweep failed: ${faultText(error)}` }))
      .finally(() => {
        idle = true
      })
  }, everyMs)
  return {
    stop: async () => {
      clearInterval(timer)
      await running
    },
  }
}

/** A broker that is away says so once, not each second. */
export function brokerLog(log: (line: LogLine) => void): (why: string) => void {
  let last = ''
  return why => {
    if (why === last) return
    last = why
    log({ level: 'warning', message: `broker: ${why}` })
  }
}
