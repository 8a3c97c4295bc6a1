import { readFileSync, statSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import type { Command } from 'commander'
import { newVipFaults } from '../../shared/hosts/summary.ts'
import { readApplied } from '../applied-wish.ts'
import { type Config, parseConfig } from '../config.ts'
import { loadConfig } from '../host-file.ts'
import { comparedSchema } from '../inventory/compared.ts'
import type { StatusReport } from '../report/status-report.ts'
import { openFolderWriter } from '../state-file/atomic-write.ts'
import { askAgent, defaultConfigPath, type GlobalOptions } from './connection.ts'
import { Exit } from './exit-codes.ts'
import { jsonOption, printAs } from './reading.ts'

/**
 * The virtual addresses of the pair, and a changed configuration taken while the pair serves. Everything is checked before
 * the file is written or the agent told; then the agent begins anew in its own process, adopts what runs (ADR 0004), and
 * is looked at until it is what the configuration says. Each host has its own file: the backup first, then the primary.
 */
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

const pathOf = (command: Command): string => command.optsWithGlobals<GlobalOptions>().config ?? defaultConfigPath

const showVip = ({ address, interface: on, present, conflict }: StatusReport['vips'][number]): string =>
  `${address} on ${on}: ${present ? 'here' : 'not here'}${conflict === null ? '' : `, also answered by ${conflict}`}\n`

async function change(command: Command, to: (before: Config['vips']) => Config['vips']): Promise<void> {
  const path = pathOf(command)
  const before = loadConfig(path)
  if (readApplied(before.stateDir)?.fields.vips !== undefined)
    throw new Exit(
      'refused',
      'the virtual addresses of this pair come from its control plane: change them there, and both hosts take them',
    )
  const text = readFileSync(path, 'utf8')
  const written = JSON.stringify({ ...(JSON.parse(text) as object), vips: to(before.vips) }, null, 2)
  const next = parseConfig(written, path)
  await refuseUnfit(command, next)
  await replaceFile(path, `${written}\n`)
  await beginAnew(command, next)
}

/** Whoever could read it can read it again. */
async function replaceFile(path: string, text: string): Promise<void> {
  const folder = await openFolderWriter(dirname(path))
  try {
    await folder.write(basename(path), Buffer.from(text), statSync(path).mode & 0o777)
  } finally {
    await folder.close()
  }
}

/** What the running agent could not take, or this host or the other one has no place for. @throws Exit or ConfigError */
async function refuseUnfit(command: Command, next: Config): Promise<void> {
  // Loaded here only: the other verbs start in a fraction of the time.
  const { whyNotLive } = await import('../control/wished-config.ts')
  const { preflight } = await import('../preflight.ts')
  const running = (await askAgent(command, 'configuration')) as Config
  const why = whyNotLive(running, next)
  if (why !== null) throw new Exit('refused', why)
  await preflight(next)
  const compared = comparedSchema.parse(await askAgent(command, 'hosts'))
  const { node, own, theirs } = compared
  if (own === null || theirs === null) return
  const both = node === 'a' ? { a: own, b: theirs } : { a: theirs, b: own }
  for (const [index, vip] of next.vips.entries()) {
    if (running.vips.some(one => one.address === vip.address && one.interface === vip.interface)) continue
    const [fault] = newVipFaults(vip, both)
    if (fault !== undefined) throw new Exit('config', `vips[${index}].${fault}; nothing was changed`)
  }
}

async function beginAnew(command: Command, next: Config): Promise<void> {
  const before = (await askAgent(command, 'status')) as StatusReport
  const running = await askAgent(command, 'configuration')
  if (JSON.stringify(running) === JSON.stringify(next)) {
    process.stdout.write('the agent runs with this configuration already; nothing was changed\n')
    return
  }
  await askAgent(command, 'restart', { args: { why: 'a changed configuration of this host' } })
  const now = await untilWell(command, { before, next })
  if (now === null)
    throw new Exit(
      'unknownOutcome',
      `the agent was told to begin anew with the changed configuration, and was not well with it within ${wellLimitMs / 1000} s: look at \`understudy status\``,
    )
  process.stdout.write(`${done(now)}\n`)
}

/** A start, the adoption of what runs, and a busy machine. */
const wellLimitMs = 30_000
const lookMs = 200

/** The agent that began after this one, serving if this one did, with the addresses that it should have then. */
async function untilWell(
  command: Command,
  { before, next }: { before: StatusReport; next: Config },
): Promise<StatusReport | null> {
  for (const end = performance.now() + wellLimitMs; performance.now() < end; ) {
    await new Promise(resolve => setTimeout(resolve, lookMs))
    const now = (await askAgent(command, 'status').catch(() => null)) as StatusReport | null
    if (now === null || now.agent.startedAt === before.agent.startedAt) continue
    const known = now.vips.length === next.vips.length
    const held = now.vips.every(vip => vip.present === now.serving || vip.conflict !== null)
    if (known && held && (now.serving || !before.serving)) return now
  }
  return null
}

function done({ role, serving, vips, peer }: StatusReport): string {
  const list = vips.map(vip => vip.address).join(', ') || 'none'
  const here = serving ? 'they are here' : 'they come with the service'
  return `this host (${role}) runs with the changed configuration; virtual addresses: ${list}; ${here}. Do the same on ${peer.node}, unless it is done there`
}
