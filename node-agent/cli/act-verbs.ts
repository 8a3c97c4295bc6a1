import { createInterface } from 'node:readline/promises'
import { type Command, InvalidArgumentError } from 'commander'
import type { Decision } from '../decisions.ts'
import type { StatusReport } from '../report/status-report.ts'
import { askAgent, longSilenceMs } from './connection.ts'
import { Exit } from './exit-codes.ts'
import { showDecision, span } from './show.ts'

/** Verbs that go through the protocol, and those that overrule it and therefore ask. */

export function addActVerbs(program: Command): void {
  program
    .command('switchover')
    .description('the other host becomes primary (on the backup: this one does), without loss')
    .addHelpText('after', '\nExample:\n  understudy check && understudy switchover\n')
    .action(async (_options: object, command: Command) => done(await long(command, 'switchover', {})))
  program
    .command('takeover')
    .description('make this host primary although the other one did not hand over; it must be off')
    .option('--force', 'required: this verb overrules the register')
    .option('--without-witness', 'the witness is lost for good and gets no vote in the new generation')
    .option(
      '--over-gen <gen>',
      'give up what was written in this newer generation, forced on the other host',
      generation,
    )
    .option('--yes', 'do not ask; for scripts that know that the other host is off')
    .addHelpText('after', '\nExample, after the other host was switched off:\n  understudy takeover --force\n')
    .action(takeover)
  const maintenance = program.command('maintenance').description('suspend automatic takeover for planned work')
  maintenance
    .command('on')
    .description('no automatic takeover for a limited time')
    .requiredOption('--for <time>', 'such as 90s, 30m or 2h, 24h at most', duration)
    .addHelpText('after', '\nExample:\n  understudy maintenance on --for 30m\n')
    .action(async (options: { for: number }, command: Command) =>
      done(await askAgent(command, 'maintenance', { args: { forMs: options.for } })),
    )
  maintenance
    .command('off')
    .description('automatic takeover again')
    .addHelpText('after', '\nExample:\n  understudy maintenance off\n')
    .action(async (_options: object, command: Command) =>
      done(await askAgent(command, 'maintenance', { args: { forMs: 0 } })),
    )
}

export function done(result: unknown): void {
  if (typeof result === 'object' && result !== null && 'why' in result) process.stdout.write(`${String(result.why)}\n`)
}

/** Decisions are shown as they are taken, on stderr: the result alone goes to stdout. */
export function long(command: Command, verb: string, args: Record<string, unknown>): Promise<unknown> {
  const progress = (line: unknown): void => {
    process.stderr.write(`  ${showDecision(line as Decision)}\n`)
  }
  return askAgent(command, verb, { args, progress, silenceMs: longSilenceMs })
}

async function takeover(
  options: { force?: boolean; withoutWitness?: boolean; overGen?: number; yes?: boolean },
  command: Command,
): Promise<void> {
  if (!options.force) {
    throw new Exit(
      'usage',
      'a takeover of a lost primary happens by itself, and `understudy switchover` moves the service without loss. To overrule the register, with the other host switched off, add --force.',
    )
  }
  const status = (await askAgent(command, 'status')) as StatusReport
  if (status.serving) throw new Exit('refused', 'this host serves already; nothing to take over')
  process.stderr.write(warning(status))
  if (!options.yes) await confirmByName(status.pair, 'that the other host is off')
  const args = { gen: options.overGen ?? status.gen, epoch: status.epoch, withWitness: !options.withoutWitness }
  done(await long(command, 'takeover', args))
}

/** What may be lost, from what is known here; what is not known is said to be unknown. */
export function warning(status: StatusReport): string {
  const { peer, replication } = status
  const lost = status.successor
    ? `none that ${peer.node} acknowledged before it became silent, if this host's register is the newest: version ${status.version}`
    : `everything that ${peer.node} acknowledged alone since it went on without this host; how much is not known here`
  const seen =
    peer.heardAgoMs === null ? 'was not heard since this agent started' : `was heard ${span(peer.heardAgoMs)} ago`
  return [
    `This makes host ${status.node} primary of pair ${status.pair} by force.`,
    `  ${peer.node} ${seen}.${peer.heardAgoMs !== null && peer.heardAgoMs < aliveMs ? ' IT IS ALIVE: use `understudy switchover` instead.' : ''}`,
    `  Log here: timeline ${replication.timeline} at ${replication.lsn}.`,
    `  Acknowledged writes that may be lost: ${lost}.`,
    ...(status.genHeard > status.gen
      ? [
          `  Generation ${status.genHeard} was forced on ${peer.node}, and this host has heard nothing of what was written in it: force ${peer.node} instead, or add --over-gen ${status.genHeard} to give it up.`,
        ]
      : []),
    `  If ${peer.node} still runs, both may serve: switch it off first and keep it off until the new generation is sealed.`,
    '',
  ].join('\n')
}
const aliveMs = 5000

/** The name of the pair, not "y": typed by somebody who knows where he is. */
export async function confirmByName(pair: string, what: string): Promise<void> {
  if (!process.stdin.isTTY) {
    throw new Exit(
      'notConfirmed',
      `nobody can be asked here: run it in a terminal, or add --yes to confirm ${what}; nothing was changed`,
    )
  }
  const ask = createInterface({ input: process.stdin, output: process.stderr })
  const answer = await ask.question(`Type the name of the pair (${pair}) to confirm ${what}: `)
  ask.close()
  if (answer.trim() !== pair) throw new Exit('notConfirmed', 'not confirmed; nothing was changed')
}

/** A generation by its number. */
export function generation(text: string): number {
  const number = Number(text)
  if (/^\d{1,4}$/.test(text) && number > 0) return number
  throw new InvalidArgumentError('write the number that `understudy status` shows.')
}

const unitMs: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000 }
const dayMs = 86_400_000

/** "30m" as milliseconds. */
export function duration(text: string): number {
  const [, amount, unit] = /^(\d{1,5})([smh])$/.exec(text) ?? []
  const ms = Number(amount) * (unitMs[unit ?? ''] ?? Number.NaN)
  if (ms > 0 && ms <= dayMs) return ms
  throw new InvalidArgumentError('write it like 90s, 30m or 2h, 24h at most.')
}
