import type { Fault } from './fault.ts'
import type { Difference } from './network.ts'

/** What a host has for storage, as it is reported: by the agent, shown by the CLI and the control plane. */

export type AdapterKind = 'scsi' | 'sas' | 'iscsi' | 'fc' | 'fcoe' | 'nvme'

export interface StorageAdapter {
  /** What the kernel calls it ("host3", "nvme0"); "iscsi" for the software initiator, whose hosts come and go with sessions. */
  name: string
  kind: AdapterKind
  driver: string
  model: string
  /** IQN, WWPN, SAS address or NQN; null where the adapter has none, or does not tell. */
  identifier: string | null
  /** The word of the kernel: running, Online, Linkdown, live, … */
  state: string
  /** As the kernel says it, with its unit; null where it does not tell. */
  speed: string | null
  targets: StorageTarget[]
  /** The kernel's SCSI hosts behind it. */
  hosts: string[]
}

export interface StorageTarget {
  /** WWPN, IQN, SAS address or NQN of the other side. */
  identifier: string
  state: string
}

export interface StorageDevice {
  /** The disk, or the multipath map over several paths to it. */
  name: string
  /** What is the same on every host that sees it; null: the device has no identity of its own, so none can be compared. */
  wwid: string | null
  lun: number | null
  sizeBytes: number
  vendor: string
  model: string
  paths: StoragePath[]
  /** null: no multipath map over it. */
  multipathPolicy: string | null
  /** Mount points, swap, volume groups, maps and arrays that are on it. */
  usedBy: string[]
}

export interface StoragePath {
  /** The block device of this path. */
  name: string
  adapter: string
  /** host:channel:target:lun; null for NVMe. */
  address: string | null
  state: string
  up: boolean
}

export interface StorageInventory {
  adapters: StorageAdapter[]
  devices: StorageDevice[]
}

export interface DeviceChange {
  added: string[]
  removed: string[]
  resized: { name: string; fromBytes: number; toBytes: number }[]
}

/** A device's identity over time on one host: its WWID, or its name where it has none. */
const keyOf = (device: StorageDevice): string => device.wwid ?? device.name

/** What a scan brought. */
export function deviceChange(before: readonly StorageDevice[], after: readonly StorageDevice[]): DeviceChange {
  const was = new Map(before.map(device => [keyOf(device), device]))
  const is = new Map(after.map(device => [keyOf(device), device]))
  return {
    added: after.filter(device => !was.has(keyOf(device))).map(device => device.name),
    removed: before.filter(device => !is.has(keyOf(device))).map(device => device.name),
    resized: after.flatMap(device => {
      const fromBytes = was.get(keyOf(device))?.sizeBytes
      return fromBytes === undefined || fromBytes === device.sizeBytes
        ? []
        : [{ name: device.name, fromBytes, toBytes: device.sizeBytes }]
    }),
  }
}

const knowsLip = ({ kind }: Pick<StorageAdapter, 'kind'>): boolean => kind === 'fc' || kind === 'fcoe'

/**
 * Before a scan with a LIP, which interrupts everything that runs over a port: each adapter is asked for by its name, and
 * is of a kind that knows one. Those that are not in the list are left to whoever looks for them. Null: it may be done.
 */
export function lipFault(named: readonly string[], there: readonly StorageAdapter[]): Fault | null {
  const fault = (rule: string): Fault => ({ field: 'lip', value: named.join(', ') || 'true', rule })
  if (named.length === 0)
    return fault('interrupts the traffic of an adapter, so it must be asked for with the names of the adapters')
  const other = there.find(one => named.includes(one.name) && !knowsLip(one))
  return other === undefined
    ? null
    : fault(`must name adapters of Fibre Channel or FCoE alone; ${other.name} is of kind ${other.kind}`)
}

/** Kinds whose devices both hosts of a pair can see; the disks inside a host are its own affair. */
const sharedKinds: readonly AdapterKind[] = ['iscsi', 'fc', 'fcoe']
/** NVMe is inside the host, or over a fabric: its driver says which. */
const isShared = ({ kind, driver }: StorageAdapter): boolean =>
  sharedKinds.includes(kind) || (kind === 'nvme' && driver !== 'nvme')

/** Name of the one adapter that stands for all sessions of the software initiator. */
export const softwareIscsiName = 'iscsi'
export const softwareInitiatorName = ({ adapters }: Pick<StorageInventory, 'adapters'>): string | null =>
  adapters.find(one => one.name === softwareIscsiName)?.identifier ?? null

export interface SharedLun {
  wwid: string
  name: string
  sizeBytes: number
  /** By one path at least. */
  up: boolean
  used: boolean
}

/** The shared LUNs of a host, in the order of their WWIDs. */
export function sharedLuns(inventory: StorageInventory): SharedLun[] {
  const shared = new Set(inventory.adapters.filter(isShared).map(one => one.name))
  return inventory.devices
    .filter(device => device.wwid !== null && device.paths.some(path => shared.has(path.adapter)))
    .map(device => ({
      wwid: device.wwid!,
      name: device.name,
      sizeBytes: device.sizeBytes,
      up: device.paths.some(path => path.up),
      used: device.usedBy.length > 0,
    }))
    .sort((one, other) => (one.wwid < other.wwid ? -1 : 1))
}

/** `whole`: none was left out of the list; else only those up to its last WWID can be compared. */
export interface LunList {
  luns: readonly SharedLun[]
  whole: boolean
}

/**
 * What a takeover would miss: after it the new primary must see the same LUNs, of the same size, by a path that is up. One
 * sentence for each difference; none means that both see the same. It stands in the way where a host uses what the other
 * does not have.
 */
export function lunDifferences(hosts: Record<'a' | 'b', LunList>): Difference[] {
  const ends = [hosts.a, hosts.b].filter(one => !one.whole).map(one => one.luns.at(-1)?.wwid ?? '')
  const known = (lun: SharedLun): boolean => ends.every(end => lun.wwid <= end)
  const byWwid = (host: 'a' | 'b') => new Map(hosts[host].luns.filter(known).map(lun => [lun.wwid, lun]))
  const luns = { a: byWwid('a'), b: byWwid('b') }
  const found: Difference[] = []
  for (const [here, there] of [
    ['a', 'b'],
    ['b', 'a'],
  ] as const) {
    for (const lun of luns[here].values()) {
      const other = luns[there].get(lun.wwid)
      const named = `LUN ${lun.wwid} (${lun.name})`
      if (other === undefined) found.push({ why: `${named} is seen by ${here} and not by ${there}`, blocks: lun.used })
      else if (here === 'a' && other.sizeBytes !== lun.sizeBytes)
        found.push({
          why: `LUN ${lun.wwid} has ${lun.sizeBytes} bytes on a and ${other.sizeBytes} on b: scan the host that is behind`,
          blocks: lun.used || other.used,
        })
      if (!lun.up)
        found.push({ why: `${named} has no path that is up on ${here}`, blocks: lun.used || other?.used === true })
    }
  }
  if (ends.length > 0)
    found.push({ why: `only the LUNs up to ${ends.sort()[0]} are compared, there are too many`, blocks: false })
  return found
}
