import { existsSync } from 'node:fs'
import type { Command } from 'commander'
import { exec } from '../exec.ts'
import { type HostFile, loadHost } from '../host-file.ts'
import { theirInitiatorName } from '../inventory/compared.ts'
import { convergedWhy } from '../network/vswitches.ts'
import { discover } from '../storage/discovery.ts'
import { readInitiatorName } from '../storage/initiator-name.ts'
import { storageInventory } from '../storage/inventory.ts'
import { runNameChange } from '../storage/name-change.ts'
import { chooseAdapters, Scanner } from '../storage/scan.ts'
import { storageFolderOf } from '../storage/storage-folder.ts'
import { Sysfs } from '../storage/sysfs.ts'
import { askAgent, defaultConfigPath, type GlobalOptions } from './connection.ts'
import { Exit } from './exit-codes.ts'
import { jsonOption, print, printAs, seconds } from './reading.ts'
import { showScan, showStorage, showTargets } from './show-host.ts'

/** This host's storage. Read from the host itself; a driver that hangs holds up this command and nothing else. */
/** A path that is dead makes its adapter wait for a minute by the kernel's defaults; two of them are enough. */
const scanLimitS = 120

export function addStorageVerbs(program: Command): void {
  const storage = program.command('storage').description('the storage adapters of this host and what they lead to')
  storage
    .command('list', { isDefault: true })
    .description('adapters, devices, paths, and who uses them')
    .option(...jsonOption)
    .addHelpText('after', '\nExample:\n  understudy storage list --json | jq -r .devices[].wwid\n')
    .action(async (options: { json?: boolean }) => {
      printAs(options, await storageInventory(new Sysfs()), showStorage)
    })
  storage
    .command('scan')
    .description('look for devices again')
    .argument('[adapters...]', 'all of them unless named')
    .option('--lip', 'Fibre Channel: reset the link of the named adapters first; this interrupts their traffic')
    .option('--limit <seconds>', 'for each adapter', seconds, scanLimitS)
    .option(...jsonOption)
    .addHelpText('after', '\nExample:\n  understudy storage scan host3\n')
    .action(scan)
  storage
    .command('discover')
    .description('the targets that an iSCSI portal offers')
    .argument('<portal>', 'an address, with a port unless it is 3260')
    .option(...jsonOption)
    .addHelpText('after', '\nExample:\n  understudy storage discover 10.0.0.9\n')
    .action(async (portal: string, options: { json?: boolean }, command: Command) => {
      // open-iscsi remembers what it finds, so it is a change as well.
      refuseReadOnly(command)
      const found = await discover(portal)
      if (!found.ok) throw new Exit(found.refused ? 'usage' : 'failed', found.why)
      printAs(options, found.targets, showTargets)
    })
  storage
    .command('iqn')
    .description("this host's iSCSI name, or change it")
    .argument('[name]', 'the new one')
    .option('--log-out', 'log sessions out for it, and in again')
    .addHelpText('after', '\nExample:\n  understudy storage iqn iqn.2026-01.example.host:a\n')
    .action(iqn)
}

async function scan(
  wanted: string[],
  options: { lip?: boolean; limit: number; json?: boolean },
  command: Command,
): Promise<void> {
  refuseReadOnly(command)
  const sysfs = new Sysfs()
  const inventory = await storageInventory(sysfs)
  const lip = options.lip === true
  const chosen = chooseAdapters(inventory.adapters, { names: wanted, lip })
  if (!chosen.ok) throw new Exit('usage', chosen.why)
  const scanner = new Scanner({ sysfs, devices: async () => (await storageInventory(sysfs)).devices })
  const result = await scanner.scan(chosen.adapters, { limitMs: options.limit * 1000, lip })
  printAs(options, result, showScan)
  // Symbolic names of new devices are made by udev, after the kernel has told them.
  await exec(['udevadm', 'settle', '--timeout=10'], { limitMs: 12_000 })
  await askAgent(command, 'lookAround').catch(() => null)
  if (result.adapters.some(one => !one.ok)) throw new Exit('failed')
}

/** A host without a configuration is in no pair and no deployment. */
function refuseReadOnly(command: Command): void {
  const host = hostOf(command)
  if (host === null) return
  const { base, config } = host
  if ((config ?? base).network.deployment === 'converged') throw new Exit('refused', convergedWhy)
}

function hostOf(command: Command): HostFile | null {
  const path = command.optsWithGlobals<GlobalOptions>().config ?? defaultConfigPath
  return existsSync(path) ? loadHost(path) : null
}

async function iqn(name: string | undefined, options: { logOut?: boolean }, command: Command): Promise<void> {
  if (name === undefined) {
    const now = readInitiatorName()
    if (now === null) throw new Exit('failed', 'this host has no iSCSI name: install open-iscsi first')
    print(`${now}\n`)
    return
  }
  refuseReadOnly(command)
  // Without an agent the other host's name is not known; the control plane knows all of the organisation.
  const theirs = theirInitiatorName(await askAgent(command, 'hosts').catch(() => null))
  const change = { name, logOutSessions: options.logOut === true, theirs }
  const base = hostOf(command)?.base
  const place = { folder: storageFolderOf(base?.stateDir ?? null), socket: base?.socket ?? null }
  const result = await runNameChange(place, change)
  await askAgent(command, 'lookAround').catch(() => null)
  if (!result.ok) throw new Exit(result.begun ? 'failed' : 'refused', result.why)
  print(`${result.from ?? 'no name'} → ${result.to}: ${result.why}\n`)
}
