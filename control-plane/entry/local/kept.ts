import type { ChildHealth, LogLine } from '../../deps.ts'

/** A server of our own that is running: what `startLocalPostgres` and `startLocalMosquitto` give. */
export interface Running {
  /** Resolves when it has ended, with why. */
  ended: Promise<string>
  close: () => Promise<void>
}

export interface KeptOptions<Server extends Running> {
  name: ChildHealth['name']
  /** @param again what ran before, whose address the next one has to have; null: the first start */
  start: (again: Server | null) => Promise<Server>
  /** It runs again: what it has lost is made up for. */
  restarted?: () => Promise<void>
  log: (line: LogLine) => void
  /** For tests. */
  pause?: (ms: number) => Promise<void>
  nowMs?: () => number
}

export interface Kept<Server extends Running> {
  first: Server
  /** What runs, or ran last. */
  present: () => Server
  health: () => ChildHealth
  /** Resolves when it is given up, with why: without it there is nothing to serve. */
  failed: Promise<string>
  close: () => Promise<void>
}

/** One that ends again and again has a reason that no start mends: a full disk, a damaged file, a port that is taken. */
export const restartsMax = 6
/** What ran for so long had begun well: its next end is counted from one. */
const calmMs = 10 * 60_000
/** 0.25, 0.5, … s: a crash costs an instant, and six of them some seconds. */
const firstPauseMs = 250

/**
 * Starts a server, and starts it again when it ends by itself: a bounded number of times, ever later, and said each time.
 * @throws what the first start throws
 */
export async function keepRunning<Server extends Running>(options: KeptOptions<Server>): Promise<Kept<Server>> {
  const { name, start, log } = options
  const { pause = wait, nowMs = () => performance.now(), restarted = async () => {} } = options
  const first = await start(null)
  let present: Server | null = first
  let last = first
  let closing = false
  let ends = 0
  let beganAtMs = nowMs()
  const health: ChildHealth = { name, running: true, restarts: 0 }
  const { promise: failed, resolve: fail } = Promise.withResolvers<string>()
  const { promise: closed, resolve: letGo } = Promise.withResolvers<void>()

  const after = async (why: string): Promise<void> => {
    if (closing) return
    present = null
    ends = nowMs() - beganAtMs > calmMs ? 1 : ends + 1
    health.running = false
    if (ends > restartsMax) {
      const given = `${name} ended ${ends} times in a row and is not started again; the last time: ${why}`
      log({ level: 'error', message: given })
      return fail(given)
    }
    const pauseMs = firstPauseMs * 2 ** (ends - 1)
    log({ level: 'warning', message: `${why}; it is started again in ${pauseMs} ms (${ends} of ${restartsMax})` })
    await Promise.race([pause(pauseMs), closed])
    if (closing) return
    beganAtMs = nowMs()
    try {
      const next = await start(last)
      if (closing) return await next.close()
      present = next
      last = next
      Object.assign(health, { running: true, restarts: health.restarts + 1 })
      log({ level: 'info', message: `${name} runs again` })
      watch(next)
    } catch (error) {
      return after(error instanceof Error ? error.message : String(error))
    }
    await restarted().catch((error: unknown) => {
      const reason = error instanceof Error ? error.message : String(error)
      log({ level: 'warning', message: `after the restart of ${name}: ${reason}` })
    })
  }
  let working: Promise<void> = Promise.resolve()
  const watch = (server: Server): void => {
    void server.ended.then(why => {
      working = after(why)
    })
  }
  watch(first)
  const close = async (): Promise<void> => {
    closing = true
    letGo()
    await present?.close()
    await working
  }
  return { first, present: () => last, health: () => ({ ...health }), failed, close }
}

/** It holds up no end of this process. */
const wait = (ms: number): Promise<void> =>
  new Promise(resolve => {
    setTimeout(resolve, ms).unref()
  })
