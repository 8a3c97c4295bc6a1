import { existsSync } from 'node:fs'
import { type Command, InvalidArgumentError } from 'commander'
import type { Decision } from '../decisions.ts'
import { loadConfig } from '../host-file.ts'
import type { CheckReport } from '../report/check-report.ts'
import type { StatusReport } from '../report/status-report.ts'
import { AgentUnreachable } from '../socket/client.ts'
import { askAgent, defaultConfigPath, type GlobalOptions } from './connection.ts'
import { Exit } from './exit-codes.ts'
import { jsonOption, print, printAs } from './reading.ts'
import { showCheck, showDecision, showStatus, showWhy, type WhyReport } from './show.ts'

/** Verbs that change nothing. What the agent of the same version answers is taken at its word. */

export function addReadVerbs(program: Command): void {
  program
    .command('status')
    .description('what this host and its pair are now')
    .option(...jsonOption)
    .addHelpText('after', '\nExample:\n  understudy status --json | jq -r .protection\n')
    .action(async (options: { json?: boolean }, command: Command) => {
      const report = (await askAgent(command, 'status').catch(error => offline(error, command))) as StatusReport
      printAs(options, report, one => showStatus(one, Date.now()))
    })
  program
    .command('why')
    .description('the decisions of both hosts with their reasons, oldest first')
    .option('--last <n>', 'how many lines', count, 40)
    .option(...jsonOption)
    .addHelpText('after', '\nExample:\n  understudy why --last 200\n')
    .action(async (options: { last: number; json?: boolean }, command: Command) => {
      printAs(options, (await askAgent(command, 'why', { args: { limit: options.last } })) as WhyReport, showWhy)
    })
  program
    .command('check')
    .description('would a takeover succeed now? Exit code 0: yes, 6: no')
    .option(...jsonOption)
    .addHelpText('after', '\nExample, in a monitor:\n  understudy check > /dev/null || alert "no automatic takeover"\n')
    .action(async (options: { json?: boolean }, command: Command) => {
      const report = (await askAgent(command, 'check')) as CheckReport
      printAs(options, report, showCheck)
      if (!report.takeover) throw new Exit('notReady')
    })
  program
    .command('events')
    .description('the decisions of this host')
    .option('--last <n>', 'how many lines of the past', count, 20)
    .option('--follow', 'go on until Ctrl-C')
    .option('--json', 'one JSON object a line')
    .addHelpText('after', '\nExample:\n  understudy events --follow --json\n')
    .action(events)
  program
    .command('metrics')
    .description('the state as Prometheus text')
    .addHelpText(
      'after',
      '\nExample, for the textfile collector of the node exporter:\n  understudy metrics > /var/lib/node_exporter/understudy.prom\n',
    )
    .action(async (_options: object, command: Command) => print((await askAgent(command, 'metrics')) as string))
}

/** Without an agent there is still what it wrote down last. @throws always; the exit code says that nobody answers. */
async function offline(error: unknown, command: Command): Promise<never> {
  const path = command.optsWithGlobals<GlobalOptions>().config ?? defaultConfigPath
  if (!(error instanceof AgentUnreachable) || !existsSync(path)) throw error
  const { readState } = await import('../state-file/state-file.ts')
  const read = readState(loadConfig(path).stateDir)
  const value = read.ok ? (read.durable.known?.value ?? null) : null
  const last = !read.ok
    ? read.why
    : value === null
      ? 'its state on disk: this host belongs to no pair yet'
      : `its state on disk: ${value.primary} was primary of epoch ${value.epoch} (gen ${value.gen}, version ${value.version}), ${value.successor ? 'the other host may have taken over since' : 'without a successor'}`
  throw new AgentUnreachable(
    `${error.message}\n  ${last}\n  the gate is shut by the kernel while no agent runs; \`journalctl -u understudy\` says why it ended`,
  )
}

async function events(options: { last: number; follow?: boolean; json?: boolean }, command: Command): Promise<void> {
  const show = (line: unknown): void => {
    const decision = line as Decision
    print(options.json ? `${JSON.stringify(decision)}\n` : `${showDecision(decision)}\n`)
  }
  if (!options.follow) {
    const { lines } = (await askAgent(command, 'why', { args: { limit: 2000 } })) as WhyReport
    const { node } = (await askAgent(command, 'status')) as StatusReport
    for (const line of lines.filter(one => one.host === node).slice(-options.last)) show(line)
    return
  }
  const stop = new AbortController()
  process.once('SIGINT', () => stop.abort())
  await askAgent(command, 'events', { args: { last: options.last }, progress: show, silenceMs: 0, signal: stop.signal })
}

export function count(text: string): number {
  const value = Number(text)
  if (Number.isInteger(value) && value >= 1 && value <= 2000) return value
  throw new InvalidArgumentError('give a whole number from 1 to 2000.')
}
