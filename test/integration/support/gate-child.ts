/**
 * A process that holds a gate and is stopped by tests. Commands over the IPC channel; each is answered.
 * `stopAt` lets it stop itself (SIGSTOP) in the middle of a grant, at exactly the step named.
 */
import type { OpenResult } from '../../../node-agent/gate/gate.ts'
import { KernelGate } from '../../../node-agent/gate/kernel-gate.ts'
import { bootMs } from '../../../node-agent/kernel/clock.ts'
import { SPEC } from './pair.ts'

export type GateCommand =
  | { do: 'install' }
  | { do: 'open'; untilBootMs: number; stopAt?: 'asked' | 'armed' | 'built' }
  /** Renews every `everyMs` until the same instant, for as long as it is let. */
  | { do: 'renewAlways'; untilBootMs: number; everyMs: number }
  | { do: 'freeze' }

export type GateAnswer = { result?: OpenResult; error?: string; doneBootMs: number }

let stopAt: 'asked' | 'armed' | 'built' | undefined
const gate = new KernelGate(SPEC, {
  betweenSteps: step => {
    if (step !== stopAt) return
    stopAt = undefined
    process.kill(process.pid, 'SIGSTOP')
  },
})

function obey(command: GateCommand): OpenResult | undefined {
  switch (command.do) {
    case 'install':
      gate.install()
      return undefined
    case 'open':
      stopAt = command.stopAt
      return gate.open(command.untilBootMs)
    case 'renewAlways':
      setInterval(() => gate.open(command.untilBootMs), command.everyMs)
      return undefined
    case 'freeze':
      gate.freeze()
      return undefined
  }
}

process.on('message', (command: GateCommand) => {
  const answer: GateAnswer = { doneBootMs: 0 }
  try {
    const result = obey(command)
    if (result !== undefined) answer.result = result
  } catch (error) {
    answer.error = (error as Error).message
  }
  process.send!({ ...answer, doneBootMs: bootMs() })
})
process.on('disconnect', () => process.exit(0))
process.send!('ready')
