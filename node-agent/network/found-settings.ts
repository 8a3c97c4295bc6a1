import { z } from 'zod'
import type { Nic, ObservedVswitch, Vswitch } from '../../shared/hosts/network.ts'
import { ip, ovs } from './commands.ts'
import type { Ask } from './inventory.ts'
import { rowsOf } from './ovs-json.ts'
import { isRemade, isUplinkKept, ovsUplink } from './plan.ts'

/**
 * Settings of a bridge that are none of a vSwitch's. Whoever takes it away has to be able to put it back as it was: without its
 * spanning tree, for one, a network with a loop in it would be flooded by the way back.
 */
export interface FoundSettings {
  /** Words of ip-link(8) that make a Linux bridge as it was. */
  words: string[]
  /** Why the change can't be made, null: it can. */
  refusal: string | null
}

interface Ends {
  from: ObservedVswitch | null
  to: Vswitch | null
  nics: readonly Nic[]
}

const askLimitMs = 10_000

/** @throws where the kernel or Open vSwitch does not answer */
export async function readFoundSettings(ask: Ask, { from, to, nics }: Ends): Promise<FoundSettings> {
  const goes = from !== null && (to === null || isRemade({ from, to }))
  if (from?.backend === 'ovs' && (goes || (to !== null && !isUplinkKept(from, to)))) {
    const found = await ovsSettings(ask, { from, goes })
    return { words: [], refusal: found.length === 0 ? null : lossOf(from.name, found) }
  }
  return goes && from !== null ? bridgeSettings(ask, { from, nics }) : { words: [], refusal: null }
}

const lossOf = (name: string, found: readonly string[]): string =>
  `${name} has settings that a vSwitch has not and that would be lost: ${found.join('; ')}. Take them back first, or make this change where they were made`

async function asked(ask: Ask, argv: string[]): Promise<string> {
  const result = await ask(argv, askLimitMs)
  if (!result.ok) throw new Error(`the settings to be kept could not be read: ${result.why}; nothing was changed`)
  return result.stdout
}

// ---------------------------------------------------------------- Linux bridge

/** Both what `ip -details -json` shows and a word that sets it (ip-link(8), "type bridge"); what is counted or follows is not. */
const bridgeWords = [
  'forward_delay',
  'hello_time',
  'max_age',
  'ageing_time',
  'stp_state',
  'priority',
  'group_fwd_mask',
  'mcast_snooping',
  'mcast_router',
  'mcast_query_use_ifaddr',
  'mcast_querier',
  'mcast_igmp_version',
  'mcast_mld_version',
  'no_linklocal_learn',
  'nf_call_iptables',
  'nf_call_ip6tables',
  'nf_call_arptables',
]

const linkSchema = z.object({
  address: z.string().default(''),
  linkinfo: z.object({ info_data: z.record(z.string(), z.unknown()) }),
})

async function bridgeSettings(
  ask: Ask,
  { from, nics }: { from: ObservedVswitch; nics: readonly Nic[] },
): Promise<FoundSettings> {
  const said = await asked(ask, ip('-json', '-details', 'link', 'show', 'dev', from.name))
  const [link] = z.tuple([linkSchema]).rest(z.unknown()).parse(JSON.parse(said))
  const data = link.linkinfo.info_data
  // Which VLANs each of its ports takes part in is kept by the ports.
  if (Number(data.vlan_filtering ?? 0) !== 0) return { words: [], refusal: lossOf(from.name, ['vlan_filtering']) }
  const set = bridgeWords.flatMap(word => (data[word] === undefined ? [] : [word, String(data[word])]))
  // One that was not given an address has that of a port (Documentation/networking/bridge.rst).
  const ofPort = nics.some(nic => from.nics.includes(nic.name) && nic.mac === link.address)
  return { words: [...(ofPort ? [] : ['address', link.address]), 'type', 'bridge', ...set], refusal: null }
}

// ---------------------------------------------------------------- Open vSwitch

/** What people and programs set, beside what a vSwitch has (ovs-vswitchd.conf.db(5)); the rest is what the daemon tells. */
const ovsSet = {
  Bridge: [
    ...['other_config', 'external_ids', 'controller', 'fail_mode', 'mirrors', 'netflow', 'sflow', 'ipfix', 'protocols'],
    ...['stp_enable', 'rstp_enable', 'mcast_snooping_enable', 'flood_vlans', 'flow_tables', 'auto_attach'],
  ],
  Port: [
    ...['other_config', 'external_ids', 'trunks', 'cvlans', 'vlan_mode', 'qos', 'mac', 'protected'],
    ...['bond_updelay', 'bond_downdelay', 'bond_fake_iface'],
  ],
  Interface: [
    ...['other_config', 'external_ids', 'options', 'ofport_request', 'mac', 'ingress_policing_rate'],
    ...['ingress_policing_burst', 'ingress_policing_kpkts_rate', 'ingress_policing_kpkts_burst', 'bfd', 'cfm_mpid'],
    'lldp',
  ],
} as const

async function ovsSettings(ask: Ask, { from, goes }: { from: ObservedVswitch; goes: boolean }): Promise<string[]> {
  const own = goes ? [from.name] : []
  const uplink = from.nics.length === 0 ? [] : [ovsUplink(from)]
  const records = [
    ...own.map(name => ['Bridge', name] as const),
    ...[...own, ...uplink].map(name => ['Port', name] as const),
    ...[...own, ...from.nics].map(name => ['Interface', name] as const),
  ]
  const found: string[] = []
  for (const [table, name] of records) {
    const [row] = rowsOf(await asked(ask, ovs('--format=json', '--if-exists', 'list', table, name)))
    const set = ovsSet[table].filter(column => isSet(row?.[column]))
    if (set.length > 0) found.push(`${set.join(', ')} of ${table} ${name}`)
  }
  return found
}

/** Sets and maps are empty by default, numbers 0 and flags false (RFC 7047, 5.1); our own words in a map do not count. */
function isSet(value: unknown): boolean {
  if (!Array.isArray(value)) return value !== undefined && value !== false && value !== 0 && value !== ''
  const [kind, inside] = value
  if (!Array.isArray(inside)) return true
  if (kind === 'set') return inside.length > 0
  return inside.some(pair => !Array.isArray(pair) || !String(pair[0]).startsWith('understudy-'))
}
