import { z } from 'zod'
import type { Route } from '../../shared/hosts/network.ts'
import { parseAddress } from '../../shared/ip.ts'

/** What `ip -json` prints (ip(8)), as far as it is used here; what else it prints is nobody's business. */

export interface Link {
  name: string
  mac: string
  up: boolean
  /** The cable, as the kernel knows it while the link is up. */
  carrier: boolean
  mtu: number
  master: string | null
  /** bridge, bond, vlan, veth, …; null: a device of its own. */
  kind: string | null
  /** The device a VLAN is on. */
  lower: string | null
  vlan: number | null
  bondMode: string | null
}

const linkSchema = z.array(
  z.object({
    ifname: z.string().optional(),
    address: z.string().optional(),
    flags: z.array(z.string()).default([]),
    mtu: z.number().default(0),
    master: z.string().optional(),
    link: z.string().nullish(),
    link_type: z.string().default(''),
    linkinfo: z
      .object({
        info_kind: z.string().optional(),
        info_data: z.object({ id: z.number().optional(), mode: z.string().optional() }).optional(),
      })
      .optional(),
  }),
)

/** Ethernet only: what else there is can't be part of a vSwitch. */
export function parseLinks(text: string): Link[] {
  return linkSchema
    .parse(JSON.parse(text === '' ? '[]' : text))
    .filter(one => one.link_type === 'ether' && one.ifname !== undefined)
    .map(one => ({
      name: one.ifname!,
      mac: one.address ?? '',
      up: one.flags.includes('UP'),
      carrier: one.flags.includes('LOWER_UP'),
      mtu: one.mtu,
      master: one.master ?? null,
      kind: one.linkinfo?.info_kind ?? null,
      lower: one.link ?? null,
      vlan: one.linkinfo?.info_kind === 'vlan' ? (one.linkinfo.info_data?.id ?? null) : null,
      bondMode: one.linkinfo?.info_kind === 'bond' ? (one.linkinfo.info_data?.mode ?? null) : null,
    }))
}

const addressSchema = z.array(
  z.object({
    ifname: z.string().optional(),
    addr_info: z
      .array(
        z.object({
          local: z.string().optional(),
          prefixlen: z.number().optional(),
          scope: z.string().optional(),
          dynamic: z.boolean().default(false),
        }),
      )
      .default([]),
  }),
)

/** Of one device. */
export interface Addresses {
  all: string[]
  /** Given for a time: by a router (SLAAC) or a DHCP server. */
  learned: string[]
}

/** Global addresses by device, with their prefixes. A virtual one, or one of a whole length, is no address of the host. */
export function parseAddresses(text: string, virtual: readonly string[] = []): Map<string, Addresses> {
  const isVirtual = new Set(virtual.map(keyOf))
  const found = new Map<string, Addresses>()
  for (const { ifname, addr_info } of addressSchema.parse(JSON.parse(text === '' ? '[]' : text))) {
    if (ifname === undefined) continue
    const own = addr_info.filter(
      one => one.scope === 'global' && one.local !== undefined && !isVirtual.has(keyOf(one.local)),
    )
    const shown = own
      .map(one => ({ text: `${one.local}/${one.prefixlen}`, dynamic: one.dynamic }))
      .filter(one => !/\/(32|128)$/.test(one.text))
    found.set(ifname, {
      all: shown.map(one => one.text),
      learned: shown.filter(one => one.dynamic).map(one => one.text),
    })
  }
  return found
}

/** One address can be written in several ways (RFC 5952). */
function keyOf(text: string): string {
  const parsed = parseAddress(text.split('/')[0] ?? '')
  return parsed === null ? text : `${parsed.family} ${parsed.value}`
}

/** An IPv4 route may lead through a neighbour that has IPv6 (RFC 5549). */
const hopSchema = z.object({
  gateway: z.string().optional(),
  via: z.object({ family: z.string(), host: z.string() }).optional(),
  dev: z.string().optional(),
})
const routeSchema = z.array(
  hopSchema.extend({
    dst: z.string(),
    metric: z.number().optional(),
    protocol: z.string().optional(),
    nexthops: z.array(hopSchema.extend({ weight: z.number().default(1) })).optional(),
  }),
)

/** Of the main table: those over a device, one for each next hop. */
export function parseRoutes(text: string): Route[] {
  return routeSchema.parse(JSON.parse(text === '' ? '[]' : text)).flatMap(route => {
    const { dst, metric = null, protocol = null, nexthops = [{ ...route, weight: null }] } = route
    return nexthops.flatMap(({ gateway, via, dev, weight }) => {
      if (dev === undefined) return []
      const neighbour = gateway ?? (via === undefined ? null : `${via.family} ${via.host}`)
      return [{ destination: dst, gateway: neighbour, device: dev, metric, protocol, weight }]
    })
  })
}
