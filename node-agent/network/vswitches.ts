import { mkdirSync } from 'node:fs'
import { showFault } from '../../shared/hosts/fault.ts'
import {
  type HostNetwork,
  type NetworkManager,
  type ObservedVswitch,
  setAddresses,
  type Vswitch,
} from '../../shared/hosts/network.ts'
import { deleteRefusal, type HostContext, vswitchFaults } from '../../shared/hosts/vswitch-rules.ts'
import type { ExecResult } from '../exec.ts'
import { addressBytes, addressText } from '../kernel/address.ts'
import { lockFolder } from '../state-file/lock.ts'
import { applyChange, type ChangeParts, type Failure, isUnfinished, removeJournal, undoUnfinished } from './change.ts'
import { readFoundSettings } from './found-settings.ts'
import { type Ask, datapathOf, readNetwork, readRoutes } from './inventory.ts'
import { findManager, foreignBootFile, foreignNicFile } from './managers.ts'
import { planChange } from './plan.ts'
import { readRecord, writeRecord } from './record.ts'
import { routesRefusal, routesTold } from './routes.ts'
import { writeBootFiles } from './write-boot-files.ts'

/** Making, changing and deleting vSwitches on this host: check, do, confirm, remember. One change at a time. */
export interface VswitchParts {
  /** The agent's folder for this: record, journal, lock. */
  folder: string
  boot: string
  /** Where /etc is. */
  root: string
  ask: Ask
  reach: ChangeParts['reach']
  sleep: (ms: number) => Promise<void>
  begun: () => void
  confirmMs: number
  ovsDatapath: 'system' | 'netdev'
  /** What of the pair a change is held against. */
  pair: { peerAddresses: readonly string[]; vips: HostContext['vips']; pathAddresses: readonly string[] }
}

/** Of every verb that would change networks or storage of such a host. */
export const convergedWhy =
  'this is a converged deployment: the hosts are members of a service cluster, which manages their networks and storage. Change it there, or set "network.deployment" to "distributed" if the host has left it.'

export type Wish = { set: Vswitch } | { remove: string }
/** Of a change whose process ended before its end. */
export type Undo = { undo: 'unfinished' }
export type Outcome = { ok: true; why: string } | { ok: false; why: string }

const stepLimitMs = 20_000

export async function changeVswitch(parts: VswitchParts, wish: Wish | Undo): Promise<Outcome> {
  mkdirSync(parts.folder, { recursive: true, mode: 0o700 })
  const locked = lockFolder(parts.folder)
  if (!locked.ok) return { ok: false, why: `another change of the network is under way: ${locked.why}` }
  try {
    const undone = await takeBackUnfinished(parts)
    if ('undo' in wish) return { ok: true, why: undone ?? 'no change was under way' }
    const outcome = await change(parts, wish)
    return undone === null ? outcome : { ...outcome, why: `${undone}; ${outcome.why}` }
  } catch (error) {
    // What can't be read, ours or the kernel's. Whatever was begun is taken back here: nobody else knows that it ended.
    const why = messageOf(error)
    const undone = await takeBackUnfinished(parts).catch(messageOf)
    return { ok: false, why: undone === null || undone === why ? why : `${why}; ${undone}` }
  } finally {
    locked.lock.release()
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

async function change(parts: VswitchParts, wish: Wish): Promise<Outcome> {
  const record = readRecord(parts.folder)
  const host = await look(parts, record)
  const name = 'set' in wish ? wish.set.name : wish.remove
  const refusal = unknownRefusal(wish, host) ?? refuse(wish, contextOf(parts, host))
  if (refusal !== null) return { ok: false, why: `${refusal}; nothing was changed` }
  const from = host.vswitches.find(one => one.name === name) ?? null
  const to = 'set' in wish ? asShown(wish.set) : null
  const found = await readFoundSettings(parts.ask, { from, to, nics: host.nics })
  const [routes, ovsDatapath] = [await readRoutes(parts.ask), await datapath(parts, from)]
  const planned = { from, to, host, routes, ovsDatapath, bridgeWords: found.words }
  const unrepeatable = found.refusal ?? routesRefusal(planned)
  if (unrepeatable !== null) return { ok: false, why: `${unrepeatable}; nothing was changed` }
  const steps = planChange(planned)
  const foreign = foreignBootFile(parts.root, name)
  if (foreign !== null && steps.length > 0) return { ok: false, why: foreignRefusal(name, foreign) }
  for (const nic of to?.nics ?? []) {
    const file = from?.nics.includes(nic) === true ? null : foreignNicFile(parts.root, { nic, manager: host.manager })
    if (file !== null) return { ok: false, why: foreignNicRefusal(name, { nic, file }) }
  }
  const what = whatIsDone(name, { from, to, changes: steps.length > 0 })
  const kept = [...record.filter(one => one.name !== name), ...(to === null ? [] : [to])]
  const remember = (which: 'before' | 'after'): Promise<void> =>
    writeDown(parts, { manager: host.manager, record: which === 'before' ? record : kept })
  const result = await applyChange(changeParts(parts), { why: what, steps, record, remember })
  return result.ok ? { ok: true, why: `${what}; ${result.why}${routesTold(planned)}` } : { ok: false, why: result.why }
}

/** As configured for a new one, but for its way back that of one which is there. */
const datapath = async ({ ask, ovsDatapath }: VswitchParts, from: ObservedVswitch | null): Promise<string> =>
  from?.backend === 'ovs' ? (await datapathOf(ask, from.name)) || 'system' : ovsDatapath

/** Its addresses as the kernel shows them, since what is there is compared as text. */
function asShown(vswitch: Vswitch): Vswitch {
  const shown = (text: string): string => {
    const [address = '', length] = text.split('/')
    return [addressText(addressBytes(address)), ...(length === undefined ? [] : [Number(length)])].join('/')
  }
  return { ...vswitch, addresses: vswitch.addresses.map(shown), gateways: vswitch.gateways.map(shown) }
}

/** For the next boot, and then in our own record: what that says is whole, whenever the power fails. */
async function writeDown(
  { folder, root }: Pick<VswitchParts, 'folder' | 'root'>,
  { manager, record }: { manager: NetworkManager; record: readonly Vswitch[] },
): Promise<void> {
  const ours = record.filter(one => foreignBootFile(root, one.name) === null)
  await writeBootFiles({ root, manager }, ours)
  await writeRecord(folder, record)
}

/** @returns what was done, or null where no change was under way */
async function takeBackUnfinished(parts: VswitchParts): Promise<string | null> {
  const undone = await undoUnfinished(changeParts(parts), readRecord(parts.folder))
  if (undone === null) return null
  await writeDown(parts, { manager: findManager(parts.root), record: undone.record })
  removeJournal(parts)
  return undone.why
}

/** What somebody else's files bring up at boot would be as before after the next one. */
const foreignRefusal = (name: string, file: string): string =>
  `${name} is brought up at boot by ${file}, which is not ours: change it there. Its types and its description can be given here; nothing was changed`

const foreignNicRefusal = (name: string, { nic, file }: { nic: string; file: string }): string =>
  `${nic} is set up at boot by ${file}, which is not ours: after the next boot it would be as it says there and not a part of ${name}. Take ${nic} out of it (nothing changes before a boot), then make ${name}; nothing was changed`

function whatIsDone(
  name: string,
  { from, to, changes }: { from: ObservedVswitch | null; to: Vswitch | null; changes: boolean },
): string {
  if (to === null) return `vSwitch ${name} is deleted`
  if (from === null) return `vSwitch ${name} is made`
  return from.owned || changes ? `vSwitch ${name} is changed` : `vSwitch ${name}, which was found, is adopted as it is`
}

const look = ({ root, ask, pair }: VswitchParts, record: readonly Vswitch[]): Promise<HostNetwork> =>
  readNetwork({ record, root, ask, vips: pair.vips.map(vip => vip.address) })

function refuse(wish: Wish, context: HostContext): string | null {
  if ('remove' in wish) return deleteRefusal(wish.remove, context)
  const faults = vswitchFaults(wish.set, context)
  return faults.length === 0 ? null : faults.map(showFault).join('; ')
}

/** What is not seen would be taken for missing, and made, and taken away again where the change fails. */
function unknownRefusal(wish: Wish, { unknown }: HostNetwork): string | null {
  return 'set' in wish && wish.set.backend === 'ovs' && unknown.length > 0 ? unknown.join('; ') : null
}

function contextOf(parts: VswitchParts, host: HostNetwork): HostContext {
  const carries = (addresses: readonly string[]): boolean =>
    addresses.some(address => parts.pair.pathAddresses.includes(address.split('/')[0] ?? ''))
  return {
    nics: host.nics,
    vswitches: host.vswitches,
    routes: host.routes,
    peerAddresses: parts.pair.peerAddresses,
    vips: parts.pair.vips,
    peerPathDevices: [...host.nics, ...host.vswitches].filter(one => carries(one.addresses)).map(one => one.name),
  }
}

/**
 * At the agent's start: a change that was under way is taken back, and what a boot has lost is made again. Nothing is
 * confirmed here: it is what was confirmed when it was made. What fails is said, and the pair starts all the same.
 */
export async function restoreVswitches(parts: VswitchParts): Promise<string[]> {
  const said: string[] = []
  try {
    // Most hosts have none of ours, and an agent's start is in a hurry.
    if (readRecord(parts.folder).length > 0 || isUnfinished(parts.folder)) await restoreAll(parts, said)
  } catch (error) {
    said.push(`the vSwitches were left as they are: ${messageOf(error)}`)
  }
  return said
}

async function restoreAll(parts: VswitchParts, said: string[]): Promise<void> {
  const locked = lockFolder(parts.folder)
  if (!locked.ok) throw new Error(locked.why)
  try {
    const undone = await takeBackUnfinished(parts)
    if (undone !== null) said.push(undone)
    const record = readRecord(parts.folder)
    for (const to of record) {
      const host = await look(parts, record)
      const why = await restore(parts, { to: asShown(to), host })
      if (why !== null) said.push(why)
    }
  } finally {
    locked.lock.release()
  }
}

/** One that is missing is made again; one that is there gets back what it lacks: Open vSwitch remembers no addresses. */
async function restore(parts: VswitchParts, { to, host }: { to: Vswitch; host: HostNetwork }): Promise<string | null> {
  const from = host.vswitches.find(one => one.name === to.name) ?? null
  const lost = from === null ? [] : [...to.addresses, ...to.gateways].filter(one => !hasThere(from, one))
  if (from !== null && (lost.length === 0 || foreignBootFile(parts.root, to.name) !== null)) return null
  const wanted = from === null ? to : { ...from, ...withLost(from, lost) }
  const routes = await readRoutes(parts.ask)
  for (const step of planChange({ from, to: wanted, host, routes, ovsDatapath: parts.ovsDatapath })) {
    if (step.argv === null) continue
    const result = await parts.ask(step.argv, stepLimitMs)
    if (!result.ok) return `the vSwitch ${to.name} could not be made whole again: ${result.why}`
  }
  return from === null
    ? `the vSwitch ${to.name} was missing and is made again`
    : `the vSwitch ${to.name} had lost ${lost.join(', ')}, which ${lost.length === 1 ? 'is' : 'are'} put back`
}

/** What somebody else has put there stays. */
const withLost = (from: ObservedVswitch, lost: readonly string[]): Pick<Vswitch, 'addresses' | 'gateways'> => ({
  addresses: [...setAddresses(from), ...lost.filter(one => one.includes('/'))],
  gateways: [...from.gateways, ...lost.filter(one => !one.includes('/'))],
})

const hasThere = ({ addresses, gateways }: ObservedVswitch, one: string): boolean =>
  addresses.includes(one) || gateways.includes(one)

const changeParts = (parts: VswitchParts): ChangeParts => ({
  folder: parts.folder,
  boot: parts.boot,
  run: async argv => failureOf(await parts.ask(argv, stepLimitMs)),
  reach: parts.reach,
  sleep: parts.sleep,
  begun: parts.begun,
  confirmMs: parts.confirmMs,
})

const failureOf = (result: ExecResult): Failure | null =>
  result.ok ? null : { why: result.why, mayBeDone: result.killed }
