import { existsSync } from 'node:fs'
import type { Command } from 'commander'
import { loadHost } from '../host-file.ts'
import { ask } from '../socket/client.ts'

/** Where a host keeps its things unless told otherwise. */
export const defaultConfigPath = '/etc/understudy/agent.json'
export const defaultSocketPath = '/run/understudy/agent.sock'

/** The agent answers from memory; more than this and it hangs. */
const silenceMs = 5000
/** Long verbs tell their progress, but a base backup or a takeover may be silent for a while. */
export const longSilenceMs = 120_000

export interface GlobalOptions {
  socket?: string
  config?: string
}

/** --socket, else UNDERSTUDY_SOCKET, else the socket named in the configuration, else the usual place. */
export function socketPath(options: GlobalOptions): string {
  if (options.socket !== undefined) return options.socket
  const named = process.env.UNDERSTUDY_SOCKET
  if (named !== undefined && named !== '') return named
  if (options.config !== undefined) return loadHost(options.config).base.socket
  return existsSync(defaultConfigPath) ? loadHost(defaultConfigPath).base.socket : defaultSocketPath
}

export type AskOptions = {
  args?: Record<string, unknown>
  silenceMs?: number
  progress?: (line: unknown) => void
  signal?: AbortSignal
}

/** One question to the agent of this host. */
export function askAgent(command: Command, verb: string, options: AskOptions = {}): Promise<unknown> {
  const path = socketPath(command.optsWithGlobals<GlobalOptions>())
  return ask({ path, verb, silenceMs, ...options })
}
