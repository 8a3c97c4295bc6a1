import { join } from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import {
  type BondMode,
  bondModes,
  type NetworkType,
  networkTypes,
  type ObservedVswitch,
  setAddresses,
  type Vswitch,
  type VswitchBackend,
  vswitchBackends,
} from '../../shared/hosts/network.ts'
import { loadNetworks, runChange } from '../network/change-process.ts'
import { readNetwork } from '../network/inventory.ts'
import { readRecord } from '../network/record.ts'
import { convergedWhy } from '../network/vswitches.ts'
import { askAgent, defaultConfigPath, type GlobalOptions } from './connection.ts'
import { Exit } from './exit-codes.ts'
import { jsonOption, printAs } from './reading.ts'
import { showNetwork } from './show-host.ts'

/**
 * This host's networks. They are read from the host itself, so that they can be looked at with everything else down; a
 * change runs in a process of its own, which takes it back where it cuts this host off.
 */
const configOf = (command: Command) => loadNetworks(pathOf(command))
const pathOf = (command: Command): string => command.optsWithGlobals<GlobalOptions>().config ?? defaultConfigPath

async function lookAround(command: Command) {
  const { stateDir, vips } = configOf(command)
  return readNetwork({ record: readRecord(join(stateDir, 'network')), vips: vips.map(vip => vip.address) })
}

export function addNetworkVerbs(program: Command): void {
  program
    .command('network')
    .description('the NICs and vSwitches of this host')
    .option(...jsonOption)
    .addHelpText('after', '\nExample:\n  understudy network --json | jq .vswitches\n')
    .action(async (options: { json?: boolean }, command: Command) => {
      printAs(options, await lookAround(command), showNetwork)
    })
  const vswitch = program.command('vswitch').description('make, change or delete a vSwitch of this host')
  vswitch
    .command('set')
    .description('make a vSwitch, or change what is named of one that is there')
    .argument('<name>')
    .option('--backend <backend>', vswitchBackends.join(' or '), oneOf(vswitchBackends))
    .option('--types <types>', `some of ${networkTypes.join(',')}`, listOf(networkTypes))
    .option('--nics <names>', 'such as eth1 or eth1,eth2; "none" for none', names)
    .option('--bond <mode>', `${bondModes.join(', ')}; "none" with one NIC`, oneOf([...bondModes, 'none'] as const))
    .option('--vlan <id>', '1 to 4094; 0 for none', integer)
    .option('--addresses <list>', 'such as 10.0.0.5/24,fd00::5/64; "none" for none', names)
    .option('--gateways <list>', 'default gateways, one for each IP version; "none" for none', names)
    .option('--mtu <bytes>', '576 to 9216', integer)
    .option('--description <text>', 'for people')
    .addHelpText(
      'after',
      '\nA change after which this host does not reach what it reached before is taken back within 30 s (network.confirmSeconds).\n\nExample:\n  understudy vswitch set svc0 --types service --nics eth1 --addresses 10.1.0.5/24\n',
    )
    .action(setVswitch)
  vswitch
    .command('delete')
    .description('delete a vSwitch that nothing needs')
    .argument('<name>')
    .addHelpText('after', '\nExample:\n  understudy vswitch delete svc0\n')
    .action(async (name: string, _options: object, command: Command) => report(command, { remove: name }))
}

interface SetFlags {
  backend?: VswitchBackend
  types?: NetworkType[]
  nics?: string[]
  bond?: BondMode | 'none'
  vlan?: number
  addresses?: string[]
  gateways?: string[]
  mtu?: number
  description?: string
}

async function setVswitch(name: string, flags: SetFlags, command: Command): Promise<void> {
  const now = (await lookAround(command)).vswitches.find(one => one.name === name)
  await report(command, { set: wishOf(name, { now, flags }) })
}

/** What is not named stays as it is; a new one begins with what most have. */
function wishOf(name: string, { now, flags }: { now: ObservedVswitch | undefined; flags: SetFlags }): Vswitch {
  const { bond, vlan, ...rest } = flags
  const named = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined)) as Partial<Vswitch>
  return {
    name,
    backend: now?.backend ?? 'bridge',
    description: now?.description ?? '',
    types: now?.types ?? [],
    nics: now?.nics ?? [],
    addresses: now === undefined ? [] : setAddresses(now),
    gateways: now?.gateways ?? [],
    mtu: now?.mtu ?? 1500,
    ...named,
    bond: bond === undefined ? (now?.bond ?? null) : bond === 'none' ? null : bond,
    vlan: vlan === undefined ? (now?.vlan ?? null) : vlan === 0 ? null : vlan,
  }
}

async function report(command: Command, wish: Parameters<typeof runChange>[1]): Promise<void> {
  if (configOf(command).network.deployment === 'converged') throw new Exit('refused', convergedWhy)
  process.stderr.write('  it is checked, made, and taken back unless what was reached before is reached after it ...\n')
  const outcome = await runChange(pathOf(command), wish)
  await askAgent(command, 'lookAround').catch(() => null)
  if (!outcome.ok) throw new Exit('refused', outcome.why)
  process.stdout.write(`${outcome.why}\n`)
}

const oneOf =
  <T extends string>(words: readonly T[]) =>
  (text: string): T => {
    const found = words.find(word => word === text)
    if (found === undefined) throw new InvalidArgumentError(`use ${words.join(', ')}.`)
    return found
  }

const listOf =
  <T extends string>(words: readonly T[]) =>
  (text: string): T[] =>
    text.split(',').map(oneOf(words))

const names = (text: string): string[] => (text === 'none' ? [] : text.split(',').map(one => one.trim()))

/** A whole number; its range is a rule of the vSwitch, which answers with field and rule. */
function integer(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError('write a whole number.')
  return Number(text)
}
