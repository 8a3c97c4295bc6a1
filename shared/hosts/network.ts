/** What a host has of networks, and what a vSwitch is: reported by the agent, shown by the CLI and the control plane. */

export const networkTypes = ['management', 'service', 'storage', 'backup', 'migration'] as const
export type NetworkType = (typeof networkTypes)[number]

/** How several NICs are one: by name, since both back ends have the three. */
export const bondModes = ['active-backup', 'balance', 'lacp'] as const
export type BondMode = (typeof bondModes)[number]

export const vswitchBackends = ['bridge', 'ovs'] as const
export type VswitchBackend = (typeof vswitchBackends)[number]

/** As it is wanted. */
export interface Vswitch {
  name: string
  backend: VswitchBackend
  description: string
  types: NetworkType[]
  /** 1..4094; null: untagged. */
  vlan: number | null
  nics: string[]
  /** null with one NIC or none. */
  bond: BondMode | null
  /** Of the host on this vSwitch, with their prefixes: "10.0.0.5/24". */
  addresses: string[]
  /** Default gateways through this vSwitch. */
  gateways: string[]
  mtu: number
}

export interface Nic {
  name: string
  mac: string
  driver: string
  /** The cable: null where the NIC is down and can't tell. */
  carrier: boolean | null
  /** null where the driver does not tell. */
  speedMbps: number | null
  mtu: number
  /** Bridge, bond or Open vSwitch it belongs to; null: free. */
  master: string | null
  addresses: string[]
}

export interface Route {
  destination: string
  gateway: string | null
  device: string
  /** null: none was given. */
  metric: number | null
  /** Who made it, as ip-route(8) names it ("static", "dhcp"); null: it does not say. */
  protocol: string | null
  /** Of several next hops that share the traffic, each of which is a route here; null: the only one. */
  weight: number | null
}

/** As it was found. */
export interface ObservedVswitch extends Vswitch {
  /** Made by us, or found: a found one has no types until it is given some. */
  owned: boolean
  /** Interfaces on it that are neither NICs nor its own: machines' ports. */
  ports: string[]
  /** Of its addresses those that a router or a DHCP server has given for a time: nothing that is set here. */
  learned: string[]
}

/** An older agent does not say which are learned. */
type WithAddresses = Pick<ObservedVswitch, 'addresses'> & Partial<Pick<ObservedVswitch, 'learned'>>
export const setAddresses = ({ addresses, learned = [] }: WithAddresses): string[] =>
  addresses.filter(address => !learned.includes(address))

/** What brings the host's network up at boot. */
export const networkManagers = ['systemd-networkd', 'netplan', 'ifupdown', 'NetworkManager', 'none'] as const
export type NetworkManager = (typeof networkManagers)[number]

export interface HostNetwork {
  nics: Nic[]
  vswitches: ObservedVswitch[]
  routes: Route[]
  manager: NetworkManager
  /** Why something of it is not known ("Open vSwitch does not answer"); [] = all is. */
  unknown: string[]
}

/** A sentence, and whether a takeover would not be whole because of it. */
export interface Difference {
  why: string
  blocks: boolean
}

type Compared = Pick<ObservedVswitch, 'name' | 'vlan' | 'mtu' | 'types' | 'backend'>

/** What differs between two hosts so that services would not find their network after a takeover. */
export function networkDifferences(hosts: Record<'a' | 'b', readonly Compared[]>): Difference[] {
  const found: Difference[] = []
  const named = (host: 'a' | 'b') => new Map(hosts[host].map(one => [one.name, one]))
  const [a, b] = [named('a'), named('b')]
  for (const name of new Set([...a.keys(), ...b.keys()])) {
    const [here, there] = [a.get(name), b.get(name)]
    if (here === undefined || there === undefined) {
      const [has, lacks] = here === undefined ? ['b', 'a'] : ['a', 'b']
      found.push({ why: `the vSwitch ${name} is on ${has} and not on ${lacks}`, blocks: true })
      continue
    }
    const differ = (field: string, [x, y]: [unknown, unknown], blocks: 'blocks' | 'warns'): void => {
      if (JSON.stringify(x) === JSON.stringify(y)) return
      found.push({
        why: `the vSwitch ${name} has ${field} ${JSON.stringify(x)} on a and ${JSON.stringify(y)} on b`,
        blocks: blocks === 'blocks',
      })
    }
    differ('VLAN', [here.vlan, there.vlan], 'blocks')
    differ('MTU', [here.mtu, there.mtu], 'warns')
    differ('types', [[...here.types].sort(), [...there.types].sort()], 'warns')
    // Either can stand for the other.
    differ('back end', [here.backend, there.backend], 'warns')
  }
  return found
}
