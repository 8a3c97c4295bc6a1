import type { HostNetwork, ObservedVswitch, Route, Vswitch } from '../../shared/hosts/network.ts'
import { contains, parseAddress, parsePrefix } from '../../shared/ip.ts'
import type { Step } from './plan.ts'

/**
 * What a change of a vSwitch does to routes through a gateway. With its last address a device loses all of them, those that
 * were not to change too, and a NIC in a bridge sends nothing by its own: so what goes on is made again, and what was there
 * is put back on the way back, as it was.
 */
interface Ends {
  from: ObservedVswitch | null
  to: Vswitch | null
  host: Pick<HostNetwork, 'routes'>
}
type Via = Route & { gateway: string }

export function routeSteps({ from, to, host }: Ends): { before: Step[]; after: Step[] } {
  const name = (to ?? from)?.name ?? ''
  const routes = routesAtStake({ from, to, host })
  const gateways = (to?.gateways ?? []).filter(gateway => from?.gateways.includes(gateway) !== true)
  const kept = routes.filter(route => route.device === name && goesOn(route, to))
  const carried = routes.filter(route => isCarried(route, to))
  return {
    before: routes.map(route => ({
      // Of the others nothing is known but that they may go: the kernel takes them.
      argv: carried.includes(route) || isReplaced(route, to) ? routeCommand('del', route) : null,
      undo: routeCommand('replace', route),
    })),
    after: [
      ...gateways.map(gateway => ({
        argv: ip(familyOf(gateway), 'route', 'replace', 'default', 'via', gateway, 'dev', name),
        undo: ip(familyOf(gateway), 'route', 'del', 'default', 'via', gateway, 'dev', name),
      })),
      ...kept.map(route => ({ argv: routeCommand('replace', route), undo: null })),
      ...carried
        .map(route => ({ ...route, device: name }))
        .map(route => ({ argv: routeCommand('replace', route), undo: routeCommand('del', route) })),
    ],
  }
}

/** Of routes that are no part of a vSwitch, for people; '' where nothing becomes of any. */
export function routesTold({ from, to, host }: Ends): string {
  const shown = (routes: readonly Via[]): string =>
    routes.map(one => `${one.destination} via ${one.gateway}, which was on ${one.device}`).join('; ')
  const routes = routesAtStake({ from, to, host })
  const carried = routes.filter(route => isCarried(route, to))
  const gone = routes.filter(route => !goesOn(route, to))
  return [
    carried.length > 0 ? `; goes over ${to?.name} now, until the next boot: ${shown(carried)}` : '',
    gone.length > 0 ? `; is no more: ${shown(gone)}` : '',
  ].join('')
}

/** On a NIC that the vSwitch takes, or on the vSwitch itself where it loses an address or this very gateway. */
function routesAtStake({ from, to, host }: Ends): Via[] {
  const name = (to ?? from)?.name
  const newNics = (to?.nics ?? []).filter(nic => from?.nics.includes(nic) !== true)
  const loses = to === null || from === null || from.addresses.some(address => !to.addresses.includes(address))
  return host.routes
    .filter((route): route is Via => route.gateway !== null)
    .filter(route => newNics.includes(route.device) || (route.device === name && (loses || isReplaced(route, to))))
}

/** Whether the vSwitch is to have it: a default route as its wish says, another one where it reaches the gateway. */
function goesOn({ destination, gateway }: Via, to: Vswitch | null): boolean {
  if (to === null) return false
  if (destination === 'default') return to.gateways.includes(gateway)
  const neighbour = parseAddress(gateway)
  return to.addresses.some(address => {
    const segment = parsePrefix(address)
    return segment !== null && neighbour !== null && contains(segment, neighbour)
  })
}

/** From a NIC to its vSwitch; a default route is one of the vSwitch's own gateways. */
const isCarried = (route: Via, to: Vswitch | null): boolean =>
  route.device !== to?.name && route.destination !== 'default' && goesOn(route, to)

/** A default route that is the vSwitch's no longer, or was a NIC's. */
const isReplaced = (route: Via, to: Vswitch | null): boolean =>
  route.destination === 'default' && !(route.device === to?.name && goesOn(route, to))

function routeCommand(verb: 'replace' | 'del', { destination, gateway, device, metric, protocol }: Via): string[] {
  const words = [destination, 'via', gateway, 'dev', device, ...(metric === null ? [] : ['metric', `${metric}`])]
  const made = verb === 'replace' && protocol !== null ? ['proto', protocol] : []
  return ip(familyOf(gateway), 'route', verb, ...words, ...made)
}

const ip = (...words: string[]): string[] => ['ip', ...words]

const familyOf = (address: string): string => (address.includes(':') ? '-6' : '-4')
