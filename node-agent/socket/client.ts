import { connect } from 'node:net'
import { type Answer, answerBytesMax, answerSchema, Lines, VerbError } from './messages.ts'

/** The agent does not answer on its socket. */
export class AgentUnreachable extends Error {
  override name = 'AgentUnreachable'
}

export interface Ask {
  path: string
  verb: string
  args?: Record<string, unknown>
  /** The agent answers from memory; a verb that works long says something meanwhile. */
  silenceMs: number
  progress?: (line: unknown) => void
  signal?: AbortSignal
}

/**
 * Asks the agent one thing.
 * @throws AgentUnreachable if nobody answers, VerbError if the agent refuses.
 */
export function ask({ path, verb, args = {}, silenceMs, progress, signal }: Ask): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = connect(path)
    const lines = new Lines(answerBytesMax)
    const fail = (error: Error): void => {
      socket.destroy()
      reject(error)
    }
    signal?.addEventListener('abort', () => {
      socket.destroy()
      resolve(null)
    })
    socket.setEncoding('utf8')
    if (silenceMs > 0) {
      socket.setTimeout(silenceMs, () => {
        const why = `the agent did not answer within ${silenceMs / 1000} s: is it stopped? \`systemctl status understudy\` tells`
        fail(new AgentUnreachable(why))
      })
    }
    socket.on('connect', () => socket.write(`${JSON.stringify({ id: 1, verb, args })}\n`))
    socket.on('error', (error: NodeJS.ErrnoException) => fail(new AgentUnreachable(explain(path, error))))
    socket.on('close', () =>
      fail(new AgentUnreachable('the agent closed the connection before it answered: it stopped, or its log says why')),
    )
    socket.on('data', (text: string) => {
      const complete = lines.take(text)
      if (complete === null)
        return fail(new AgentUnreachable(`the agent answered with more than ${answerBytesMax} bytes`))
      for (const line of complete) {
        const answer = parse(line)
        if (answer === null)
          return fail(
            new AgentUnreachable('the agent answered something else than this CLI expects: are both of one version?'),
          )
        if ('progress' in answer) progress?.(answer.progress)
        else if ('error' in answer) fail(new VerbError(answer.error.code, answer.error.message))
        else {
          resolve(answer.result)
          socket.destroy()
        }
      }
    })
  })
}

function parse(line: string): Answer | null {
  try {
    const parsed = answerSchema.safeParse(JSON.parse(line))
    return parsed.success ? parsed.data : null
  } catch {
    return null
  }
}

function explain(path: string, error: NodeJS.ErrnoException): string {
  switch (error.code) {
    case 'ENOENT':
      return `no agent runs here: ${path} does not exist; start it with \`systemctl start understudy\`, or name its socket with --socket`
    case 'ECONNREFUSED':
      return `nobody answers on ${path}: the agent ended without cleaning up; start it with \`systemctl start understudy\``
    case 'EACCES':
      return `${path} belongs to another user: run this as root`
    default:
      return `${path} can't be reached: ${error.message}`
  }
}
