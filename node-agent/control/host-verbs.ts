import type { Command, Verb } from '../../shared/contract/documents.ts'
import { ackBytesMax, verbs } from '../../shared/contract/documents.ts'
import type { StorageInventory } from '../../shared/hosts/storage.ts'
import { loadHost } from '../host-file.ts'
import type { HostInventory } from '../inventory/read-host.ts'
import { runChange } from '../network/change-process.ts'
import { vswitchSchema } from '../network/record.ts'
import { convergedWhy, type Wish } from '../network/vswitches.ts'
import { discover } from '../storage/discovery.ts'
import { runNameChange } from '../storage/name-change.ts'
import { chooseAdapters, type Scanner } from '../storage/scan.ts'
import { storageFolderOf } from '../storage/storage-folder.ts'
import type { Sysfs } from '../storage/sysfs.ts'
import type { RunOutcome } from './session.ts'

/**
 * What a portal asks of the host itself, not of its pair: done beside the core, by the same parts as the command line uses.
 * What may hang with a driver is a child with a time limit, and holds up neither the core nor this link. A virtual switch is
 * changed by a process that outlives this one: a change that cuts the host from its peer, its witness or the control plane
 * is taken back there, and the answer, which then gets through, says why.
 */
export interface HostVerbs {
  configPath: string
  sysfs: Sysfs
  /** Looks that may hang with a driver, and fail in time with a sentence. */
  host: () => Promise<HostInventory>
  storage: () => Promise<StorageInventory>
  /** One for all commands: it knows which adapter hangs with an earlier one. */
  scanner: Scanner
  /** The whole inventory to the control plane; why it did not get there, or null. */
  tell: () => Promise<string | null>
  /** Of the other host; null: not known. */
  theirInitiatorName: () => Promise<string | null>
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
  inventory: async (_args, { host, tell }) => {
    const { network, storage } = await host()
    const outcome: RunOutcome = {
      phase: 'done',
      message: 'read',
      result: { network: { ...network }, storage: { ...storage } },
    }
    if (fits(outcome)) return outcome
    // A large host's does not travel as an answer; it is told as each change of it is.
    const why = await tell()
    return why === null ? { phase: 'done', message: 'read and told apart' } : { phase: 'failed', message: why }
  },
  vswitch: async (args, { configPath }) => {
    const { put, remove } = verbs.vswitch.parse(args)
    const refused = whyReadOnly(configPath)
    if (refused !== null) return { phase: 'refused', message: refused }
    const wish = wishOf(put, remove)
    if (wish === null)
      return {
        phase: 'refused',
        message: 'the command names not one virtual switch, or one of a form that this version does not know',
      }
    const changed = await runChange(configPath, wish)
    return { phase: changed.ok ? 'done' : 'failed', message: changed.why }
  },
  storageScan: async (args, { configPath, storage, scanner }) => {
    const { adapters, lip, limitSeconds } = verbs.storageScan.parse(args)
    const refused = whyReadOnly(configPath)
    if (refused !== null) return { phase: 'refused', message: refused }
    const chosen = chooseAdapters((await storage()).adapters, { names: adapters, lip })
    if (!chosen.ok) return { phase: 'refused', message: chosen.why }
    const result = await scanner.scan(chosen.adapters, { limitMs: limitSeconds * 1000, lip })
    const failed = result.adapters.flatMap(one => (one.ok ? [] : [`${one.adapter}: ${one.why}`]))
    const count = result.adapters.length
    const message = failed.length === 0 ? `${count} adapter${count === 1 ? '' : 's'} looked again` : failed.join('; ')
    return {
      phase: failed.length === 0 ? 'done' : 'failed',
      message: message.slice(0, messageMax),
      result: { ...result },
    }
  },
  storageDiscovery: async (args, { configPath }) => {
    const { portal } = verbs.storageDiscovery.parse(args)
    // It is remembered by open-iscsi, so it is a change as well.
    const refused = whyReadOnly(configPath)
    if (refused !== null) return { phase: 'refused', message: refused }
    const found = await discover(portal)
    if (!found.ok) return { phase: found.refused ? 'refused' : 'failed', message: found.why }
    const count = found.targets.length
    const message = `${portal} offers ${count} target${count === 1 ? '' : 's'}`
    return { phase: 'done', message, result: { targets: found.targets } }
  },
  initiatorName: async (args, { configPath, sysfs, theirInitiatorName }) => {
    const { name, logOutSessions } = verbs.initiatorName.parse(args)
    const refused = whyReadOnly(configPath)
    if (refused !== null) return { phase: 'refused', message: refused }
    const theirs = await theirInitiatorName()
    const { stateDir, socket } = loadHost(configPath).base
    const place = { folder: storageFolderOf(stateDir), socket, root: sysfs.root }
    const changed = await runNameChange(place, { name, logOutSessions, theirs })
    if (changed.ok) return { phase: 'done', message: changed.why }
    return { phase: changed.begun ? 'failed' : 'refused', message: changed.why.slice(0, messageMax) }
  },
}

function wishOf(put: Record<string, unknown> | null, remove: string | null): Wish | null {
  if (remove !== null) return put === null ? { remove } : null
  const parsed = vswitchSchema.safeParse(put)
  return parsed.success ? { set: parsed.data } : null
}

/** What the host's own configuration says, whatever the control plane thinks. */
function whyReadOnly(configPath: string): string | null {
  const { base, config } = loadHost(configPath)
  return (config ?? base).network.deployment === 'converged' ? convergedWhy : null
}

/** An answer's sentence has 500 characters at most. */
const messageMax = 400

/** For the signature around it; Base64 makes four letters of three bytes. */
const signedShare = 0.7
const sizeOf = (outcome: RunOutcome): number => Buffer.byteLength(JSON.stringify(outcome.result ?? {}))
const fits = (outcome: RunOutcome): boolean => sizeOf(outcome) <= ackBytesMax * signedShare

function bounded(outcome: RunOutcome): RunOutcome {
  if (fits(outcome)) return outcome
  return {
    phase: 'failed',
    message: `the answer has ${sizeOf(outcome)} bytes, more than travels: use the command line there`,
  }
}
