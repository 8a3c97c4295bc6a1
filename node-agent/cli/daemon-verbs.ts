import type { Command } from 'commander'
import { defaultConfigPath, type GlobalOptions } from './connection.ts'

/** The long-running processes. Their parts are loaded only here: the other verbs start in a fraction of the time. */
export function addDaemonVerbs(program: Command): void {
  program
    .command('agent')
    .description('run the agent of this host in the foreground')
    .option('--config <path>', 'the configuration of this host', defaultConfigPath)
    .addHelpText('after', '\nExample:\n  understudy agent --config /etc/understudy/agent.json\n')
    .action(async (options: GlobalOptions) => {
      const { runAgent } = await import('../main.ts')
      await runAgent(options.config ?? defaultConfigPath)
    })
}
