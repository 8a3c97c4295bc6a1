import { mkdirSync } from 'node:fs'
import { showFault } from '../../shared/hosts/fault.ts'
import type { HostNetwork, NetworkManager, ObservedVswitch, Vswitch } from '../../shared/hosts/network.ts'
import { deleteRefusal, type HostContext, vswitchFaults } from '../../shared/hosts/vswitch-rules.ts'
import type { ExecResult } from '../exec.ts'
import { lockFolder } from '../state-file/lock.ts'
import { applyChange, type ChangeParts, isUnfinished, removeJournal, undoUnfinished } from './change.ts'
import { type Ask, readNetwork, readRoutes } from './inventory.ts'
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
  } finally {
    locked.lock.release()
  }
}

async function change(parts: VswitchParts, wish: Wish): Promise<Outcome> {
  const record = readRecord(parts.folder)
  const host = await look(parts, record)
  const name = 'set' in wish ? wish.set.name : wish.remove
  const refusal = refuse(wish, contextOf(parts, host))
  if (refusal !== null) return { ok: false, why: `${refusal}; nothing was changed` }
  const from = host.vswitches.find(one => one.name === name) ?? null
  const to = 'set' in wish ? wish.set : null
  const planned = { from, to, host, routes: await readRoutes(parts.ask), ovsDatapath: parts.ovsDatapath }
  const unrepeatable = routesRefusal(planned)
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

/** In our own record, and for the next boot. */
async function writeDown(
  { folder, root }: Pick<VswitchParts, 'folder' | 'root'>,
  { manager, record }: { manager: NetworkManager; record: readonly Vswitch[] },
): Promise<void> {
  await writeRecord(folder, record)
  const ours = record.filter(one => foreignBootFile(root, one.name) === null)
  await writeBootFiles({ root, manager }, ours)
}

/** @returns what was done, or null where no change was under way */
async function takeBackUnfinished(parts: VswitchParts): Promise<string | null> {
  const undone = await undoUnfinished(changeParts(parts))
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
 * confirmed here: it is what was confirmed when it was made.
 */
export async function restoreVswitches(parts: VswitchParts): Promise<string[]> {
  // Most hosts have none of ours, and an agent's start is in a hurry.
  if (readRecord(parts.folder).length === 0 && !isUnfinished(parts.folder)) return []
  mkdirSync(parts.folder, { recursive: true, mode: 0o700 })
  const locked = lockFolder(parts.folder)
  if (!locked.ok) return [`the vSwitches were left as they are: ${locked.why}`]
  try {
    const said: string[] = []
    const undone = await takeBackUnfinished(parts)
    if (undone !== null) said.push(undone)
    const record = readRecord(parts.folder)
    for (const to of record) {
      const host = await look(parts, record)
      const why = await restore(parts, { to, host })
      if (why !== null) said.push(why)
    }
    return said
  } finally {
    locked.lock.release()
  }
}

/** One that is missing is made again; one that is there gets back what it lacks: Open vSwitch remembers no addresses. */
async function restore(parts: VswitchParts, { to, host }: { to: Vswitch; host: HostNetwork }): Promise<string | null> {
  const from = host.vswitches.find(one => one.name === to.name) ?? null
  const lost = from === null ? [] : [...to.addresses, ...to.gateways].filter(one => !hasThere(from, one))
  if (from !== null && (lost.length === 0 || foreignBootFile(parts.root, to.name) !== null)) return null
  const wanted = from === null ? to : { ...from, addresses: to.addresses, gateways: to.gateways }
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

const hasThere = ({ addresses, gateways }: ObservedVswitch, one: string): boolean =>
  addresses.includes(one) || gateways.includes(one)

const changeParts = (parts: VswitchParts): ChangeParts => ({
  folder: parts.folder,
  boot: parts.boot,
  run: async argv => whyOf(await parts.ask(argv, stepLimitMs)),
  reach: parts.reach,
  sleep: parts.sleep,
  begun: parts.begun,
  confirmMs: parts.confirmMs,
})

const whyOf = (result: ExecResult): string | null => (result.ok ? null : result.why)
