import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { isMainThread } from 'node:worker_threads'
import { runRealTime } from '../../node-agent/kernel/libc.ts'
import { type Summary, summary } from './statistics.ts'

/** The core's beat in the profile `default`, in a process scheduled as the core is: what files cost the heartbeat. */
const beatMs = 100
/** As `node-agent/main.ts` asks for. */
const priority = 10

export interface Beat {
  /** How late the beats since the last call were. */
  take: () => Promise<Summary>
  stop: () => void
}

export function startBeat(): Beat {
  const child = fork(fileURLToPath(import.meta.url), ['beat'], { execArgv: ['--disable-warning=ExperimentalWarning'] })
  return {
    take: () =>
      new Promise((resolve, reject) => {
        child.once('message', late => resolve(summary(late as number[])))
        child.once('error', reject)
        child.send('take')
      }),
    stop: () => child.kill('SIGKILL'),
  }
}

function beat(): void {
  runRealTime(priority)
  let late: number[] = []
  let due = performance.now() + beatMs
  const tick = (): void => {
    late.push(Math.max(0, performance.now() - due))
    due += beatMs
    setTimeout(tick, due - performance.now())
  }
  setTimeout(tick, beatMs)
  process.on('message', () => {
    process.send?.(late)
    late = []
  })
  process.on('disconnect', () => process.exit(0))
}

if (isMainThread && process.argv[2] === 'beat' && process.send !== undefined) beat()
