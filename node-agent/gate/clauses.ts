/**
 * The vocabulary of the gate's rules. A clause is one piece of a rule, both as nft(8) writes it and as the kernel's
 * expressions: the text is what an operator reads and can load, the expressions are what the agent sends. A test loads
 * the text with nft and compares what the kernel then holds.
 */

export type MetaKey = 'protocol' | 'mark' | 'iifname' | 'oifname' | 'nfproto' | 'l4proto'
type Register = 1 | 2

/** One expression of the kernel's rule language (linux/netfilter/nf_tables.h), values in the order of packet bytes. */
export type Expression =
  | { op: 'meta'; key: MetaKey }
  | { op: 'payload'; base: 'network' | 'transport'; offset: number; bytes: number; register: Register }
  | { op: 'mask'; mask: readonly number[] }
  | { op: 'equals'; value: readonly number[] }
  | { op: 'lookup'; set: string }
  | { op: 'fib-type' }
  | { op: 'original-destination'; family: 4 | 6 }
  | { op: 'count'; counter: string }
  | { op: 'reject'; how: 'tcp-reset' | 'port-unreachable' | 'host-unreachable' }
  | { op: 'accept' }
  | { op: 'drop' }
  | { op: 'jump'; chain: string }

export type Clause = { text: string; expressions: readonly Expression[] }

const IPPROTO_ICMP = 1
const IPPROTO_TCP = 6
const IPPROTO_ICMPV6 = 58
const NFPROTO_IPV4 = 2
const NFPROTO_IPV6 = 10
const ETHERTYPE_ARP = [0x08, 0x06]
const ETHERTYPE_IPV6 = [0x86, 0xdd]
const RTN_LOCAL = 2
const ICMP_DEST_UNREACH = 3
const ICMPV6_DEST_UNREACH = 1
const NEIGHBOUR_SOLICITATION = 135
const NEIGHBOUR_ADVERTISEMENT = 136
const TCP_SYN_RST = 0x06
const TCP_RST = 0x04

function meta(key: MetaKey, value: readonly number[]): Expression[] {
  return [
    { op: 'meta', key },
    { op: 'equals', value },
  ]
}
function network(offset: number, bytes: number, register: Register = 1): Expression {
  return { op: 'payload', base: 'network', offset, bytes, register }
}
function transport(offset: number, bytes: number): Expression {
  return { op: 'payload', base: 'transport', offset, bytes, register: 1 }
}
const ipv4 = meta('nfproto', [NFPROTO_IPV4])
const ipv6 = meta('nfproto', [NFPROTO_IPV6])
const tcp = meta('l4proto', [IPPROTO_TCP])

/** A constant key: the mark, masked to nothing. So one element of a set decides about every packet. */
export function flagSet(set: string): Clause {
  return {
    text: `meta mark & 0x0 @${set}`,
    expressions: [
      { op: 'meta', key: 'mark' },
      { op: 'mask', mask: [0, 0, 0, 0] },
      { op: 'lookup', set },
    ],
  }
}

export function ipIn(side: 'saddr' | 'daddr', family: 4 | 6, set: string): Clause {
  const word = family === 4 ? 'ip' : 'ip6'
  const position = family === 4 ? network(side === 'saddr' ? 12 : 16, 4) : network(side === 'saddr' ? 8 : 24, 16)
  return {
    text: `${word} ${side} @${set}`,
    expressions: [...(family === 4 ? ipv4 : ipv6), position, { op: 'lookup', set }],
  }
}

/** The interface a packet comes from and its source, or the one it leaves by and its destination, as one key. */
export function linkAndAddressIn(direction: 'in' | 'out', family: 4 | 6, set: string): Clause {
  const incoming = direction === 'in'
  const word = `${incoming ? 'iifname' : 'oifname'} . ${family === 4 ? 'ip' : 'ip6'} ${incoming ? 'saddr' : 'daddr'}`
  const address = family === 4 ? network(incoming ? 12 : 16, 4, 2) : network(incoming ? 8 : 24, 16, 2)
  return {
    text: `${word} @${set}`,
    expressions: [
      ...(family === 4 ? ipv4 : ipv6),
      { op: 'meta', key: incoming ? 'iifname' : 'oifname' },
      address,
      { op: 'lookup', set },
    ],
  }
}

export function tcpPortIn(side: 'sport' | 'dport', set: string): Clause {
  return {
    text: `tcp ${side} @${set}`,
    expressions: [...tcp, transport(side === 'sport' ? 0 : 2, 2), { op: 'lookup', set }],
  }
}

export const anyTcp: Clause = { text: 'meta l4proto tcp', expressions: tcp }

export const tcpReset: Clause = {
  text: 'tcp flags & rst == rst',
  expressions: [...tcp, transport(13, 1), { op: 'mask', mask: [TCP_RST] }, { op: 'equals', value: [TCP_RST] }],
}

/** Segments of established connections: neither the SYN of a new one nor a reset. */
export const tcpEstablished: Clause = {
  text: 'tcp flags & (syn|rst) == 0',
  expressions: [...tcp, transport(13, 1), { op: 'mask', mask: [TCP_SYN_RST] }, { op: 'equals', value: [0] }],
}

export const icmpUnreachable: Clause = {
  text: 'icmp type destination-unreachable',
  expressions: [
    ...ipv4,
    ...meta('l4proto', [IPPROTO_ICMP]),
    transport(0, 1),
    { op: 'equals', value: [ICMP_DEST_UNREACH] },
  ],
}

function icmpv6Type(type: number): Expression[] {
  return [...meta('l4proto', [IPPROTO_ICMPV6]), transport(0, 1), { op: 'equals', value: [type] }]
}

export const icmpv6Unreachable: Clause = {
  text: 'icmpv6 type destination-unreachable',
  expressions: [...ipv6, ...icmpv6Type(ICMPV6_DEST_UNREACH)],
}

const neighbourTypes = { 'nd-neighbor-solicit': NEIGHBOUR_SOLICITATION, 'nd-neighbor-advert': NEIGHBOUR_ADVERTISEMENT }
type NeighbourMessage = keyof typeof neighbourTypes

export function neighbour(message: NeighbourMessage): Clause {
  return { text: `icmpv6 type ${message}`, expressions: [...ipv6, ...icmpv6Type(neighbourTypes[message])] }
}

/** A neighbour message about one address: its target lies 8 bytes into the ICMPv6 header (RFC 4861, 4.3 and 4.4). */
export function neighbourAbout(message: NeighbourMessage, target: Buffer, layer: 'inet' | 'netdev'): Clause {
  const isIpv6 = layer === 'inet' ? ipv6 : meta('protocol', ETHERTYPE_IPV6)
  const isTarget: Expression[] = [transport(8, 16), { op: 'equals', value: [...target] }]
  return {
    text: `icmpv6 type ${message} @th,64,128 0x${target.toString('hex')}`,
    expressions: [...isIpv6, ...icmpv6Type(neighbourTypes[message]), ...isTarget],
  }
}

/** Sender or target protocol address of an ARP packet (RFC 826, for Ethernet and IPv4). */
export function arpIn(side: 'saddr' | 'daddr', set: string, layer: 'arp' | 'netdev'): Clause {
  const isArp = layer === 'arp' ? [] : meta('protocol', ETHERTYPE_ARP)
  return {
    text: `arp ${side} ip @${set}`,
    expressions: [...isArp, network(side === 'saddr' ? 14 : 24, 4), { op: 'lookup', set }],
  }
}

export const toThisHost: Clause = {
  text: 'fib daddr type local',
  expressions: [{ op: 'fib-type' }, { op: 'equals', value: [RTN_LOCAL, 0, 0, 0] }],
}

export function originalDestinationIn(family: 4 | 6, set: string): Clause {
  return {
    text: `ct original ${family === 4 ? 'ip' : 'ip6'} daddr @${set}`,
    expressions: [
      { op: 'original-destination', family },
      { op: 'lookup', set },
    ],
  }
}

export function countOn(counter: string): Clause {
  return { text: `counter name "${counter}"`, expressions: [{ op: 'count', counter }] }
}

export function reject(how: 'tcp-reset' | 'port-unreachable' | 'host-unreachable'): Clause {
  const text = how === 'tcp-reset' ? 'reject with tcp reset' : `reject with icmpx type ${how}`
  return { text, expressions: [{ op: 'reject', how }] }
}

export const accept: Clause = { text: 'accept', expressions: [{ op: 'accept' }] }
export const drop: Clause = { text: 'drop', expressions: [{ op: 'drop' }] }
export function jump(chain: string): Clause {
  return { text: `jump ${chain}`, expressions: [{ op: 'jump', chain }] }
}
