import { createHash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import {
  type BondMode,
  type HostNetwork,
  type ObservedVswitch,
  setAddresses,
  type Vswitch,
} from '../../shared/hosts/network.ts'
import { ip, ovs } from './commands.ts'
import type { KernelRoute } from './kernel-routes.ts'
import { routeSteps } from './routes.ts'

/**
 * A change of a vSwitch as steps, each with what takes it back: pure, so that it can be shown before it is done, and so
 * that a failure at any step leaves the host as it was.
 */
export interface Step {
  /** null: nothing to do on the way there, only on the way back. */
  argv: readonly string[] | null
  /** null: nothing to take back. */
  undo: readonly string[] | null
}

export interface Change {
  from: ObservedVswitch | null
  to: Vswitch | null
  host: HostNetwork
  /** Of all tables, as they are put back. */
  routes: readonly KernelRoute[]
  /**
   * Open vSwitch's: the kernel's, or one in user space where the kernel has none (ovs-vswitchd.conf.db(5)). Of a bridge that
   * is there it is what that has, for its way back.
   */
  ovsDatapath: string
  /** Of a Linux bridge that goes, what makes it as it was. */
  bridgeWords?: readonly string[]
}

/** From what is there to what is wanted; null stands for nothing. */
export function planChange(change: Change): Step[] {
  const layerTwo = isRemade(change)
    ? [...deviceSteps({ ...change, to: null }), ...deviceSteps({ ...change, from: null })]
    : deviceSteps(change)
  const { before, after } = addressSteps(change)
  return [...before, ...layerTwo, ...after]
}

/** The other back end is another device of that name. */
export const isRemade = ({ from, to }: Pick<Change, 'from' | 'to'>): boolean =>
  from !== null && to !== null && from.backend !== to.backend

const deviceSteps = (change: Change): Step[] =>
  (change.to ?? change.from)?.backend === 'ovs' ? ovsSteps(change) : bridgeSteps(change)

// ---------------------------------------------------------------- Linux bridge

function bridgeSteps({ from, to, host, bridgeWords = ['type', 'bridge'] }: Change): Step[] {
  const steps: Step[] = []
  const name = (to ?? from)?.name ?? ''
  const same = from !== null && to !== null && isDeepStrictEqual(uplinkOf(from), uplinkOf(to))
  if (from === null)
    steps.push({ argv: ip('link', 'add', 'name', name, 'type', 'bridge'), undo: ip('link', 'del', name) })
  if (from !== null && !same) steps.push(...uplinkDown(from))
  if (to !== null && !same) steps.push(...uplinkUp(to, host))
  if (to !== null && (from === null || from.mtu !== to.mtu || !same)) steps.push(...mtuSteps({ from, to, host, same }))
  if (to === null && from !== null) {
    steps.push(
      { argv: null, undo: ip('link', 'set', name, 'mtu', `${from.mtu}`, 'up') },
      { argv: ip('link', 'del', name), undo: ip('link', 'add', 'name', name, ...bridgeWords) },
    )
  } else if (from === null) steps.push({ argv: ip('link', 'set', name, 'up'), undo: null })
  return steps
}

const uplinkOf = ({ nics, bond, vlan }: Vswitch) => ({ nics: [...nics].sort(), bond, vlan })

/** 15 bytes at most (IFNAMSIZ), and nobody else's: the vSwitch's name may take all of them. */
export const bondName = (vswitch: string): string => fitted(`bd-${vswitch}`, 15)
/** A VLAN device is named after what it is on, as people know it: "eth1.10". */
export const vlanName = (base: string, vlan: number): string => `${fitted(base, 14 - `${vlan}`.length)}.${vlan}`
/** What is cut off is often all that tells two apart ("enp129s0f0np0", "enp129s0f0np1"), so some letters stand for it. */
const fitted = (name: string, max: number): string =>
  name.length <= max ? name : `${name.slice(0, max - 4)}${createHash('sha256').update(name).digest('hex').slice(0, 4)}`

const kernelBondMode: Record<BondMode, string> = {
  'active-backup': 'active-backup',
  balance: 'balance-xor',
  lacp: '802.3ad',
}
/** The link of a member is looked at this often, in ms (Documentation/networking/bonding.rst, "miimon"). */
const miimonMs = '100'

function uplinkUp({ name, nics, bond, vlan }: Vswitch, host: HostNetwork): Step[] {
  const [first] = nics
  if (first === undefined) return []
  const steps: Step[] = []
  const bonded = bond === null ? null : bondName(name)
  if (bonded !== null && bond !== null) {
    const mode = ['mode', kernelBondMode[bond], 'miimon', miimonMs]
    steps.push({ argv: ip('link', 'add', 'name', bonded, 'type', 'bond', ...mode), undo: ip('link', 'del', bonded) })
    for (const nic of nics) {
      // A bond takes only members that are down.
      steps.push({
        argv: ip('link', 'set', nic, 'down'),
        undo: isDown(nic, host) ? null : ip('link', 'set', nic, 'up'),
      })
      steps.push({ argv: ip('link', 'set', nic, 'master', bonded), undo: ip('link', 'set', nic, 'nomaster') })
    }
  }
  steps.push(...nics.map(nic => nicUp(nic, host)))
  if (bonded !== null) steps.push({ argv: ip('link', 'set', bonded, 'up'), undo: null })
  const base = bonded ?? first
  const top = vlan === null ? base : vlanName(base, vlan)
  if (vlan !== null) {
    const add = ip('link', 'add', 'link', base, 'name', top, 'type', 'vlan', 'id', `${vlan}`)
    steps.push({ argv: add, undo: ip('link', 'del', top) }, { argv: ip('link', 'set', top, 'up'), undo: null })
  }
  steps.push({ argv: ip('link', 'set', top, 'master', name), undo: ip('link', 'set', top, 'nomaster') })
  return steps
}

const isDown = (nic: string, host: HostNetwork): boolean => host.nics.find(one => one.name === nic)?.carrier === null
const nicUp = (nic: string, host: HostNetwork): Step => ({
  argv: ip('link', 'set', nic, 'up'),
  undo: isDown(nic, host) ? ip('link', 'set', nic, 'down') : null,
})

/** The way back of `uplinkUp`, and its own way back is that again, with all that it brings up. NICs stay up. */
function uplinkDown(vswitch: Vswitch): Step[] {
  const nobodyDown: HostNetwork = { nics: [], vswitches: [], routes: [], manager: 'none', unknown: [] }
  return uplinkUp(vswitch, nobodyDown)
    .reverse()
    .map(step => ({ argv: step.undo, undo: step.argv }))
}

/**
 * No device has more than what it is on: a larger MTU comes from below, a smaller one from above, and so the way back of
 * either is right too. Devices that were made a moment ago have nothing to go back to.
 */
function mtuSteps({
  from,
  to,
  host,
  same,
}: {
  from: ObservedVswitch | null
  to: Vswitch
  host: HostNetwork
  same: boolean
}): Step[] {
  const bonded = to.bond === null ? null : bondName(to.name)
  const base = bonded ?? to.nics[0]
  const top = to.vlan === null || base === undefined ? null : vlanName(base, to.vlan)
  const between = same ? from?.mtu : undefined
  const devices = [
    ...to.nics.map(device => ({ device, was: host.nics.find(nic => nic.name === device)?.mtu })),
    ...[bonded, top].filter(device => device !== null).map(device => ({ device, was: between })),
    { device: to.name, was: from?.mtu },
  ]
  const steps = devices
    .filter(({ was }) => was !== to.mtu)
    .map(({ device, was }) => ({
      argv: ip('link', 'set', device, 'mtu', `${to.mtu}`),
      undo: was === undefined ? null : ip('link', 'set', device, 'mtu', `${was}`),
    }))
  const smaller = devices.some(({ was }) => was !== undefined && was > to.mtu)
  return smaller ? steps.reverse() : steps
}

// ---------------------------------------------------------------- Open vSwitch

const ovsBondMode: Record<BondMode, readonly string[]> = {
  'active-backup': ['bond_mode=active-backup', 'lacp=off'],
  balance: ['bond_mode=balance-slb', 'lacp=off'],
  lacp: ['bond_mode=balance-tcp', 'lacp=active'],
}

/** One transaction: all of it or nothing. */
function ovsSteps({ from, to, host, ovsDatapath }: Change): Step[] {
  if (from !== null && to !== null && isDeepStrictEqual(asItIs(from), asItIs({ ...to, learned: [] }))) return []
  const steps: Step[] = [{ argv: ovsTransaction(from, to, ovsDatapath), undo: ovsTransaction(to, from, ovsDatapath) }]
  if (to === null && from !== null) steps.unshift({ argv: null, undo: ip('link', 'set', from.name, 'up') })
  if (to !== null) {
    steps.push(...to.nics.map(nic => nicUp(nic, host)))
    steps.push({ argv: ip('link', 'set', to.name, 'up'), undo: null })
    for (const name of to.nics) {
      const was = host.nics.find(nic => nic.name === name)?.mtu
      if (was !== undefined && was !== to.mtu) {
        steps.push({
          argv: ip('link', 'set', name, 'mtu', `${to.mtu}`),
          undo: ip('link', 'set', name, 'mtu', `${was}`),
        })
      }
    }
  }
  return steps
}

/** Without what our own record keeps alone. */
const asItIs = (one: Vswitch & Pick<ObservedVswitch, 'learned'>) => ({
  ...uplinkOf(one),
  mtu: one.mtu,
  addresses: setAddresses(one).sort(),
  gateways: [...one.gateways].sort(),
})

function ovsTransaction(from: Vswitch | null, to: Vswitch | null, datapath: Change['ovsDatapath']): string[] {
  const name = (to ?? from)?.name ?? ''
  if (to === null) return ovs('--if-exists', 'del-br', name)
  const parts: string[][] = [['--may-exist', 'add-br', name]]
  // Another one would make the bridge anew, with all that is on it cut off meanwhile.
  if (from === null) parts.push(['set', 'bridge', name, `datapath_type=${datapath}`])
  const same = from !== null && isUplinkKept(from, to)
  if (from !== null && !same && from.nics.length > 0) parts.push(['--if-exists', 'del-port', name, ovsUplink(from)])
  if (!same && to.nics.length > 0) parts.push(ovsUplinkAdd(to))
  parts.push(['set', 'port', name, to.vlan === null ? 'tag=[]' : `tag=${to.vlan}`])
  parts.push(['set', 'interface', name, `mtu_request=${to.mtu}`])
  parts.push(['set', 'bridge', name, `external-ids:understudy-description=${JSON.stringify(to.description)}`])
  return ovs(...parts.flatMap((part, index) => (index === 0 ? part : ['--', ...part])))
}

export const isUplinkKept = (from: Vswitch, to: Vswitch): boolean =>
  isDeepStrictEqual([...from.nics].sort(), [...to.nics].sort()) && from.bond === to.bond

export const ovsUplink = ({ name, nics }: Vswitch): string => (nics.length > 1 ? bondName(name) : (nics[0] ?? ''))

function ovsUplinkAdd({ name, nics, bond }: Vswitch): string[] {
  if (bond === null) return ['--may-exist', 'add-port', name, nics[0] ?? '']
  return ['--may-exist', 'add-bond', name, bondName(name), ...nics, ...ovsBondMode[bond]]
}

// ---------------------------------------------------------------- addresses, both back ends

/**
 * Addresses leave before the devices go and come when they are there. What a NIC itself had goes to its vSwitch: a NIC
 * in a bridge receives nothing for itself.
 */
function addressSteps(change: Change): { before: Step[]; after: Step[] } {
  const { from, to, host } = change
  const name = (to ?? from)?.name ?? ''
  // What is learned goes with its device alone, and is learned again.
  const [had, wanted] = [from === null ? [] : setAddresses(from), to?.addresses ?? []]
  const remove = (address: string, device: string): Step => ({
    argv: ip('address', 'del', address, 'dev', device),
    undo: ip('address', 'add', address, 'dev', device, ...noDad(address)),
  })
  const taken = (to?.nics ?? [])
    .filter(nic => from?.nics.includes(nic) !== true)
    .flatMap(nic => (host.nics.find(one => one.name === nic)?.addresses ?? []).map(address => ({ address, nic })))
  const routes = routeSteps(change)
  const stays = (address: string): boolean => !isRemade(change) && had.includes(address) && wanted.includes(address)
  const before = [
    ...routes.before,
    ...taken.map(({ address, nic }) => remove(address, nic)),
    ...had.filter(address => !stays(address)).map(address => remove(address, name)),
  ]
  const after: Step[] = wanted
    .filter(address => !stays(address))
    .map(address => ({
      argv: ip('address', 'add', address, 'dev', name, ...noDad(address)),
      undo: ip('address', 'del', address, 'dev', name),
    }))
  after.push(...routes.after)
  return { before, after }
}

/** Known to be free (checked before), and needed at once. */
const noDad = (address: string): string[] => (address.includes(':') ? ['nodad'] : [])
