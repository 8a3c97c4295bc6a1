import { parseAddress } from '../ip.ts'
import type { Fault } from './fault.ts'

/** Where an iSCSI target is asked for by default (RFC 3720, 2.2). */
export const iscsiPort = 3260

const portalRule = `must be an IPv4 or IPv6 address with an optional port; write it like "10.0.0.9:${iscsiPort}" or "[fd00::9]:${iscsiPort}"`

export const portalFault = (text: string): Fault | null =>
  parsePortal(text) === null ? { field: 'portal', value: text, rule: portalRule } : null

/** With the port in full; null where it is none. */
export function parsePortal(text: string): string | null {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+|[^[\]]*:[^[\]]*:[^[\]]*))(?::(\d{1,5}))?$/.exec(text)
  const host = match?.[1] ?? match?.[2] ?? ''
  const port = match?.[3] === undefined ? iscsiPort : Number(match[3])
  const address = parseAddress(host)
  if (address === null || port < 1 || port > 65_535) return null
  return address.family === 6 ? `[${host}]:${port}` : `${host}:${port}`
}
