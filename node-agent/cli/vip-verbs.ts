import type { Command } from 'commander'
import type { Config } from '../config.ts'
import { loadConfig } from '../host-file.ts'
import type { StatusReport } from '../report/status-report.ts'
import { askAgent } from './connection.ts'
import { Exit } from './exit-codes.ts'
import { beginAnew, changeField, ownConfig, pathOf, refuseUnfit } from './live-config.ts'
import { jsonOption, printAs } from './reading.ts'

/** The virtual addresses of the pair, and a changed configuration taken while the pair serves (live-config.ts). */
export function addVipVerbs(program: Command): void {
  program
    .command('reload')
    .description("take this host's changed configuration, while the pair serves")
    .addHelpText('after', '\nExample:\n  understudy reload\n')
    .action(async (_options: object, command: Command) => {
      const next = loadConfig(pathOf(command))
      await refuseUnfit(command, next)
      await beginAnew(command, next)
    })
  const vip = program.command('vip').description('the virtual addresses of the pair, on this host')
  vip
    .command('list', { isDefault: true })
    .description('the virtual addresses, their interfaces, and whether they are here')
    .option(...jsonOption)
    .addHelpText('after', '\nExample:\n  understudy vip list\n')
    .action(async (options: { json?: boolean }, command: Command) => {
      const { vips } = (await askAgent(command, 'status')) as StatusReport
      printAs(options, vips, list => list.map(showVip).join(''))
    })
  vip
    .command('add')
    .description('one more, on a vSwitch or another interface; do it on both hosts, the backup first')
    .argument('<address>', 'with the prefix length of its network, such as 10.1.0.100/24')
    .requiredOption('--on <interface>', 'of this name on both hosts')
    .addHelpText('after', '\nExample:\n  understudy vip add 10.1.0.100/24 --on svc0\n')
    .action((address: string, options: { on: string }, command: Command) =>
      change(command, before => [...before, { address, interface: options.on }]),
    )
  vip
    .command('remove')
    .description('one less; do it on both hosts, the primary first')
    .argument('<address>', 'as `understudy vip list` shows it')
    .addHelpText('after', '\nExample:\n  understudy vip remove 10.1.0.100/24\n')
    .action((address: string, _options: object, command: Command) =>
      change(command, before => {
        const left = before.filter(one => one.address !== address)
        if (left.length < before.length) return left
        const there = before.map(one => one.address).join(', ') || 'none'
        throw new Exit('usage', `there is no virtual address ${address}; this host has ${there}`)
      }),
    )
}

const showVip = ({ address, interface: on, present, conflict }: StatusReport['vips'][number]): string =>
  `${address} on ${on}: ${present ? 'here' : 'not here'}${conflict === null ? '' : `, also answered by ${conflict}`}\n`

const change = async (command: Command, to: (before: Config['vips']) => Config['vips']): Promise<void> => {
  const { vips } = ownConfig(command, { field: 'vips', words: 'the virtual addresses' })
  await changeField(command, 'vips', to(vips))
}
