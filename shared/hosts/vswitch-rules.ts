import { contains, isLinkLocal, isSpecial, type Prefix, parseAddress, parsePrefix, sameAddress } from '../ip.ts'
import type { Fault } from './fault.ts'
import type { Nic, ObservedVswitch, Route, Vswitch } from './network.ts'

/** What a wish is held against. */
export interface HostContext {
  nics: readonly Nic[]
  /** All of this host, the one that is changed included. */
  vswitches: readonly ObservedVswitch[]
  /** Every address of the other host, without prefix. */
  peerAddresses: readonly string[]
  /** Virtual addresses of the pair, and the vSwitch each is on. */
  vips: readonly { address: string; vswitch: string }[]
  /** Of the main table. */
  routes: readonly Route[]
  /** NICs and vSwitches that heartbeats run over. */
  peerPathDevices: readonly string[]
}

/** IFNAMSIZ is 16 with the terminating zero (linux/if.h). */
const nameBytesMax = 15
/** Names that are keys of /proc/sys/net, or that ip(8) reads as words. */
const reservedNames = new Set(['lo', 'all', 'default', 'dev', 'type', 'name', 'group'])
const descriptionMax = 200
/** The kernel takes thousands; no switch does. */
const nicsMax = 8
const addressesMax = 16
/** RFC 791 asks hosts to take 576; RFC 8200 asks links for 1280 under IPv6; 9216 is what switches call jumbo. */
const mtuRange = { least: 576, leastV6: 1280, most: 9216 }

/** Every fault of a wish, or none. `null` for `before`: it is new. */
export function vswitchFaults(wish: Vswitch, context: HostContext): Fault[] {
  const others = context.vswitches.filter(one => one.name !== wish.name)
  const now = context.vswitches.find(one => one.name === wish.name) ?? null
  return [
    ...nameFaults(wish, context),
    ...backendFaults(wish, now),
    ...typeFaults(wish, { now, others }),
    ...linkFaults(wish, { ...context, now, others }),
    ...mtuFaults(wish),
    ...addressFaults(wish, { ...context, others, nics: context.nics.filter(nic => !wish.nics.includes(nic.name)) }),
    ...vipFaults(wish, { now, vips: context.vips }),
    ...gatewayFaults(wish, { others, routes: context.routes }),
  ]
}

/** The other back end is another device of that name: what hangs on this one would be cut off for good. */
function backendFaults({ backend }: Vswitch, now: ObservedVswitch | null): Fault[] {
  if (now === null || now.backend === backend || now.ports.length === 0) return []
  const rule = `must stay ${now.backend} while ${now.ports.slice(0, 8).join(', ')} are connected: disconnect them first`
  return [{ field: 'backend', value: backend, rule }]
}

function nameFaults({ name, description }: Vswitch, { nics }: Pick<HostContext, 'nics'>): Fault[] {
  const faults: Fault[] = []
  const fault = (rule: string) => faults.push({ field: 'name', value: name, rule })
  if (new TextEncoder().encode(name).length > nameBytesMax) fault(`must have at most ${nameBytesMax} bytes (IFNAMSIZ)`)
  else if (!/^[A-Za-z][A-Za-z0-9._-]*$/.test(name))
    fault('must begin with a letter and contain only letters, digits, ".", "_" and "-"')
  else if (reservedNames.has(name)) fault('must not be a name that the kernel or ip(8) uses for something else')
  else if (nics.some(nic => nic.name === name)) fault('must not be the name of a NIC of this host')
  if (description.length > descriptionMax || /\p{Cc}/u.test(description)) {
    const rule = `must have at most ${descriptionMax} characters, none of them control characters`
    faults.push({ field: 'description', value: description.slice(0, 40), rule })
  }
  return faults
}

/** At most one of these a host: two would not know which of them carries the traffic. */
const onceOnly = ['backup', 'migration'] as const

function typeFaults(
  { types }: Vswitch,
  { now, others }: { now: ObservedVswitch | null; others: readonly ObservedVswitch[] },
): Fault[] {
  const value = types.join(', ')
  const manages = (one: Pick<Vswitch, 'types'>): boolean => one.types.includes('management')
  if (now !== null && manages(now) && !manages({ types }) && !others.some(manages))
    return [{ field: 'types', value, rule: 'must keep management: this is the only management vSwitch of the host' }]
  if (types.length === 0) return [{ field: 'types', value, rule: 'must name at least one network type' }]
  if (new Set(types).size < types.length) return [{ field: 'types', value, rule: 'must name each network type once' }]
  return onceOnly.flatMap(type => {
    const holder = types.includes(type) ? others.find(other => other.types.includes(type)) : undefined
    return holder === undefined
      ? []
      : [{ field: 'types', value, rule: `a host has one ${type} network at most; ${holder.name} is it` }]
  })
}

function linkFaults(
  wish: Vswitch,
  context: Pick<HostContext, 'nics' | 'vips'> & { now: ObservedVswitch | null; others: readonly ObservedVswitch[] },
): Fault[] {
  const faults: Fault[] = []
  const { vlan, nics, bond } = wish
  const { now } = context
  if (vlan !== null && (!Number.isInteger(vlan) || vlan < 1 || vlan > 4094))
    faults.push({
      field: 'vlan',
      value: `${vlan}`,
      rule: 'must be a whole number from 1 to 4094 (IEEE 802.1Q), or null',
    })
  if (nics.length > nicsMax) faults.push({ field: 'nics', value: nics.join(', '), rule: `must be ${nicsMax} at most` })
  if (new Set(nics).size < nics.length)
    faults.push({ field: 'nics', value: nics.join(', '), rule: 'must name each NIC once' })
  if (nics.length > 1 && bond === null)
    faults.push({
      field: 'bond',
      value: 'null',
      rule: 'must say how several NICs share the traffic: active-backup, balance or lacp',
    })
  if (nics.length < 2 && bond !== null)
    faults.push({ field: 'bond', value: bond, rule: 'must be null with fewer than two NICs' })
  for (const name of nics) {
    const nic = context.nics.find(one => one.name === name)
    const user = context.others.find(other => other.nics.includes(name))
    const vip = context.vips.find(one => one.vswitch === name)
    if (nic === undefined) {
      const known = context.nics.map(one => one.name).join(', ') || 'none'
      faults.push({ field: 'nics', value: name, rule: `must be a NIC of this host; it has ${known}` })
    } else if (!/^[\w.+][\w.+-]*$/.test(name)) {
      const rule =
        'must have a name of letters, digits, ".", "_", "+" and "-" alone that does not begin with "-", for the programs and files that set it up'
      faults.push({ field: 'nics', value: name, rule })
    } else if (user !== undefined)
      faults.push({ field: 'nics', value: name, rule: `is used by the vSwitch ${user.name}` })
    else if (nic.master !== null && nic.master !== wish.name && now?.nics.includes(name) !== true) {
      // The kernel would take it out of there without a word, and nobody would put it back.
      faults.push({ field: 'nics', value: name, rule: `is a part of ${nic.master}: take it out of there first` })
    } else if (vip !== undefined) {
      const rule = `carries the virtual address ${vip.address}, which would not be reached behind a vSwitch: remove it first, and add it on the vSwitch then`
      faults.push({ field: 'nics', value: name, rule })
    }
  }
  return faults
}

function mtuFaults({ mtu, addresses }: Vswitch): Fault[] {
  const v6 = addresses.some(one => one.includes(':'))
  const least = v6 ? mtuRange.leastV6 : mtuRange.least
  return Number.isInteger(mtu) && mtu >= least && mtu <= mtuRange.most
    ? []
    : [
        {
          field: 'mtu',
          value: `${mtu}`,
          rule: `must be a whole number from ${least}${v6 ? ' (IPv6, RFC 8200)' : ''} to ${mtuRange.most}`,
        },
      ]
}

/** `nics`: those that are no part of the vSwitch. */
type Beside = Pick<HostContext, 'peerAddresses' | 'vips' | 'nics'> & { others: readonly ObservedVswitch[] }

function addressFaults(wish: Vswitch, context: Beside): Fault[] {
  if (wish.addresses.length > addressesMax)
    return [{ field: 'addresses', value: `${wish.addresses.length}`, rule: `must be ${addressesMax} at most` }]
  return wish.addresses.flatMap((value, index) => {
    const rule = addressRule(value, { ...context, earlier: wish.addresses.slice(0, index) })
    return rule === null ? [] : [{ field: 'addresses', value, rule }]
  })
}

function addressRule(text: string, context: Beside & { earlier: readonly string[] }): string | null {
  const prefix = parsePrefix(text)
  if (prefix === null) return 'must be an address with its prefix length; write it like "10.0.0.5/24"'
  if (isSpecial(prefix)) return 'must be a unicast address; loopback, link-local and multicast are not'
  const longest = prefix.family === 4 ? 31 : 127
  // One of a whole length has no neighbours: virtual addresses look like that, and are nobody's own.
  if (prefix.length < 1 || prefix.length > longest)
    return `must have a prefix length from 1 to ${longest}, that of its network`
  const place = placeInNetwork(prefix)
  if (place !== null) return place
  const is = (other: string): boolean => {
    const address = parseAddress(other.split('/')[0] ?? '')
    return address !== null && sameAddress(address, prefix)
  }
  if (context.earlier.some(is)) return 'must stand there once'
  if (context.peerAddresses.some(is)) return 'is an address of the other host'
  const nic = context.nics.find(one => one.addresses.some(is))
  if (nic !== undefined) return `is an address of the NIC ${nic.name}, which is no part of this vSwitch`
  if (context.vips.some(vip => is(vip.address))) return 'is a virtual address of the pair, which follows the primary'
  for (const other of context.others) {
    const same = other.addresses.find(one => overlaps(prefix, parsePrefix(one)))
    if (same !== undefined)
      return `lies in the network of ${other.name} (${same}): two vSwitches in one network would answer for each other`
  }
  return null
}

/** The virtual addresses on it have to lie where the host has an address, before the change as after it. */
function vipFaults(
  { name, addresses }: Vswitch,
  { now, vips }: Pick<HostContext, 'vips'> & { now: ObservedVswitch | null },
): Fault[] {
  // What it has from a router it has after the change too.
  const has = [...addresses, ...(now?.learned ?? [])]
  return vips
    .filter(vip => vip.vswitch === name && !liesIn(vip.address, has))
    .map(vip => {
      const rule = `must have one in the segment of the virtual address ${vip.address}, which is on it`
      return { field: 'addresses', value: addresses.join(', '), rule }
    })
}

function liesIn(vip: string, addresses: readonly string[]): boolean {
  const prefix = parsePrefix(vip)
  return (
    prefix !== null &&
    addresses.some(one => {
      const own = parsePrefix(one)
      return own !== null && own.length === prefix.length && contains(own, prefix) && !sameAddress(own, prefix)
    })
  )
}

/** The first and the last address of an IPv4 network are no host's; nor is the first of IPv6 (RFC 4291, 2.6.1). */
function placeInNetwork(prefix: Prefix): string | null {
  const bits = BigInt((prefix.family === 4 ? 32 : 128) - prefix.length)
  if (bits < 2n) return null
  const host = prefix.value & ((1n << bits) - 1n)
  if (host === 0n) return 'must be the address of a host; this is the address of the network'
  const last = (1n << bits) - 1n
  return prefix.family === 4 && host === last ? 'must be the address of a host; this is the broadcast address' : null
}

const overlaps = (one: Prefix, other: Prefix | null): boolean =>
  other !== null && (contains(one, other) || contains(other, one))

function gatewayFaults(
  wish: Vswitch,
  { others, routes }: { others: readonly ObservedVswitch[]; routes: readonly Route[] },
): Fault[] {
  const prefixes = wish.addresses.map(parsePrefix).filter(prefix => prefix !== null)
  return wish.gateways.flatMap((value, index) => {
    const fault = (rule: string): Fault[] => [{ field: 'gateways', value, rule }]
    const gateway = parseAddress(value)
    if (gateway === null) return fault('must be an address without a prefix; write it like "10.0.0.1"')
    const sameFamily = (text: string): boolean => parseAddress(text)?.family === gateway.family
    if (wish.gateways.slice(0, index).some(sameFamily)) return fault(`is a second gateway for IPv${gateway.family}`)
    const elsewhere = others.find(other => other.gateways.some(sameFamily))
    if (elsewhere !== undefined)
      return fault(`is a second default gateway for IPv${gateway.family}; ${elsewhere.name} has one`)
    const inPlace = routes.find(
      one => takesItsPlace(one, gateway.family) && one.device !== wish.name && !wish.nics.includes(one.device),
    )
    if (inPlace !== undefined)
      return fault(
        `would take the place of the default route via ${inPlace.gateway} on ${inPlace.device}: take that one away there first, or give it a metric`,
      )
    // What every IPv6 link has is reached where there is IPv6 at all.
    const near = isLinkLocal(gateway) && prefixes.some(prefix => prefix.family === 6)
    if (!near && !prefixes.some(prefix => contains(prefix, gateway)))
      return fault('must lie in the network of one of the addresses of this vSwitch')
    return prefixes.some(prefix => sameAddress(prefix, gateway)) ? fault('must not be an address of this host') : []
  })
}

/** The kernel has one default route of a family and a metric; ours have that of a route without one (ip-route(8)). */
const takesItsPlace = ({ destination, gateway, metric }: Route, family: 4 | 6): boolean =>
  destination === 'default' &&
  gateway !== null &&
  parseAddress(gateway)?.family === family &&
  (metric === null || (family === 6 && metric === defaultMetricV6))
/** IP6_RT_PRIO_USER (linux/ipv6_route.h). */
const defaultMetricV6 = 1024

/** Why a vSwitch can't be deleted, as a sentence, or null. */
export function deleteRefusal(name: string, context: HostContext): string | null {
  const found = context.vswitches.find(one => one.name === name)
  if (found === undefined) {
    return `there is no vSwitch ${name}; this host has ${context.vswitches.map(one => one.name).join(', ') || 'none'}`
  }
  const management = context.vswitches.filter(one => one.types.includes('management'))
  if (found.types.includes('management') && management.length === 1)
    return `${name} is the only management vSwitch of this host: make another one first`
  const vip = context.vips.find(one => one.vswitch === name)
  if (vip !== undefined) return `the virtual address ${vip.address} is on ${name}: move or remove it first`
  if (found.ports.length > 0) return `${name} is in use by ${found.ports.slice(0, 8).join(', ')}: disconnect them first`
  const carries = [name, ...found.nics].find(device => context.peerPathDevices.includes(device))
  return carries === undefined
    ? null
    : `heartbeats between the hosts run over ${carries}: give the pair another path first`
}

/** The service VIP has to lie where both hosts have an address on that vSwitch. */
export function serviceVipFaults(
  vip: { address: string; vswitch: string },
  hosts: Record<'a' | 'b', Pick<ObservedVswitch, 'addresses'> | null>,
): Fault[] {
  const prefix = parsePrefix(vip.address)
  const fault = (rule: string): Fault => ({ field: 'address', value: vip.address, rule })
  if (prefix === null) return [fault('must be an address with its prefix length; write it like "10.0.0.100/24"')]
  if (isSpecial(prefix)) return [fault('must be a unicast address; loopback, link-local and multicast are not')]
  const place = placeInNetwork(prefix)
  if (place !== null) return [fault(place)]
  const outside = (['a', 'b'] as const).flatMap(host => {
    const vswitch = hosts[host]
    if (vswitch === null) return [`host ${host} has no vSwitch ${vip.vswitch}`]
    return liesIn(vip.address, vswitch.addresses)
      ? []
      : [`host ${host} has ${vswitch.addresses.join(', ') || 'no address'} on ${vip.vswitch}`]
  })
  return outside.length === 0
    ? []
    : [fault(`must lie in the segment of both hosts' addresses on that vSwitch: ${outside.join('; ')}`)]
}
