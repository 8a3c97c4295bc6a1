import type { Command } from 'commander'
import { defaultConfigPath, type GlobalOptions } from './connection.ts'
import { Exit } from './exit-codes.ts'

/** The long-running processes. Their parts are loaded only here: the other verbs start in a fraction of the time. */
export function addDaemonVerbs(program: Command): void {
  program
    .command('agent')
    .description('run the agent of this host in the foreground')
    .addHelpText('after', '\nExample:\n  understudy agent --config /etc/understudy/agent.json\n')
    .action(async (_options: object, command: Command) => {
      const { runAgent } = await import('../main.ts')
      await runAgent(command.optsWithGlobals<GlobalOptions>().config ?? defaultConfigPath)
    })
  program
    .command('witness')
    .description('run a witness, the third voter, for any number of pairs')
    .requiredOption('--listen <address:port>', 'such as 0.0.0.0:7443 or [::]:7443')
    .option('--data-dir <path>', 'where its votes are kept', '/var/lib/understudy-witness')
    .option('--tls-cert <path>', 'a certificate of your own instead of a self-signed one')
    .option('--tls-key <path>', 'its key')
    .addHelpText('after', '\nExample:\n  understudy witness --listen 0.0.0.0:7443\n')
    .action(async (options: WitnessFlags) => {
      const { runWitness } = await import('../witness-server/main.ts')
      const { listen, dataDir, tlsCert, tlsKey } = options
      const code = await runWitness({ listen, dataDir, tlsCert: tlsCert ?? null, tlsKey: tlsKey ?? null })
      if (code !== 0) throw new Exit('failed')
    })
}

/** Children of the agent when the program is one file: not for people. */
export function addInternalVerbs(program: Command): void {
  program.command('network-change', { hidden: true }).action(async () => {
    const { changeProcess } = await import('../network/change-process.ts')
    await changeProcess()
  })
  program.command('initiator-name-change', { hidden: true }).action(async () => {
    const { nameChangeProcess } = await import('../storage/name-change-process.ts')
    await nameChangeProcess()
  })
  program.command('inventory-look', { hidden: true }).action(async () => {
    const { lookProcess } = await import('../inventory/look-process.ts')
    await lookProcess()
  })
  program
    .command('worker', { hidden: true })
    .argument('<name>')
    .action(async (name: string) => {
      const { runNamedWorker } = await import('../workers/worker-process.ts')
      await runNamedWorker(name)
    })
}

interface WitnessFlags {
  listen: string
  dataDir: string
  tlsCert?: string
  tlsKey?: string
}
