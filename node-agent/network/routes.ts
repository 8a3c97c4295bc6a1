import { type HostNetwork, type ObservedVswitch, setAddresses, type Vswitch } from '../../shared/hosts/network.ts'
import { contains, isLinkLocal, parseAddress, parsePrefix } from '../../shared/ip.ts'
import { familyOf, ip } from './commands.ts'
import { type Hop, type KernelRoute, routeCommand, showRoute } from './kernel-routes.ts'
import type { Step } from './plan.ts'

/**
 * What a change of a vSwitch does to routes, of any table. With its last address a device loses all of them, those that
 * were not to change too; a NIC in a bridge sends nothing by itself; and a route goes with the source address that it has.
 * So what goes on is made again, and what was there is put back on the way back, as it was.
 */
export interface Ends {
  from: ObservedVswitch | null
  to: Vswitch | null
  host: Pick<HostNetwork, 'nics'>
  routes: readonly KernelRoute[]
}

export function routeSteps(ends: Ends): { before: Step[]; after: Step[] } {
  const name = nameOf(ends)
  const atStake = routesAtStake(ends)
  const added = newGateways(ends)
  return {
    // Backwards they are put back in this order turned round: what others lead through first.
    before: [...atStake].sort(nearestLast).map(route => ({
      // Of the others nothing is known but that the kernel may take them.
      argv: isTaken(route, ends) ? routeCommand('del', route) : null,
      undo: routeCommand(makes(route, ends), route),
    })),
    after: [
      ...added.map(gateway => ({
        argv: ip(familyOf(gateway), 'route', 'replace', 'default', 'via', gateway, 'dev', name),
        undo: ip(familyOf(gateway), 'route', 'del', 'default', 'via', gateway, 'dev', name),
      })),
      ...[...atStake]
        .sort(nearestLast)
        .reverse()
        .flatMap(route => {
          const goingOn = onwards(route, ends)
          if (goingOn === null) return []
          // What is as it was is put back as it was, and not taken away before that.
          const undo = isSame(goingOn, route) ? null : routeCommand('del', goingOn)
          return [{ argv: routeCommand(makes(route, ends), goingOn), undo }]
        }),
    ],
  }
}

/** Why the change can't be made: what it would lose could not be put back. */
export function routesRefusal(ends: Ends): string | null {
  const found = routesAtStake(ends).find(route => route.unrepeatable !== null)
  if (found === undefined) return null
  const devices = [...new Set(found.hops.map(hop => hop.device))].join(' and ')
  return `the route ${showRoute(found)} on ${devices} would be lost with this change and can't be put back, since "${found.unrepeatable}" of it is not known here: take it away first, and set it again after the change`
}

/** Of routes that are no part of a vSwitch, for people; '' where nothing becomes of any. */
export function routesTold(ends: Ends): string {
  const told: { [what: string]: string[] } = {}
  for (const route of routesAtStake(ends)) {
    const goingOn = onwards(route, ends)
    const what = whatBecomes(route, goingOn, ends)
    if (what === null) continue
    const devices = [...new Set(route.hops.map(hop => hop.device))].join(' and ')
    told[what] = [...(told[what] ?? []), `${showRoute(route)}, which was on ${devices}`]
  }
  return Object.entries(told)
    .map(([what, routes]) => `; ${what}: ${routes.join('; ')}`)
    .join('')
}

function whatBecomes(route: KernelRoute, goingOn: KernelRoute | null, ends: Ends): string | null {
  const isWished = isGateway(route) && ends.to?.gateways.includes(route.hops[0]?.gateway ?? '') === true
  if (goingOn === null) return isWished ? null : 'is no more'
  if (goingOn.hops.length < route.hops.length) return 'goes on over what is left of it'
  return isSame(goingOn, route) ? null : `goes over ${nameOf(ends)} now, until the next boot`
}

const nameOf = ({ from, to }: Pick<Ends, 'from' | 'to'>): string => (to ?? from)?.name ?? ''
const newNics = ({ from, to }: Ends): string[] => (to?.nics ?? []).filter(nic => from?.nics.includes(nic) !== true)
const newGateways = ({ from, to }: Ends): string[] =>
  (to?.gateways ?? []).filter(gateway => from?.gateways.includes(gateway) !== true)
const hostPart = (address: string): string => address.split('/')[0] ?? ''

function routesAtStake(ends: Ends): KernelRoute[] {
  const lost = lostAddresses(ends)
  return ends.routes.filter(
    route =>
      route.hops.some(hop => isOnLost(hop, ends)) ||
      (route.source !== null && lost.has(route.source)) ||
      isOutdone(route, ends) ||
      isUnwanted(route, ends),
  )
}

/** Those that leave a device, if only to come back on another one. */
function lostAddresses(ends: Ends): Set<string> {
  const { from, to, host } = ends
  const ofNics = newNics(ends).flatMap(nic => host.nics.find(one => one.name === nic)?.addresses ?? [])
  const own = (from === null ? [] : setAddresses(from)).filter(
    address => leaves(from, to) || to?.addresses.includes(address) !== true,
  )
  return new Set([...ofNics, ...own].map(hostPart))
}

/** The device itself goes: the vSwitch, or its back end. */
const leaves = (from: ObservedVswitch | null, to: Vswitch | null): boolean =>
  from !== null && (to === null || from.backend !== to.backend)

/** On a NIC that the vSwitch takes, or on the vSwitch itself where it goes or loses an address. */
function isOnLost({ device }: Hop, ends: Ends): boolean {
  const { from, to } = ends
  if (newNics(ends).includes(device)) return true
  if (device !== nameOf(ends)) return false
  return (
    from === null || leaves(from, to) || setAddresses(from).some(address => to?.addresses.includes(address) !== true)
  )
}

/** A default route of the main table, as people set it: what a vSwitch calls its gateway. */
const isGateway = ({ destination, table, hops, protocol }: KernelRoute): boolean =>
  destination === 'default' && table === null && protocol !== 'ra' && hops.length === 1 && hops[0]?.via.length === 2

/** The kernel keeps one default route of a metric, so a new one takes the place of another device's. */
function isOutdone(route: KernelRoute, ends: Ends): boolean {
  const { family, destination, table, metric } = route
  const plain = metric === null || (family === '-6' && metric === defaultMetricV6)
  if (destination !== 'default' || table !== null || !plain) return false
  return newGateways(ends).some(gateway => familyOf(gateway) === family)
}
/** IP6_RT_PRIO_USER (linux/ipv6_route.h). */
const defaultMetricV6 = '1024'

/** A gateway that the vSwitch is to have no longer. */
const isUnwanted = (route: KernelRoute, { from, to }: Ends): boolean =>
  isGateway(route) &&
  from !== null &&
  route.hops[0]?.device === from.name &&
  to?.gateways.includes(route.hops[0]?.gateway ?? '') !== true

/** The route as it is after the change; null: it is no more, or has become one of the vSwitch's gateways. */
function onwards(route: KernelRoute, ends: Ends): KernelRoute | null {
  const { to } = ends
  if (isOutdone(route, ends)) return null
  if (isGateway(route)) {
    const [hop] = route.hops
    return hop?.device === to?.name && to?.gateways.includes(hop?.gateway ?? '') === true ? route : null
  }
  const { source } = route
  const has = to === null ? [] : [...to.addresses, ...(ends.from?.learned ?? [])]
  if (source !== null && lostAddresses(ends).has(source) && !has.map(hostPart).includes(source)) return null
  const hops = route.hops.flatMap(hop => {
    if (!isOnLost(hop, ends)) return [hop]
    return to !== null && isReached(hop, route, has) ? [{ ...hop, device: to.name }] : []
  })
  return hops.length === 0 ? null : { ...route, hops }
}

function isReached({ gateway, words }: Hop, { family }: KernelRoute, addresses: readonly string[]): boolean {
  const own = addresses.filter(address => familyOf(address) === family)
  if (gateway === null || words.includes('onlink')) return own.length > 0
  const neighbour = parseAddress(gateway)
  if (neighbour === null) return false
  if (isLinkLocal(neighbour)) return own.length > 0
  return own.some(address => {
    const segment = parsePrefix(address)
    return segment !== null && contains(segment, neighbour)
  })
}

/** It is not left to the kernel, which may keep it, or let it stand in the way of what comes. */
function isTaken(route: KernelRoute, ends: Ends): boolean {
  const goingOn = onwards(route, ends)
  return goingOn === null || !isSame(goingOn, route) || hasRival(route, ends)
}

const isSame = (one: KernelRoute, other: KernelRoute): boolean =>
  one.hops.length === other.hops.length && one.hops.every((hop, index) => hop.device === other.hops[index]?.device)

/** Another one to the same destination with the same metric: "replace" would take that one's place. */
const hasRival = (route: KernelRoute, { routes }: Ends): boolean =>
  routes.some(
    other =>
      other !== route &&
      other.family === route.family &&
      other.destination === route.destination &&
      other.table === route.table &&
      other.metric === route.metric,
  )
const makes = (route: KernelRoute, ends: Ends): 'replace' | 'append' => (hasRival(route, ends) ? 'append' : 'replace')

/** What is on the link itself comes before what may be reached through it. */
const nearestLast = (one: KernelRoute, other: KernelRoute): number => nearness(one) - nearness(other)
const nearness = ({ hops }: KernelRoute): number => (hops.every(hop => hop.gateway === null) ? 1 : 0)
