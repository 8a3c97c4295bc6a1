import type { Command, Verb } from '../../shared/contract/documents.ts'
import { ackBytesMax, verbs } from '../../shared/contract/documents.ts'
import { readNetwork } from '../network/inventory.ts'
import { readRecord } from '../network/record.ts'
import { changeInitiatorName, iscsiHost } from '../storage/initiator-name.ts'
import { storageInventory } from '../storage/inventory.ts'
import { Scanner } from '../storage/scan.ts'
import { Sysfs } from '../storage/sysfs.ts'
import type { RunOutcome } from './session.ts'

/**
 * What a portal asks of the host itself, not of its pair: done in this process, by the same parts as the command line uses,
 * so that a driver that hangs holds up the link and never the core. A virtual switch is changed at the host: the change
 * could cut the link that carries the answer, and its own confirmation needs somebody there.
 */
export interface HostVerbs {
  /** Of the network's own record of virtual switches. */
  networkFolder: string
}

/** null: this is no verb of the host alone. Never throws. */
export async function runHostVerb(
  { verb, args }: Pick<Command, 'verb' | 'args'>,
  at: HostVerbs,
): Promise<RunOutcome | null> {
  const work = hostVerbs[verb]
  if (work === undefined) return null
  try {
    return bounded(await work(args, at))
  } catch (error) {
    return { phase: 'failed', message: error instanceof Error ? error.message : String(error) }
  }
}

const hostVerbs: Partial<Record<Verb, (args: Record<string, unknown>, at: HostVerbs) => Promise<RunOutcome>>> = {
  inventory: async (_args, { networkFolder }) => {
    const [network, storage] = await Promise.all([
      readNetwork({ record: readRecord(networkFolder) }),
      storageInventory(new Sysfs()),
    ])
    return { phase: 'done', message: 'read', result: { network: { ...network }, storage: { ...storage } } }
  },
  storageScan: async args => {
    const { adapters, limitSeconds } = verbs.storageScan.parse(args)
    const sysfs = new Sysfs()
    const there = (await storageInventory(sysfs)).adapters
    const missing = adapters.find(name => !there.some(one => one.name === name))
    if (missing !== undefined) return { phase: 'refused', message: `this host has no storage adapter ${missing}` }
    const chosen = adapters.length === 0 ? there : there.filter(one => adapters.includes(one.name))
    const scanner = new Scanner({ sysfs, devices: async () => (await storageInventory(sysfs)).devices })
    const result = await scanner.scan(chosen, { limitMs: limitSeconds * 1000, lip: false })
    const failed = result.adapters.filter(one => !one.ok).map(one => one.adapter)
    const message = failed.length === 0 ? `${chosen.length} adapters looked again` : `failed: ${failed.join(', ')}`
    return { phase: failed.length === 0 ? 'done' : 'failed', message, result: { ...result } }
  },
  initiatorName: async args => {
    const { name, logOutSessions } = verbs.initiatorName.parse(args)
    const changed = await changeInitiatorName(iscsiHost(new Sysfs()), { name, logOutSessions })
    return { phase: changed.ok ? 'done' : 'refused', message: changed.why }
  },
}

/** For the signature around it. */
const signedShare = 0.7

function bounded(outcome: RunOutcome): RunOutcome {
  const size = JSON.stringify(outcome.result ?? {}).length
  // Base64 makes four letters of three bytes.
  if (size <= ackBytesMax * signedShare) return outcome
  return { phase: 'failed', message: `the answer has ${size} bytes, more than travels: use the command line there` }
}
