import { createHash } from 'node:crypto'
import type { HostNetwork } from '../../shared/hosts/network.ts'
import type { StorageInventory } from '../../shared/hosts/storage.ts'
import { readNetwork } from '../network/inventory.ts'
import { readRecord } from '../network/record.ts'
import { storageInventory } from '../storage/inventory.ts'
import { Sysfs } from '../storage/sysfs.ts'
import type { InventorySettings } from './settings.ts'

export interface HostInventory {
  network: HostNetwork
  storage: StorageInventory
}

export async function readHost({ networkFolder, vips }: InventorySettings, root = '/'): Promise<HostInventory> {
  const [network, storage] = await Promise.all([
    readNetwork({ record: readRecord(networkFolder), vips: vips.map(vip => vip.address), root }),
    storageInventory(new Sysfs(root)),
  ])
  return { network, storage }
}

/** With what the summary adds to it: another configuration is another summary of the same host. */
export const digestOf = (inventory: HostInventory, { vips }: Pick<InventorySettings, 'vips'>): string =>
  createHash('sha256')
    .update(JSON.stringify([inventory, vips]))
    .digest('hex')
