import type { StorageInventory } from '../../shared/hosts/storage.ts'
import { listAdapters } from './adapters.ts'
import { listDevices } from './devices.ts'
import { readInitiatorName } from './initiator-name.ts'
import { readMultipath } from './multipath.ts'
import type { Sysfs } from './sysfs.ts'

/** Everything that the host's storage adapters are and lead to. For a worker: a driver that hangs holds it up. */
export async function storageInventory(sysfs: Sysfs): Promise<StorageInventory & { truncated: number }> {
  const maps = await readMultipath()
  const adapters = listAdapters(sysfs, { initiatorName: readInitiatorName(sysfs.root) })
  const { devices, truncated } = listDevices(sysfs, { adapters, maps })
  return { adapters, devices, truncated }
}
