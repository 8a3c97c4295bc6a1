import { join } from 'node:path'
import type { Config } from '../config.ts'
import { storageFolderOf } from '../storage/storage-folder.ts'
import type { InventorySettings } from './settings.ts'

/** What is looked at for a host with this configuration. */
export const inventorySettings = (
  { stateDir, vips }: Pick<Config, 'stateDir' | 'vips'>,
  configPath: string,
): InventorySettings => ({
  networkFolder: join(stateDir, 'network'),
  storageFolder: storageFolderOf(stateDir),
  vips: vips.map(vip => ({ address: vip.address, interface: vip.interface })),
  configPath,
})
