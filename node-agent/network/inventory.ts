import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { BondMode, HostNetwork, Nic, ObservedVswitch, Route, Vswitch } from '../../shared/hosts/network.ts'
import { parseAddress } from '../../shared/ip.ts'
import { type ExecResult, exec } from '../exec.ts'
import { type Addresses, type Link, parseAddresses, parseLinks, parseRoutes } from './ip-json.ts'
import { type KernelRoute, parseKernelRoutes, routeQuestion } from './kernel-routes.ts'
import { findManager } from './managers.ts'
import { type OvsBridge, ovsColumns, parseOvs } from './ovs-json.ts'

/** The host's networks as they are, from the kernel and Open vSwitch, with what we know of the vSwitches we made. */

/** Everything a look brings, so that what follows from it is pure. */
export interface NetworkFacts {
  links: readonly Link[]
  addresses: ReadonlyMap<string, Addresses>
  routes: readonly Route[]
  ovs: readonly OvsBridge[]
  /** By NIC: what sysfs adds. */
  hardware: (nic: string) => { driver: string; speedMbps: number | null }
  /** Our own record: types and NICs of what we made. */
  record: readonly Vswitch[]
  root: string
  unknown: string[]
}

/** ip(8) answers from the kernel's memory; a host with thousands of links takes a moment. */
const ipLimitMs = 5000
/** ovs-vsctl waits for ovs-vswitchd for ever unless told otherwise. */
const ovsTimeoutS = 5
const ovsLimitMs = (ovsTimeoutS + 2) * 1000

/** How a program is asked; tests ask in another network namespace. */
export type Ask = (argv: readonly string[], limitMs: number) => Promise<ExecResult>
const askHere: Ask = (argv, limitMs) => exec(argv, { limitMs })

export async function readNetwork(options: {
  record: readonly Vswitch[]
  /** Of the pair, with or without prefix: whichever host has them, they are the pair's. */
  vips: readonly string[]
  root?: string
  ask?: Ask
}): Promise<HostNetwork> {
  const { record, vips, root = '/', ask = askHere } = options
  const ip = async (...words: string[]): Promise<string> => textOf(await ask(['ip', '-json', ...words], ipLimitMs))
  const [links, addresses, v4, v6, ovs] = await Promise.all([
    ip('-details', 'link', 'show'),
    ip('address', 'show'),
    ip('-4', 'route', 'show'),
    ip('-6', 'route', 'show'),
    readOvs(ask),
  ])
  return networkOf({
    links: parseLinks(links),
    addresses: parseAddresses(addresses, vips),
    routes: [...parseRoutes(v4), ...parseRoutes(v6)],
    ovs: ovs.bridges,
    hardware: nic => hardwareOf(root, nic),
    record,
    root,
    unknown: ovs.why === null ? [] : [ovs.why],
  })
}

/** As they are put back: of all tables, with all that they have. */
export async function readRoutes(ask: Ask = askHere): Promise<KernelRoute[]> {
  const [v4, v6] = await Promise.all(
    (['-4', '-6'] as const).map(async family =>
      parseKernelRoutes(textOf(await ask(routeQuestion(family), ipLimitMs)), family),
    ),
  )
  return [...(v4 ?? []), ...(v6 ?? [])]
}

function textOf(result: ExecResult): string {
  if (!result.ok) throw new Error(`the host's networks could not be read: ${result.why}`)
  return result.stdout
}

/** A host without Open vSwitch has no such bridges; one whose database does not answer has unknown ones. */
async function readOvs(ask: Ask): Promise<{ bridges: OvsBridge[]; why: string | null }> {
  const tables = await Promise.all(
    (['Bridge', 'Port', 'Interface'] as const).map(table =>
      ask(
        ['ovs-vsctl', `--timeout=${ovsTimeoutS}`, '--format=json', `--columns=${ovsColumns[table]}`, 'list', table],
        ovsLimitMs,
      ),
    ),
  )
  const failed = tables.find(table => !table.ok)
  if (failed?.ok === false) {
    return {
      bridges: [],
      why: failed.why.includes('is not installed') ? null : `Open vSwitch does not answer: ${failed.why}`,
    }
  }
  const [Bridge = '', Port = '', Interface = ''] = tables.map(table => table.stdout)
  return { bridges: parseOvs({ Bridge, Port, Interface }), why: null }
}

/** What a bridge of Open vSwitch runs on: "" is the kernel's. @throws where the database does not answer */
export async function datapathOf(ask: Ask, bridge: string): Promise<string> {
  const argv = ['ovs-vsctl', `--timeout=${ovsTimeoutS}`, 'get', 'bridge', bridge, 'datapath_type']
  return textOf(await ask(argv, ovsLimitMs))
    .trim()
    .replaceAll('"', '')
}

/** Devices that are made, not plugged in: what is left is a NIC, or stands for one (veth, in a lab). */
const madeKinds = new Set(['bridge', 'bond', 'vlan', 'ifb', 'tun', 'vxlan', 'gretap', 'openvswitch', 'geneve', 'team'])

export function networkOf(facts: NetworkFacts): HostNetwork {
  const ovsOwn = new Set(facts.ovs.flatMap(bridge => bridge.ports.flatMap(internalNames)))
  const nics = facts.links
    .filter(link => link.name !== 'lo' && (link.kind === null || !madeKinds.has(link.kind)) && !ovsOwn.has(link.name))
    .map(link => nicOf(link, facts))
  const bridges = facts.links.filter(link => link.kind === 'bridge').map(link => bridgeOf(link, facts))
  const ovs = facts.ovs.map(bridge => ovsBridgeOf(bridge, facts))
  return {
    nics,
    vswitches: [...bridges, ...ovs].sort((x, y) => x.name.localeCompare(y.name)),
    routes: [...facts.routes],
    manager: findManager(facts.root),
    unknown: [...facts.unknown],
  }
}

const internalNames = (port: OvsBridge['ports'][number]): string[] =>
  port.interfaces.filter(one => one.type === 'internal').map(one => one.name)

function nicOf(link: Link, facts: NetworkFacts): Nic {
  const onOvs = facts.ovs.find(bridge => bridge.ports.some(port => port.interfaces.some(one => one.name === link.name)))
  return {
    name: link.name,
    mac: link.mac,
    carrier: link.up ? link.carrier : null,
    mtu: link.mtu,
    master: onOvs?.name ?? link.master,
    addresses: facts.addresses.get(link.name)?.all ?? [],
    ...facts.hardware(link.name),
  }
}

const bondModeOf: { [kernel: string]: BondMode } = {
  'active-backup': 'active-backup',
  'balance-rr': 'balance',
  'balance-xor': 'balance',
  'balance-slb': 'balance',
  'balance-tcp': 'lacp',
  '802.3ad': 'lacp',
}

function bridgeOf(link: Link, facts: NetworkFacts): ObservedVswitch {
  const known = facts.record.find(one => one.name === link.name && one.backend === 'bridge')
  const members = facts.links.filter(one => one.master === link.name)
  const vlans = members.filter(one => one.kind === 'vlan')
  const below = members.map(one => (one.kind === 'vlan' ? (facts.links.find(x => x.name === one.lower) ?? one) : one))
  const bond = below.find(one => one.kind === 'bond')
  const single = below.filter(one => one.kind === null || known?.nics.includes(one.name) === true)
  const nics = bond === undefined ? single : facts.links.filter(one => one.master === bond.name)
  const uplinks = new Set(
    [...vlans, ...below].filter(one => one === bond || single.includes(one) || one.kind === 'vlan'),
  )
  return {
    name: link.name,
    backend: 'bridge',
    description: known?.description ?? '',
    types: known?.types ?? [],
    vlan: vlans[0]?.vlan ?? null,
    nics: nics.map(one => one.name).sort(),
    bond: bond === undefined ? null : (bondModeOf[bond.bondMode ?? ''] ?? 'balance'),
    ...layerThree(link.name, facts),
    mtu: link.mtu,
    owned: known !== undefined,
    ports: members.filter(one => !uplinks.has(one)).map(one => one.name),
  }
}

function ovsBridgeOf(bridge: OvsBridge, facts: NetworkFacts): ObservedVswitch {
  const known = facts.record.find(one => one.name === bridge.name && one.backend === 'ovs')
  const own = bridge.ports.find(port => port.name === bridge.name)
  const isNic = (name: string): boolean =>
    known?.nics.includes(name) === true || facts.links.some(link => link.name === name && link.kind === null)
  const uplink = bridge.ports.find(port => port !== own && port.interfaces.some(one => isNic(one.name)))
  const link = facts.links.find(one => one.name === bridge.name)
  return {
    name: bridge.name,
    backend: 'ovs',
    description: known?.description ?? bridge.description,
    types: known?.types ?? [],
    vlan: own?.tag ?? null,
    nics: (uplink?.interfaces ?? []).map(one => one.name).sort(),
    bond: (uplink?.interfaces.length ?? 0) > 1 ? (bondModeOf[uplink?.bondMode ?? 'active-backup'] ?? 'balance') : null,
    ...layerThree(bridge.name, facts),
    mtu: link?.mtu ?? own?.interfaces[0]?.mtu ?? 1500,
    owned: known !== undefined,
    ports: bridge.ports.filter(port => port !== own && port !== uplink).map(port => port.name),
  }
}

/** A gateway is one that people set: a router's word comes and goes (RFC 4861), and one of several is no setting of ours. */
const layerThree = (
  device: string,
  facts: NetworkFacts,
): Pick<ObservedVswitch, 'addresses' | 'learned' | 'gateways'> => ({
  addresses: facts.addresses.get(device)?.all ?? [],
  learned: facts.addresses.get(device)?.learned ?? [],
  gateways: facts.routes
    .filter(route => route.destination === 'default' && route.device === device)
    .filter(route => route.protocol !== 'ra' && route.weight === null)
    .flatMap(route => route.gateway ?? [])
    .filter(gateway => parseAddress(gateway) !== null),
})

function hardwareOf(root: string, nic: string): { driver: string; speedMbps: number | null } {
  const base = join(root, 'sys/class/net', nic)
  const read = (name: string): string | null => {
    try {
      return readFileSync(join(base, name), 'utf8').trim()
    } catch {
      return null // the driver does not tell while the link is down
    }
  }
  const uevent = existsSync(join(base, 'device')) ? read('device/uevent') : null
  const speed = Number(read('speed') ?? Number.NaN)
  return {
    driver: /^DRIVER=(.+)$/m.exec(uevent ?? '')?.[1] ?? 'virtual',
    speedMbps: Number.isFinite(speed) && speed > 0 ? speed : null,
  }
}
