import { realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import { softwareVersion } from '../version.ts'
import { addActVerbs } from './act-verbs.ts'
import { addChangeVerbs } from './change-verbs.ts'
import { addControlVerbs } from './control-verbs.ts'
import { addDaemonVerbs, addInternalVerbs } from './daemon-verbs.ts'
import { addEvidenceVerbs } from './evidence-verbs.ts'
import { exitCodes, exitMeanings, exitOf } from './exit-codes.ts'
import { addNetworkVerbs } from './network-verbs.ts'
import { addPairVerbs } from './pair-verbs.ts'
import { addReadVerbs } from './read-verbs.ts'
import { addStorageVerbs } from './storage-verbs.ts'
import { addSyncVerbs } from './sync-verbs.ts'
import { addVipVerbs } from './vip-verbs.ts'

/** The one command of the product: the agent, the witness, and what a person asks of them. */
export function understudy(): Command {
  const program = new Command('understudy')
    .description(
      'Keeps a service running on two hosts: automatic takeover in about a second, no acknowledged write lost.',
    )
    .version(softwareVersion)
    .option('--socket <path>', "the agent's socket (default: UNDERSTUDY_SOCKET, or what the configuration names)")
    .option('--config <path>', "this host's configuration (default: /etc/understudy/agent.json)")
    .configureHelp({ showGlobalOptions: true })
    .exitOverride()
    .showHelpAfterError('Try `understudy help`.')
    .addHelpText('after', `\nExit codes:\n${exitTable()}\n`)
  addReadVerbs(program)
  addActVerbs(program)
  addEvidenceVerbs(program)
  addPairVerbs(program)
  addControlVerbs(program)
  addVipVerbs(program)
  addChangeVerbs(program)
  addNetworkVerbs(program)
  addStorageVerbs(program)
  addSyncVerbs(program)
  addDaemonVerbs(program)
  addInternalVerbs(program)
  return program
}

function exitTable(): string {
  const rows = Object.entries(exitMeanings).map(
    ([name, meaning]) => `  ${exitCodes[name as keyof typeof exitCodes]}  ${meaning}`,
  )
  return rows.join('\n')
}

/** Runs one command line; the exit code is set, never forced, so that what was printed gets out. */
export async function main(args: readonly string[]): Promise<void> {
  try {
    await understudy().parseAsync(args, { from: 'user' })
  } catch (error) {
    const { code, message } = exitOf(error)
    if (message !== '') process.stderr.write(`understudy: ${message}\n`)
    process.exitCode = code
    // An agent whose start failed half-way holds its socket and its folder; it must not go on holding them. Whatever was
    // printed has gone out by then, and a process with nothing left ends earlier by itself.
    setTimeout(() => process.exit(), lingerMs).unref()
  }
}
const lingerMs = 500

const entry = process.argv[1]
if (entry !== undefined && realpathSync(entry) === fileURLToPath(import.meta.url)) {
  // A reader that has enough (`| head`) is no error.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))
  await main(process.argv.slice(2))
}
