import { CommanderError } from 'commander'
import { ConfigError } from '../config.ts'
import { LeftPair } from '../pair/setup-file.ts'
import { AgentUnreachable } from '../socket/client.ts'
import { type ErrorCode, VerbError } from '../socket/messages.ts'

/** One table for every verb; shown by `understudy help`. */
export const exitCodes = {
  ok: 0,
  failed: 1,
  usage: 2,
  config: 3,
  unreachable: 4,
  refused: 5,
  notReady: 6,
  notConfirmed: 7,
  unknownOutcome: 8,
  left: 9,
} as const
export type ExitName = keyof typeof exitCodes

export const exitMeanings: Record<ExitName, string> = {
  ok: 'done',
  failed: 'failed for a reason that is printed',
  usage: 'wrong option or argument; nothing was changed',
  config: 'the configuration or this host was refused; nothing was changed',
  unreachable: 'no agent answers on the socket',
  refused: 'the pair refuses: its state does not allow it',
  notReady: '`check`: an automatic takeover would not succeed now',
  notConfirmed: 'the operator did not confirm; nothing was changed',
  unknownOutcome: 'begun, but not known to be done: look at `understudy why`',
  left: '`agent`: this host left its pair and takes no part',
}

/** A verb that ends with a code of its own, after it printed what there is to say. */
export class Exit extends Error {
  override name = 'Exit'
  readonly code: ExitName
  constructor(code: ExitName, message = '') {
    super(message)
    this.code = code
  }
}

const verbCodes: Record<ErrorCode, ExitName> = {
  usage: 'usage',
  refused: 'refused',
  'unknown outcome': 'unknownOutcome',
  failed: 'failed',
}

export function exitOf(error: unknown): { code: number; message: string } {
  const { name, message } = classify(error)
  return { code: exitCodes[name], message }
}

function classify(error: unknown): { name: ExitName; message: string } {
  if (error instanceof Exit) return { name: error.code, message: error.message }
  if (error instanceof ConfigError) return { name: 'config', message: error.message }
  if (error instanceof LeftPair) return { name: 'left', message: error.message }
  if (error instanceof AgentUnreachable) return { name: 'unreachable', message: error.message }
  if (error instanceof VerbError) return { name: verbCodes[error.code], message: error.message }
  // Commander has printed its sentence already, and ends help and version with 0.
  if (error instanceof CommanderError) return { name: error.exitCode === 0 ? 'ok' : 'usage', message: '' }
  return { name: 'failed', message: error instanceof Error ? error.message : String(error) }
}
