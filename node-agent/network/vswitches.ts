import { mkdirSync } from 'node:fs'
import type { HostNetwork, ObservedVswitch, Vswitch } from '../../shared/hosts/network.ts'
import { deleteRefusal, type HostContext, showFault, vswitchFaults } from '../../shared/hosts/vswitch-rules.ts'
import type { ExecResult } from '../exec.ts'
import { lockFolder } from '../state-file/lock.ts'
import { applyChange, type ChangeParts, isUnfinished, undoUnfinished } from './change.ts'
import { type Ask, readNetwork } from './inventory.ts'
import { foreignBootFile } from './managers.ts'
import { planChange } from './plan.ts'
import { readRecord, writeRecord } from './record.ts'
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
  ovsDatapath: 'system' | 'netdev'
  /** What of the pair a change is held against. */
  pair: { peerAddresses: readonly string[]; vips: HostContext['vips']; pathAddresses: readonly string[] }
}

/** Of every verb that would change networks or storage of such a host. */
export const convergedWhy =
  'this is a converged deployment: the hosts are members of a service cluster, which manages their networks and storage. Change it there, or set "network.deployment" to "distributed" if the host has left it.'

export type Wish = { set: Vswitch } | { remove: string }
export type Outcome = { ok: true; why: string } | { ok: false; why: string }

const stepLimitMs = 20_000

export async function changeVswitch(parts: VswitchParts, wish: Wish): Promise<Outcome> {
  mkdirSync(parts.folder, { recursive: true, mode: 0o700 })
  const locked = lockFolder(parts.folder)
  if (!locked.ok) return { ok: false, why: `another change of the network is under way: ${locked.why}` }
  try {
    const undone = await undoUnfinished(changeParts(parts))
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
  const steps = planChange({ from, to, host, ovsDatapath: parts.ovsDatapath })
  const foreign = foreignBootFile(parts.root, name)
  if (foreign !== null && steps.length > 0) return { ok: false, why: foreignRefusal(name, foreign) }
  const what = whatIsDone(name, { from, to, changes: steps.length > 0 })
  const result = await applyChange(changeParts(parts), { why: what, steps })
  if (!result.ok) return result
  const kept = [...record.filter(one => one.name !== name), ...(to === null ? [] : [to])]
  await writeRecord(parts.folder, kept)
  const ours = kept.filter(one => foreignBootFile(parts.root, one.name) === null)
  await writeBootFiles({ root: parts.root, manager: host.manager }, ours)
  return { ok: true, why: `${what}; everything that was reached before is reached` }
}

/** What somebody else's files bring up at boot would be as before after the next one. */
const foreignRefusal = (name: string, file: string): string =>
  `${name} is brought up at boot by ${file}, which is not ours: change it there. Its types and its description can be given here; nothing was changed`

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
    const undone = await undoUnfinished(changeParts(parts))
    if (undone !== null) said.push(undone)
    const record = readRecord(parts.folder)
    for (const to of record) {
      const host = await look(parts, record)
      if (host.vswitches.some(one => one.name === to.name)) continue
      said.push(await restore(parts, { to, host }))
    }
    return said
  } finally {
    locked.lock.release()
  }
}

async function restore(parts: VswitchParts, { to, host }: { to: Vswitch; host: HostNetwork }): Promise<string> {
  for (const step of planChange({ from: null, to, host, ovsDatapath: parts.ovsDatapath })) {
    const result = await parts.ask(step.argv, stepLimitMs)
    if (!result.ok) return `the vSwitch ${to.name} could not be made again: ${result.why}`
  }
  return `the vSwitch ${to.name} was missing and is made again`
}

const changeParts = (parts: VswitchParts): ChangeParts => ({
  folder: parts.folder,
  boot: parts.boot,
  run: async argv => whyOf(await parts.ask(argv, stepLimitMs)),
  reach: parts.reach,
  sleep: parts.sleep,
})

const whyOf = (result: ExecResult): string | null => (result.ok ? null : result.why)
