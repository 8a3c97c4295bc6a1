/**
 * Names and addresses of a lab. Every lab uses the same addresses: each has network namespaces of its own, so two labs
 * on one machine cannot meet.
 */

export type HostName = 'a' | 'b'
export type Member = HostName | 'w' | 'c'
export type LinkName = 'lan' | 'peer'

export const HOSTS: readonly HostName[] = ['a', 'b']
export const MEMBERS: readonly Member[] = ['a', 'b', 'w', 'c']

/** `lan` joins all members; `peer` is the second, direct link between the two hosts. */
export const LINK_MEMBERS: { readonly [link in LinkName]: readonly Member[] } = { lan: MEMBERS, peer: HOSTS }

export const LAN_PREFIX = { v4: 24, v6: 64 }
/** Inside a member's namespace. */
export const INTERFACE: { readonly [link in LinkName]: string } = { lan: 'lan0', peer: 'pl0' }

const NUMBER: { readonly [member in Member]: number } = { a: 1, b: 2, w: 3, c: 4 }

export const VIP = { v4: '10.77.0.100', v6: 'fd77::100' }
/** An address on the bridge itself, for what wants a gateway that answers ARP. */
export const GATEWAY = { v4: '10.77.0.254', v6: 'fd77::fe' }

export const DATABASE_PORT = 5432
export const WEB_PORT = 8080
export const PEER_PORT = 7400
/** Of the files, between the two hosts. */
export const SYNC_PORT = 7401
export const WITNESS_PORT = 7443

export function addressOf(member: Member, link: LinkName = 'lan'): { v4: string; v6: string } {
  const number = NUMBER[member]
  return link === 'lan'
    ? { v4: `10.77.0.${number}`, v6: `fd77::${number}` }
    : { v4: `10.77.1.${number}`, v6: `fd77:1::${number}` }
}

/** Fixed like a real card's: it survives a power cycle, and the slow wire knows frames by it. */
export function hardwareAddress(member: Member, link: LinkName): string {
  return `02:75:73:00:0${link === 'lan' ? 0 : 1}:0${NUMBER[member]}`
}

/** The fabric's end of a member's link, in the namespace that holds the bridges. */
export function portName(member: Member, link: LinkName): string {
  return `${member}-${link}`
}

/** Bridges in the fabric's namespace: the switch, and the cable between the hosts (a bridge too, so that it can be cut). */
export const BRIDGE: { readonly [link in LinkName]: string } = { lan: 'br0', peer: 'br1' }

/** Longest lab name: it is part of directory, namespace and control group names and must be plain. */
const NAME_PATTERN = /^[a-z][a-z0-9-]{0,15}$/

export interface LabPaths {
  /** State file, sockets, logs: gone after `down`. */
  runDir: string
  /** What a disk holds; survives a power cut, gone after `down`. */
  diskDir: string
}

export function labPaths(lab: string): LabPaths {
  if (!NAME_PATTERN.test(lab)) {
    throw new Error(
      `The lab name "${lab}" is not usable: take up to 16 lower-case letters, digits and dashes, a letter first.`,
    )
  }
  return { runDir: `/run/understudy-lab/${lab}`, diskDir: `/var/lib/understudy-lab/${lab}` }
}

export function namespaceName(lab: string, member: Member | 'net'): string {
  return `understudy-${lab}-${member}`
}

export function namespacePath(lab: string, member: Member | 'net'): string {
  return `/run/netns/${namespaceName(lab, member)}`
}
