import { networkInterfaces } from 'node:os'
import { parseAddress, sameAddress } from '../../shared/ip.ts'
import type { RouteSocket } from '../kernel/rtnetlink.ts'

/** "10.0.0.100/24" without its length. */
export const addressOf = (prefix: string): string => prefix.split('/')[0] ?? prefix
export const lengthOf = (prefix: string): number => Number(prefix.split('/')[1])

/** Every interface of this network namespace, whether its link runs or not. */
export function interfaceNames(): string[] {
  return Object.keys(networkInterfaces())
}

/** The interface that has the address; null where none has it (yet). */
export function interfaceHolding(
  route: Pick<RouteSocket, 'addresses'>,
  address: string,
  names = interfaceNames(),
): string | null {
  const wanted = parseAddress(address)
  if (wanted === null) return null
  const holds = (iface: string): boolean =>
    route.addresses(iface).some(held => {
      const parsed = parseAddress(held.address)
      return parsed !== null && sameAddress(parsed, wanted)
    })
  return names.find(holds) ?? null
}
