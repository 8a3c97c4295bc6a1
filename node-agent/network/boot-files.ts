import type { BondMode, NetworkManager, Vswitch } from '../../shared/hosts/network.ts'
import { bondName, vlanName } from './plan.ts'

/**
 * The files that bring our vSwitches up at boot, in the language of what the host already uses. Each is ours as a whole,
 * marked, and named so; files of others are never changed. Virtual addresses are never in them: a host that boots does
 * not know whether it may serve.
 */
export interface BootFile {
  path: string
  text: string
}

/** systemd-networkd reads its files as a user of its own; netplan wants its to be root's alone. */
export const bootFileMode = (manager: NetworkManager): number => (manager === 'netplan' ? 0o600 : 0o644)

const mark = '# Written by Understudy. Changes here are lost: use `understudy vswitch`.'
/** After the host's own, which begin with 10 or 50 by custom, and before what matches everything. */
const networkd = (name: string, kind: string): string => `/etc/systemd/network/70-understudy-${name}.${kind}`

/** Where files of ours may be, so that those of a deleted vSwitch are found and removed. */
export const ownFiles: readonly RegExp[] = [
  /^\/etc\/systemd\/network\/70-understudy-.+\.(netdev|network)$/,
  /^\/etc\/network\/interfaces\.d\/understudy-.+$/,
  /^\/etc\/netplan\/90-understudy\.yaml$/,
]

/** @returns null where this host has nothing that reads such files: then the agent itself puts the vSwitches up at its start. */
export function bootFiles(manager: NetworkManager, vswitches: readonly Vswitch[]): BootFile[] | null {
  const bridges = vswitches.filter(one => one.backend === 'bridge')
  switch (manager) {
    case 'systemd-networkd':
      return vswitches.flatMap(networkdFiles)
    case 'ifupdown':
      return vswitches.map(one => ({
        path: `/etc/network/interfaces.d/understudy-${one.name}`,
        text: `${mark}\n${ifupdown(one)}`,
      }))
    case 'netplan':
      return bridges.length === 0
        ? []
        : [{ path: '/etc/netplan/90-understudy.yaml', text: `${mark}\n${netplan(bridges)}` }]
    case 'NetworkManager':
    case 'none':
      return null
  }
}

// ---------------------------------------------------------------- systemd-networkd (systemd.netdev(5), systemd.network(5))

const section = (name: string, lines: readonly (string | null)[]): string =>
  `[${name}]\n${lines.filter(line => line !== null).join('\n')}\n`

const networkdBondMode: Record<BondMode, string> = {
  'active-backup': 'active-backup',
  balance: 'balance-xor',
  lacp: '802.3ad',
}

function networkdFiles(vswitch: Vswitch): BootFile[] {
  const { name, nics, bond, vlan, mtu, backend } = vswitch
  const file = (device: string, kind: 'netdev' | 'network', ...sections: string[]): BootFile => ({
    path: networkd(device, kind),
    text: `${mark}\n${sections.join('\n')}`,
  })
  // networkd takes addresses away that it did not set, the pair's virtual ones among them, unless it is told to keep them.
  const own = file(
    name,
    'network',
    section('Match', [`Name=${name}`]),
    section('Network', [
      ...vswitch.addresses.map(address => `Address=${address}`),
      ...vswitch.gateways.map(gateway => `Gateway=${gateway}`),
      'KeepConfiguration=yes',
      'ConfigureWithoutCarrier=yes',
    ]),
    section('Link', [`MTUBytes=${mtu}`]),
  )
  // Open vSwitch remembers its bridges and ports by itself.
  if (backend === 'ovs') return [own]
  const files = [file(name, 'netdev', section('NetDev', [`Name=${name}`, 'Kind=bridge', `MTUBytes=${mtu}`])), own]
  const bonded = bond === null ? null : bondName(name)
  const base = bonded ?? nics[0]
  if (base === undefined) return files
  const top = vlan === null ? null : vlanName(base, vlan)
  const link = section('Link', [`MTUBytes=${mtu}`])
  const below = top === null ? `Bridge=${name}` : `VLAN=${top}`
  for (const nic of nics) {
    const to = bonded === null ? below : `Bond=${bonded}`
    files.push(file(nic, 'network', section('Match', [`Name=${nic}`]), section('Network', [to]), link))
  }
  if (bonded !== null && bond !== null) {
    const mode = section('Bond', [`Mode=${networkdBondMode[bond]}`, 'MIIMonitorSec=100ms'])
    files.push(file(bonded, 'netdev', section('NetDev', [`Name=${bonded}`, 'Kind=bond']), mode))
    files.push(file(bonded, 'network', section('Match', [`Name=${bonded}`]), section('Network', [below]), link))
  }
  if (top !== null) {
    files.push(file(top, 'netdev', section('NetDev', [`Name=${top}`, 'Kind=vlan']), section('VLAN', [`Id=${vlan}`])))
    files.push(file(top, 'network', section('Match', [`Name=${top}`]), section('Network', [`Bridge=${name}`]), link))
  }
  return files
}

// ---------------------------------------------------------------- ifupdown (interfaces(5))

/** With ip(8) alone: bridge-utils, ifenslave and vlan may not be there. */
function ifupdown(vswitch: Vswitch): string {
  const { name, nics, bond, vlan, mtu, addresses, gateways, backend } = vswitch
  const lines = [`auto ${name}`, `iface ${name} inet manual`]
  const up = (command: string): number => lines.push(`    up ${command}`)
  const first = nics[0]
  if (backend === 'bridge') {
    lines.push(`    pre-up ip link show ${name} > /dev/null 2>&1 || ip link add name ${name} type bridge`)
    const bonded = bond === null ? null : bondName(name)
    if (bonded !== null && bond !== null) {
      const mode = networkdBondMode[bond]
      lines.push(
        `    pre-up ip link show ${bonded} > /dev/null 2>&1 || ip link add name ${bonded} type bond mode ${mode} miimon 100`,
      )
      for (const nic of nics)
        up(`ip link set ${nic} down && ip link set ${nic} master ${bonded} && ip link set ${nic} up`)
      up(`ip link set ${bonded} mtu ${mtu} up`)
    } else if (first !== undefined) up(`ip link set ${first} mtu ${mtu} up`)
    const base = bonded ?? first
    if (base !== undefined) {
      const top = vlan === null ? base : vlanName(base, vlan)
      if (vlan !== null) {
        up(`ip link show ${top} > /dev/null 2>&1 || ip link add link ${base} name ${top} type vlan id ${vlan}`)
        up(`ip link set ${top} up`)
      }
      up(`ip link set ${top} master ${name}`)
    }
  }
  up(`ip link set ${name} mtu ${mtu} up`)
  for (const address of addresses) up(`ip address replace ${address} dev ${name}`)
  for (const gateway of gateways)
    up(`ip ${gateway.includes(':') ? '-6 ' : ''}route replace default via ${gateway} dev ${name}`)
  if (backend === 'bridge') lines.push(`    down ip link del ${name}`)
  return `${lines.join('\n')}\n`
}

// ---------------------------------------------------------------- netplan (netplan(5))

const netplanBondMode: Record<BondMode, string> = networkdBondMode

/** JSON is YAML: nothing to escape by hand. */
function netplan(bridges: readonly Vswitch[]): string {
  const ethernets: { [name: string]: object } = {}
  const bonds: { [name: string]: object } = {}
  const vlans: { [name: string]: object } = {}
  const made: { [name: string]: object } = {}
  for (const { name, nics, bond, vlan, mtu, addresses, gateways } of bridges) {
    for (const nic of nics) ethernets[nic] = { mtu }
    const bonded = bond === null ? null : bondName(name)
    if (bonded !== null && bond !== null)
      bonds[bonded] = {
        interfaces: nics,
        mtu,
        parameters: { mode: netplanBondMode[bond], 'mii-monitor-interval': 100 },
      }
    const base = bonded ?? nics[0]
    const top = base === undefined || vlan === null ? base : vlanName(base, vlan)
    if (base !== undefined && top !== undefined && vlan !== null) vlans[top] = { id: vlan, link: base, mtu }
    made[name] = {
      interfaces: top === undefined ? [] : [top],
      mtu,
      addresses,
      routes: gateways.map(via => ({ to: 'default', via })),
    }
  }
  const network = { version: 2, ethernets, bonds, vlans, bridges: made }
  const filled = Object.fromEntries(
    Object.entries(network).filter(([, value]) => typeof value === 'number' || Object.keys(value).length > 0),
  )
  return `${JSON.stringify({ network: filled }, null, 2)}\n`
}
