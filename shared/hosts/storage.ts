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

/** Kinds whose devices both hosts of a pair can see; the disks inside a host are its own affair. */
const sharedKinds: readonly AdapterKind[] = ['iscsi', 'fc', 'fcoe']

/** The shared LUNs of a host, by WWID. */
export function sharedLuns(inventory: StorageInventory): Map<string, StorageDevice> {
  const shared = new Set(inventory.adapters.filter(one => sharedKinds.includes(one.kind)).map(one => one.name))
  return new Map(
    inventory.devices
      .filter(device => device.wwid !== null && device.paths.some(path => shared.has(path.adapter)))
      .map(device => [device.wwid!, device]),
  )
}

/**
 * What a takeover would miss: after it the new primary must see the same LUNs, of the same size, by a path that is up.
 * One sentence for each difference; none means that both see the same.
 */
export function lunDifferences(hosts: Record<'a' | 'b', StorageInventory>): string[] {
  const luns = { a: sharedLuns(hosts.a), b: sharedLuns(hosts.b) }
  const found: string[] = []
  for (const [here, there] of [
    ['a', 'b'],
    ['b', 'a'],
  ] as const) {
    for (const [wwid, device] of luns[here]) {
      const other = luns[there].get(wwid)
      if (other === undefined) found.push(`LUN ${wwid} (${device.name}) is seen by ${here} and not by ${there}`)
      else if (here === 'a' && other.sizeBytes !== device.sizeBytes)
        found.push(
          `LUN ${wwid} has ${device.sizeBytes} bytes on a and ${other.sizeBytes} on b: scan the host that is behind`,
        )
      if (device.paths.every(path => !path.up))
        found.push(`LUN ${wwid} (${device.name}) has no path that is up on ${here}`)
    }
  }
  return found
}
