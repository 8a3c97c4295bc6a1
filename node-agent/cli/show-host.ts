import type { HostNetwork, Nic, ObservedVswitch, Route } from '../../shared/hosts/network.ts'
import type { StorageDevice, StorageInventory } from '../../shared/hosts/storage.ts'
import type { DiscoveredTarget } from '../storage/discovery.ts'
import type { ScanResult } from '../storage/scan.ts'

/** A host's networks and storage as a person reads them. */

export function showNetwork(network: HostNetwork): string {
  return [
    ...table(
      ['vSwitch', 'types', 'VLAN', 'NICs', 'addresses', 'MTU', 'back end', 'description'],
      network.vswitches.map(vswitchRow),
      'no vSwitches',
    ),
    '',
    ...table(
      ['NIC', 'link', 'speed', 'MTU', 'part of', 'addresses', 'driver', 'MAC'],
      network.nics.map(nicRow),
      'no NICs',
    ),
    '',
    ...table(
      ['route', 'gateway', 'on', 'metric', 'by'],
      network.routes.filter(one => one.gateway !== null).map(routeRow),
      'no routes through a gateway',
    ),
    '',
    `The network is brought up at boot by: ${network.manager}`,
    ...network.unknown.map(why => `NOT KNOWN: ${why}`),
    '',
  ].join('\n')
}

const list = (words: readonly string[]): string => words.join(',') || '-'

const vswitchRow = (one: ObservedVswitch): string[] => [
  one.name,
  list(one.types),
  one.vlan === null ? '-' : `${one.vlan}`,
  `${list(one.nics)}${one.bond === null ? '' : ` (${one.bond})`}`,
  list(one.addresses.map(address => `${address}${one.learned.includes(address) ? ' (learned)' : ''}`)),
  `${one.mtu}`,
  `${one.backend}${one.owned ? '' : ', not made by us'}`,
  one.description,
]

const nicRow = (nic: Nic): string[] => [
  nic.name,
  nic.carrier === null ? 'down' : nic.carrier ? 'up' : 'NO CABLE',
  nic.speedMbps === null ? '-' : `${nic.speedMbps} Mbit/s`,
  `${nic.mtu}`,
  nic.master ?? '-',
  list(nic.addresses),
  nic.driver,
  nic.mac,
]

const routeRow = ({ destination, gateway, device, metric, protocol, weight }: Route): string[] => [
  destination,
  `${gateway ?? '-'}${weight === null ? '' : ` (weight ${weight})`}`,
  device,
  metric === null ? '-' : `${metric}`,
  protocol ?? '-',
]

export function showStorage(inventory: StorageInventory & { truncated: number }): string {
  return [
    ...table(
      ['adapter', 'kind', 'state', 'speed', 'identifier', 'model', 'targets'],
      inventory.adapters.map(one => [
        one.name,
        one.kind,
        one.state,
        one.speed ?? '-',
        one.identifier ?? '-',
        `${one.model} (${one.driver})`,
        `${one.targets.length}`,
      ]),
      'no storage adapters',
    ),
    '',
    ...table(
      ['device', 'LUN', 'size', 'paths up', 'WWID', 'model', 'used by'],
      inventory.devices.map(deviceRow),
      'no devices',
    ),
    ...(inventory.truncated > 0 ? [`and ${inventory.truncated} more devices, which are not listed`] : []),
    '',
  ].join('\n')
}

function deviceRow(device: StorageDevice): string[] {
  const up = device.paths.filter(path => path.up).length
  return [
    device.name,
    device.lun === null ? '-' : `${device.lun}`,
    size(device.sizeBytes),
    `${up} of ${device.paths.length}${device.multipathPolicy === null ? '' : `, ${device.multipathPolicy}`}`,
    device.wwid ?? '-',
    `${device.vendor} ${device.model}`,
    device.usedBy.join('; ') || '-',
  ]
}

export const showTargets = (targets: readonly DiscoveredTarget[]): string =>
  targets.map(target => `${plain(target.portal)}  ${plain(target.name)}\n`).join('') || 'it offers no target\n'

export function showScan({ adapters, change }: ScanResult): string {
  const news = [
    ...change.added.map(name => `added    ${plain(name)}`),
    ...change.removed.map(name => `removed  ${plain(name)}`),
    ...change.resized.map(one => `resized  ${plain(one.name)}: ${size(one.fromBytes)} → ${size(one.toBytes)}`),
  ]
  return [
    ...adapters.map(one => `${one.adapter}: ${one.ok ? `scanned in ${one.ms} ms` : `NOT scanned: ${one.why}`}`),
    ...(news.length === 0 ? ['no device was added, removed or resized'] : news),
    '',
  ].join('\n')
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

export function size(bytes: number): string {
  const power = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10))
  const value = bytes / 1024 ** power
  return `${value >= 100 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1)} ${units[power]}`
}

/** What a device or a portal calls itself is not to move the cursor. */
const plain = (text: string): string => text.replaceAll(/\p{Cc}/gu, '?')

function table(head: readonly string[], rows: readonly (readonly string[])[], empty: string): string[] {
  if (rows.length === 0) return [empty]
  const all = [head, ...rows.map(row => row.map(plain))]
  const widths = head.map((_, column) => Math.max(...all.map(row => row[column]?.length ?? 0)))
  return all.map(row =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  )
}
