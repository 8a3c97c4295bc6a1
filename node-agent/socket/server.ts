import { chmodSync, rmSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { makeFolder } from '../folders.ts'
import {
  type Answer,
  type ErrorCode,
  Lines,
  type Request,
  requestBytesMax,
  requestSchema,
  VerbError,
} from './messages.ts'

/** One verb: resolves with its result. `progress` tells of long work; `signal` ends when the client has gone. */
export type Verb = (args: Record<string, unknown>, call: Call) => Promise<unknown>
export interface Call {
  progress: (line: unknown) => void
  signal: AbortSignal
}

/** An operator, a monitor and a follower or two. */
const connectionsMax = 32
/** Requests of one connection that run at once. */
const requestsMax = 8
/** A reader that does not read is cut off: the agent's memory must not wait for it. */
const unreadBytesMax = 16 * 1024 * 1024
/** A connection on which nothing was asked. */
const idleMs = 60_000

export interface ServerOptions {
  path: string
  verbs: Record<string, Verb>
  /** A verb threw something that is not a refusal. */
  failed: (verb: string, error: unknown) => void
}

export class SocketServer {
  readonly #options: ServerOptions
  readonly #server: Server
  readonly #connections = new Set<Socket>()

  constructor(options: ServerOptions) {
    this.#options = options
    this.#server = createServer(socket => this.#serve(socket))
    this.#server.maxConnections = connectionsMax
  }

  /** @throws with a sentence if another agent answers on the path, or the path can't be used. */
  async listen(): Promise<void> {
    const { path } = this.#options
    makeFolder(dirname(path), 0o755)
    if (await answers(path)) throw new Error(`${path} is answered by another agent: one host runs one agent for a pair`)
    rmSync(path, { force: true })
    // Born closed to others: chmod after listen would leave an instant.
    const before = process.umask(0o177)
    try {
      await new Promise<void>((resolve, reject) => {
        // For good: a connection that can't be taken later on, for want of memory, is the client's affair.
        this.#server.on('error', reject)
        this.#server.listen(path, resolve)
      })
    } finally {
      process.umask(before)
    }
    chmodSync(path, 0o600)
  }

  close(): void {
    this.#server.close()
    for (const socket of this.#connections) socket.destroy()
    rmSync(this.#options.path, { force: true })
  }

  #serve(socket: Socket): void {
    const lines = new Lines(requestBytesMax)
    const gone = new AbortController()
    let running = 0
    this.#connections.add(socket)
    socket.setEncoding('utf8')
    const idle = (): void => {
      socket.setTimeout(running === 0 ? idleMs : 0)
    }
    const say = (answer: Answer): void => {
      if (socket.destroyed) return
      if (socket.writableLength > unreadBytesMax) socket.destroy()
      else socket.write(`${JSON.stringify(answer)}\n`)
    }
    idle()
    socket.on('timeout', () => socket.destroy())
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      this.#connections.delete(socket)
      gone.abort()
    })
    socket.on('data', (text: string) => {
      const complete = lines.take(text)
      if (complete === null) {
        say(refusal(0, 'usage', `a request is longer than ${requestBytesMax} bytes`))
        socket.end()
        return
      }
      for (const line of complete) {
        const request = parseRequest(line)
        if (typeof request === 'string') say(refusal(0, 'usage', request))
        else if (running >= requestsMax) say(refusal(request.id, 'refused', `${requestsMax} requests run already`))
        else {
          running++
          idle()
          void this.#run(request, { say, signal: gone.signal }).finally(() => {
            running--
            idle()
          })
        }
      }
    })
  }

  async #run({ id, verb, args }: Request, to: { say: (answer: Answer) => void; signal: AbortSignal }): Promise<void> {
    const run = Object.hasOwn(this.#options.verbs, verb) ? this.#options.verbs[verb] : undefined
    if (run === undefined) {
      to.say(refusal(id, 'usage', `the agent knows no verb ${JSON.stringify(verb)}: is the CLI of another version?`))
      return
    }
    try {
      const result = await run(args, { progress: progress => to.say({ id, progress }), signal: to.signal })
      to.say({ id, result: result ?? null })
    } catch (error) {
      if (error instanceof VerbError) to.say(refusal(id, error.code, error.message))
      else {
        this.#options.failed(verb, error)
        to.say(refusal(id, 'failed', `the agent failed in ${verb}; its log says more`))
      }
    }
  }
}

const refusal = (id: number, code: ErrorCode, message: string): Answer => ({ id, error: { code, message } })

function parseRequest(line: string): Request | string {
  try {
    const parsed = requestSchema.safeParse(JSON.parse(line))
    return parsed.success ? parsed.data : 'a request needs id, verb and args, and nothing else'
  } catch {
    return 'a request is one line of JSON'
  }
}

/** A file left by an agent that was killed answers nobody. */
function answers(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
