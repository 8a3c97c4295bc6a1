import { readdirSync, writeFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { setPriority } from 'node:os'
import { type Answer, Channel } from './channel.ts'
import { reportTopic, stopLimitMs, workerNice, workerOomScore } from './definition.ts'

/** What a worker's program can do besides its own work. */
export interface Core {
  /** What `status` shows of this worker; the newest counts. */
  report(body: unknown): void
  /** False: it was dropped, since the core does not keep up. */
  tell(topic: string, body: unknown): boolean
  ask(verb: string, body: unknown, limitMs: number): Promise<Answer>
}

/** A worker's program; it runs until the core ends it. */
export interface WorkerProgram {
  start(core: Core): Promise<void> | void
  /** Published by the core: the newest of each topic is told again after each start. */
  told?(topic: string, body: unknown): void
  /** Questions of the core, such as verbs of the CLI. A thrown error's message is the refusal. */
  asked?(verb: string, body: unknown): unknown
  /** The core stops or ends this worker: what is open is closed within some hundred milliseconds. */
  stop?(): Promise<void> | void
}

/** The supervisor's end of the socket pair, after stdin, stdout and stderr. */
const channelFd = 3
/** Names of the core's own words. */
export const aliveVerb = 'alive'
export const stopTopic = 'stop'

export async function runNamedWorker(name: string): Promise<void> {
  const { workerPrograms } = await import('./registry.ts')
  const load = Object.hasOwn(workerPrograms, name) ? workerPrograms[name] : undefined
  if (load === undefined) throw new Error(`this agent has no worker ${JSON.stringify(name)}`)
  await runWorker(await load())
}

/** Runs a program as this process's only business. Ends the process when the core has gone or says so. */
export async function runWorker(program: WorkerProgram): Promise<void> {
  stepBack()
  let ending = false
  const end = async (code: number): Promise<void> => {
    if (ending) return
    ending = true
    setTimeout(() => process.exit(code), stopLimitMs / 2)
    await program.stop?.()
    process.exit(code)
  }
  const channel = new Channel({
    stream: new Socket({ fd: channelFd, readable: true, writable: true }),
    told: (topic, body) => {
      if (topic === stopTopic) void end(0)
      else program.told?.(topic, body)
    },
    asked: (verb, body) => {
      if (verb === aliveVerb) return null
      if (program.asked === undefined) throw new Error(`this worker answers no questions`)
      return program.asked(verb, body)
    },
    // Without its core a worker has no business: the next core starts one of its own.
    closed: () => void end(0),
  })
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void end(0))
  await program.start({
    report: reporter(channel),
    tell: (topic, body) => channel.tell(topic, body),
    ask: (verb, body, limitMs) => channel.ask(verb, body, limitMs),
  })
}

/** A report that was dropped would leave an old one standing: the newest is told again until it got through. */
function reporter(channel: Channel): (body: unknown) => void {
  let newest: unknown = null
  let again: NodeJS.Timeout | null = null
  const tell = (): void => {
    again = channel.tell(reportTopic, newest) ? null : setTimeout(tell, reportAgainMs)
  }
  return body => {
    newest = body
    if (again === null) tell()
  }
}
const reportAgainMs = 200

/** One of those that start a process may have ended meanwhile. */
function lowerPriority(thread: number): void {
  try {
    setPriority(thread, workerNice)
  } catch (fault) {
    if ((fault as { info?: { code?: string } }).info?.code !== 'ESRCH') throw fault
  }
}

/** Nice values belong to threads (setpriority(2)), and V8 has started some already. */
export function stepBack(): void {
  for (const thread of readdirSync('/proc/self/task')) lowerPriority(Number(thread))
  writeFileSync('/proc/self/oom_score_adj', String(workerOomScore))
}
