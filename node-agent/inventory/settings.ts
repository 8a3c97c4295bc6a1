import { z } from 'zod'
import { hostSummary } from '../../shared/contract/host-summary.ts'

/** What whoever looks has to know, and what he tells the core. */
export const inventorySettingsSchema = z.object({
  /** Of the network's own record of vSwitches. */
  networkFolder: z.string(),
  /** Where a change of the iSCSI name keeps what it is taken back by. */
  storageFolder: z.string(),
  vips: z.array(z.object({ address: z.string(), interface: z.string() })),
  /** Of this host: a change of its networks that was left half-way is taken back with what it says. */
  configPath: z.string(),
})
export type InventorySettings = z.output<typeof inventorySettingsSchema>

export const inventoryNewsTopic = 'inventory-news'
export const inventoryNewsSchema = z.object({
  /** Of the whole inventory and the configured addresses, so that whoever holds it knows whether it is the newest. */
  sha256: z.string().max(64),
  summary: hostSummary,
})
export type InventoryNews = z.output<typeof inventoryNewsSchema>

/** Published by the core to the workers: the digest of the newest inventory. */
export const inventoryTopic = 'inventory'
