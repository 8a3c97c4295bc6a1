import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { takeEndCalmly } from '../kernel/child-end.ts'
import { bundledChild } from '../self.ts'

/**
 * Runs a hidden verb of this program in a process and a session of its own, which outlives whoever asked for it: a terminal
 * that is closed, an agent that begins anew. What is asked goes in as JSON on standard input, the answer is its last line.
 * @returns null: it ended without a word, or has said nothing within the limit (and runs on then)
 */
export async function runApart(verb: string, part: { request: object; limitMs: number }): Promise<unknown> {
  const { command, args } = bundledChild(verb) ?? {
    command: process.execPath,
    args: ['--disable-warning=ExperimentalWarning', fileURLToPath(new URL('../cli/main.ts', import.meta.url)), verb],
  }
  const child = spawn(command, args, { detached: true, stdio: ['pipe', 'pipe', 'inherit'] })
  // One that can't be started says nothing; without a descriptor left it has no pipes either.
  child.once('error', () => {})
  takeEndCalmly(child)
  if (child.stdout === undefined) return null
  child.stdin.on('error', () => {})
  child.stdin.end(JSON.stringify(part.request))
  const limit = setTimeout(() => child.stdout.destroy(), part.limitMs)
  const said = await text(child.stdout).catch(() => '')
  clearTimeout(limit)
  return parsed(said)
}

function parsed(said: string): unknown {
  try {
    return JSON.parse(said.trim().split('\n').at(-1) ?? '')
  } catch {
    return null
  }
}
