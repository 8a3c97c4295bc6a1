/**
 * The gate's ruleset, as data and as the text nft(8) loads. Pure.
 *
 * Three tables share a name and always change in one transaction: `inet` (traffic), `arp` (IPv4 address resolution) and
 * `netdev` (what a packet socket sends past the other two: a late announcement is stopped here). Each has a set `open`
 * whose only element, with a timeout, is the permission to serve; the element of `closed` tells closed from frozen.
 *
 * The hooks come before routing, conntrack and address translation, and there is no exemption for loopback: a client on
 * this host is stopped like any other. Only the peer's replication passes in every state, by interface and address.
 */
import { addressBytes, addressText, familyOf } from '../kernel/address.ts'
import * as c from './clauses.ts'

export type GateSpec = {
  /** Name of the nftables tables; one agent per network namespace. */
  table: string
  /** The virtual addresses, IPv4 and IPv6. */
  vips: readonly string[]
  /** TCP ports that are gated on every address of this host. */
  ports: readonly number[]
  /** Who may reach the ports on this host's own addresses in every state: the other host, over the peer link. */
  peers: readonly { iface: string; address: string }[]
  /** Interfaces on which the addresses are announced. */
  devices: readonly string[]
  /** True where a VIP is translated to another host or namespace. Costs connection tracking for the whole host. */
  forwarded: boolean
}

export type TableFamily = 'inet' | 'arp' | 'netdev'
export type SetType = 'ipv4' | 'ipv6' | 'port' | 'link-ipv4' | 'link-ipv6' | 'flag'
export type SetLayout = { name: string; type: SetType; timeout: boolean; elements: readonly Element[] }
export type Element = { text: string; key: Buffer }
export type Hook =
  | { type: 'filter'; hook: 'prerouting' | 'input' | 'forward' | 'output'; priority: number }
  | { type: 'filter'; hook: 'egress'; priority: number; device: string }
export type ChainLayout = { name: string; hook?: Hook; rules: readonly (readonly c.Clause[])[] }
export type TableLayout = {
  family: TableFamily
  name: string
  counters: readonly string[]
  sets: readonly SetLayout[]
  chains: readonly ChainLayout[]
}

/** Limits of a specification: far above any real pair, low enough that the whole ruleset is one small transaction. */
export const MAX_VIPS = 64
export const MAX_PORTS = 64
export const MAX_PEERS = 16
export const MAX_DEVICES = 16
/** IFNAMSIZ includes the zero at the end (linux/if.h). */
const IFNAME_BYTES = 16

/** Before connection tracking (−200) and translation (−100), so that the address is still the one the client used. */
const PRIORITY_RAW = -300
const PRIORITY_FIRST = PRIORITY_RAW - 10

/** The tables for a specification. Throws with a sentence if the specification can't be enforced as it is. */
export function gateLayout(spec: GateSpec): TableLayout[] {
  checkSpec(spec)
  const vip4 = spec.vips.filter(vip => familyOf(vip) === 4).map(addressElement)
  const vip6 = spec.vips.filter(vip => familyOf(vip) === 6).map(addressElement)
  const tables = [inetTable(spec, vip4, vip6), arpTable(spec, vip4)]
  if (spec.devices.length > 0) tables.push(netdevTable(spec, vip4, vip6))
  return tables
}

function inetTable(spec: GateSpec, vip4: Element[], vip6: Element[]): TableLayout {
  const peers = (family: 4 | 6) => spec.peers.filter(peer => familyOf(peer.address) === family).map(peerElement)
  const chains: ChainLayout[] = [verdictIn, verdictOut, refuse, prerouting(vip6), output(vip6)]
  if (spec.forwarded) chains.push(forward)
  return {
    family: 'inet',
    name: spec.table,
    counters: ['frozen', 'refused'],
    sets: [
      { name: 'vip4', type: 'ipv4', timeout: false, elements: vip4 },
      { name: 'vip6', type: 'ipv6', timeout: false, elements: vip6 },
      { name: 'ports', type: 'port', timeout: false, elements: spec.ports.map(portElement) },
      { name: 'peer4', type: 'link-ipv4', timeout: false, elements: peers(4) },
      { name: 'peer6', type: 'link-ipv6', timeout: false, elements: peers(6) },
      { name: 'open', type: 'flag', timeout: true, elements: [] },
      { name: 'guard', type: 'flag', timeout: true, elements: [] },
      { name: 'closed', type: 'flag', timeout: false, elements: [] },
      { name: 'writer', type: 'flag', timeout: false, elements: [] },
    ],
    chains,
  }
}

const verdictIn: ChainLayout = {
  name: 'verdict_in',
  rules: [
    [c.flagSet('open'), c.accept],
    [c.flagSet('closed'), c.jump('refuse')],
    // RFC 6069: told that the host can't be reached, an established sender does not double its retransmission time, so
    // it is back within a second of the thaw. Never for a SYN: connect() would fail at once instead of waiting.
    [c.tcpEstablished, c.countOn('frozen'), c.reject('host-unreachable')],
    [c.countOn('frozen'), c.drop],
  ],
}

const verdictOut: ChainLayout = {
  name: 'verdict_out',
  rules: [
    [c.flagSet('open'), c.accept],
    [c.flagSet('closed'), c.jump('refuse')],
    [c.icmpUnreachable, c.accept],
    [c.icmpv6Unreachable, c.accept],
    // A local sender that is refused here tries again each half second: better than any message could make it.
    [c.countOn('frozen'), c.drop],
  ],
}

const refuse: ChainLayout = {
  name: 'refuse',
  rules: [
    // Resets must get out, and back in over loopback: our own ones and those of destroyed connections.
    [c.tcpReset, c.accept],
    [c.icmpUnreachable, c.accept],
    [c.icmpv6Unreachable, c.accept],
    [c.anyTcp, c.countOn('refused'), c.reject('tcp-reset')],
    [c.neighbour('nd-neighbor-solicit'), c.drop],
    [c.neighbour('nd-neighbor-advert'), c.drop],
    [c.countOn('refused'), c.reject('port-unreachable')],
  ],
}

const prerouting = (vip6: Element[]): ChainLayout => ({
  name: 'prerouting',
  hook: { type: 'filter', hook: 'prerouting', priority: PRIORITY_FIRST },
  rules: [
    [c.ipIn('daddr', 4, 'vip4'), c.jump('verdict_in')],
    [c.ipIn('daddr', 6, 'vip6'), c.jump('verdict_in')],
    ...vip6.map(vip => [c.neighbourAbout('nd-neighbor-solicit', vip.key, 'inet'), c.jump('verdict_in')]),
    [c.linkAndAddressIn('in', 4, 'peer4'), c.tcpPortIn('dport', 'ports'), c.accept],
    [c.linkAndAddressIn('in', 6, 'peer6'), c.tcpPortIn('dport', 'ports'), c.accept],
    [c.tcpPortIn('dport', 'ports'), c.toThisHost, c.jump('verdict_in')],
  ],
})

const output = (vip6: Element[]): ChainLayout => ({
  name: 'output',
  hook: { type: 'filter', hook: 'output', priority: PRIORITY_FIRST },
  rules: [
    [c.ipIn('saddr', 4, 'vip4'), c.jump('verdict_out')],
    [c.ipIn('saddr', 6, 'vip6'), c.jump('verdict_out')],
    [c.ipIn('daddr', 4, 'vip4'), c.jump('verdict_out')],
    [c.ipIn('daddr', 6, 'vip6'), c.jump('verdict_out')],
    ...vip6.map(vip => [c.neighbourAbout('nd-neighbor-advert', vip.key, 'inet'), c.jump('verdict_out')]),
    [c.linkAndAddressIn('out', 4, 'peer4'), c.tcpPortIn('sport', 'ports'), c.accept],
    [c.linkAndAddressIn('out', 6, 'peer6'), c.tcpPortIn('sport', 'ports'), c.accept],
    [c.tcpPortIn('sport', 'ports'), c.jump('verdict_out')],
    [c.tcpPortIn('dport', 'ports'), c.toThisHost, c.jump('verdict_out')],
  ],
})

/** The way back of a translated connection carries no VIP before routing; only connection tracking still knows it. */
const forward: ChainLayout = {
  name: 'forward',
  hook: { type: 'filter', hook: 'forward', priority: PRIORITY_RAW },
  rules: [
    [c.originalDestinationIn(4, 'vip4'), c.jump('verdict_in')],
    [c.originalDestinationIn(6, 'vip6'), c.jump('verdict_in')],
  ],
}

function silence(counter: string): ChainLayout {
  return {
    name: 'silence',
    rules: [
      [c.flagSet('open'), c.accept],
      [c.countOn(counter), c.drop],
    ],
  }
}
const openSet: SetLayout = { name: 'open', type: 'flag', timeout: true, elements: [] }

function arpTable(spec: GateSpec, vip4: Element[]): TableLayout {
  const sender = [c.arpIn('saddr', 'vip4', 'arp'), c.jump('silence')]
  const target = [c.arpIn('daddr', 'vip4', 'arp'), c.jump('silence')]
  return {
    family: 'arp',
    name: spec.table,
    counters: ['arp_silenced'],
    sets: [{ name: 'vip4', type: 'ipv4', timeout: false, elements: vip4 }, openSet],
    chains: [
      silence('arp_silenced'),
      { name: 'input', hook: { type: 'filter', hook: 'input', priority: 0 }, rules: [target, sender] },
      { name: 'output', hook: { type: 'filter', hook: 'output', priority: 0 }, rules: [sender] },
    ],
  }
}

function netdevTable(spec: GateSpec, vip4: Element[], vip6: Element[]): TableLayout {
  const rules = [
    [c.arpIn('saddr', 'vip4', 'netdev'), c.jump('silence')],
    ...vip6.map(vip => [c.neighbourAbout('nd-neighbor-advert', vip.key, 'netdev'), c.jump('silence')]),
  ]
  return {
    family: 'netdev',
    name: spec.table,
    counters: ['announcements_stopped'],
    sets: [{ name: 'vip4', type: 'ipv4', timeout: false, elements: vip4 }, openSet],
    chains: [
      silence('announcements_stopped'),
      ...spec.devices.map((device, i): ChainLayout => {
        return { name: `egress${i}`, hook: { type: 'filter', hook: 'egress', priority: 0, device }, rules }
      }),
    ],
  }
}

function addressElement(address: string): Element {
  const key = addressBytes(address)
  return { text: addressText(key), key }
}
function portElement(port: number): Element {
  return { text: String(port), key: Buffer.from([port >> 8, port & 0xff]) }
}
function peerElement(peer: { iface: string; address: string }): Element {
  const name = Buffer.alloc(IFNAME_BYTES)
  name.write(peer.iface)
  const address = addressBytes(peer.address)
  return { text: `"${peer.iface}" . ${addressText(address)}`, key: Buffer.concat([name, address]) }
}

function checkSpec(spec: GateSpec): void {
  const fail = (why: string): never => {
    throw new Error(`The gate can't be built: ${why}.`)
  }
  if (!/^[a-z][a-z0-9_]{0,30}$/.test(spec.table)) fail(`${JSON.stringify(spec.table)} is no plain table name`)
  const counts = [
    ['virtual addresses', spec.vips.length, MAX_VIPS],
    ['ports', spec.ports.length, MAX_PORTS],
    ['peers', spec.peers.length, MAX_PEERS],
    ['devices', spec.devices.length, MAX_DEVICES],
  ] as const
  for (const [what, count, most] of counts) if (count > most) fail(`${count} ${what} were given, the most is ${most}`)
  for (const port of spec.ports) {
    if (!Number.isInteger(port) || port < 1 || port > 65535) fail(`${port} is no TCP port`)
  }
  for (const name of [...spec.devices, ...spec.peers.map(peer => peer.iface)]) {
    if (!/^[^\s"/*\\]{1,15}$/.test(name)) fail(`${JSON.stringify(name)} is no interface name`)
  }
  const keys = [...spec.vips.map(vip => addressBytes(vip).toString('hex')), ...spec.ports.map(String)]
  if (new Set(keys).size !== keys.length) fail('an address or a port was given twice')
}

const SET_TYPE_TEXT: Record<SetType, string> = {
  ipv4: 'type ipv4_addr',
  ipv6: 'type ipv6_addr',
  port: 'type inet_service',
  'link-ipv4': 'type ifname . ipv4_addr',
  'link-ipv6': 'type ifname . ipv6_addr',
  flag: 'type mark',
}

/** The ruleset as nft(8) 1.0.6 or later loads it; loaded, it is frozen. */
export function rulesetText(tables: readonly TableLayout[]): string {
  return tables.map(tableText).join('\n')
}

function tableText(table: TableLayout): string {
  const lines = [`table ${table.family} ${table.name} {`]
  for (const counter of table.counters) lines.push(`  counter ${counter} {`, '  }')
  for (const set of table.sets) {
    const parts = [SET_TYPE_TEXT[set.type]]
    if (set.timeout) parts.push('flags timeout')
    if (set.elements.length > 0) parts.push(`elements = { ${set.elements.map(element => element.text).join(', ')} }`)
    lines.push(`  set ${set.name} { ${parts.join('; ')}; }`)
  }
  for (const chain of table.chains) {
    lines.push(`  chain ${chain.name} {`)
    if (chain.hook !== undefined) lines.push(`    ${hookText(chain.hook)}`)
    for (const rule of chain.rules) lines.push(`    ${rule.map(clause => clause.text).join(' ')}`)
    lines.push('  }')
  }
  lines.push('}', '')
  return lines.join('\n')
}

function hookText(hook: Hook): string {
  const device = hook.hook === 'egress' ? ` device "${hook.device}"` : ''
  return `type ${hook.type} hook ${hook.hook}${device} priority ${hook.priority}; policy accept;`
}
