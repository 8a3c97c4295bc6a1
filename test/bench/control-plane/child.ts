import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'

/** A part of the benchmark in a process of its own; it is asked and told by messages, one answer each. */
export interface Part {
  ask: <Answer>(message: unknown) => Promise<Answer>
  end: () => Promise<void>
}

export async function startPart<First>(file: string, args: readonly string[]): Promise<{ part: Part; first: First }> {
  const child = fork(join(import.meta.dirname, file), args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const first = await answer<First>(child)
  return {
    first,
    part: {
      ask: message => {
        const answered = answer<never>(child)
        child.send(message as never)
        return answered
      },
      end: async () => {
        const ended = new Promise(resolve => child.once('exit', resolve))
        child.send('end')
        const timer = setTimeout(() => child.kill('SIGKILL'), 10_000)
        await ended
        clearTimeout(timer)
      },
    },
  }
}

function answer<Answer>(child: ChildProcess): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const onExit = (code: number | null): void => reject(new Error(`a part of the benchmark ended with code ${code}`))
    child.once('exit', onExit)
    child.once('message', message => {
      child.off('exit', onExit)
      resolve(message as Answer)
    })
  })
}
