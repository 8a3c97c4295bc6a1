import type { Command } from 'commander'
import { makeFolder } from '../folders.ts'
import { loadHost } from '../host-file.ts'
import { ask } from '../socket/client.ts'
import { defaultConfigPath, type GlobalOptions } from './connection.ts'
import { Exit } from './exit-codes.ts'
import { readTextArgument } from './text-file.ts'

/** How a host becomes known to a control plane. The parts are loaded only here. */
export function addControlVerbs(program: Command): void {
  program
    .command('enrol')
    .description('make this host known to a control plane, by the one-time token that it gave')
    .requiredOption('--token-file <path>', 'what the control plane printed; "-" reads it from standard input')
    .addHelpText(
      'after',
      '\nExample:\n  understudy enrol --token-file /root/enrolment.token\n\nThe token names the control plane and the fingerprint of its root of trust; keys are made here and never leave.\n',
    )
    .action(enrol)
}

/** The agent answers from memory. */
const silenceMs = 5000

async function enrol(options: { tokenFile: string }, command: Command): Promise<void> {
  const { base: config } = loadHost(command.optsWithGlobals<GlobalOptions>().config ?? defaultConfigPath)
  const ticketText = readTextArgument(options.tokenFile, ticketBytesMax)
  const [{ enrol: present }, { factsOfHost }, { controlFolderOf, identityFileOf }, { softwareVersion }] =
    await Promise.all([
      import('../control/identity.ts'),
      import('../control/facts.ts'),
      import('../control/core-side.ts'),
      import('../version.ts'),
    ])
  makeFolder(controlFolderOf(config.stateDir), 0o700)
  const identity = await present({
    path: identityFileOf(config.stateDir),
    ticketText,
    facts: await factsOfHost(config.postgres),
    agentVersion: softwareVersion,
  }).catch((error: unknown) => {
    throw new Exit('refused', error instanceof Error ? error.message : String(error))
  })
  process.stdout.write(`this host is ${identity.name} (${identity.host}) at ${identity.url}\n`)
  const linked = await ask({ path: config.socket, verb: 'enrolled', silenceMs }).then(
    () => true,
    () => false,
  )
  const next = linked ? 'its agent has the link now' : 'its agent has the link from its next start on'
  process.stderr.write(`${next}; delete the token, it opens nothing any more\n`)
}
const ticketBytesMax = 4 * 1024
