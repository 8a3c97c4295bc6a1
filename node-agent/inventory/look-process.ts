import { text } from 'node:stream/consumers'
import { z } from 'zod'
import { summaryOf } from '../../shared/hosts/summary.ts'
import { storageInventory } from '../storage/inventory.ts'
import { sessionUsers } from '../storage/session-users.ts'
import { Sysfs } from '../storage/sysfs.ts'
import { stepBack } from '../workers/worker-process.ts'
import { endLeftChanges } from './left-changes.ts'
import { digestOf, type HostInventory, readHost } from './read-host.ts'
import { type InventoryNews, type InventorySettings, inventorySettingsSchema } from './settings.ts'

/** The program behind one look: what is wanted comes in on standard input, one line of JSON goes out. */
export const lookVerb = 'inventory-look'

export const lookRequestSchema = z.object({
  settings: inventorySettingsSchema,
  /** The summary that hosts are compared by, everything, adapters and devices alone, or who uses iSCSI sessions. */
  what: z.enum(['news', 'host', 'storage', 'session users']),
  /** Where /sys, /proc and /etc are: tests have their own. */
  root: z.string(),
})
export type LookRequest = z.output<typeof lookRequestSchema>

export async function lookProcess(): Promise<void> {
  stepBack()
  const request = lookRequestSchema.parse(JSON.parse(await text(process.stdin)))
  process.stdout.write(`${JSON.stringify(await seen(request))}\n`)
}

async function seen({ settings, what, root }: LookRequest): Promise<object> {
  switch (what) {
    case 'news': {
      const change = await endLeftChanges(settings)
      return { change, news: newsOf(await readHost(settings, root), settings) }
    }
    case 'host': {
      const { network, storage } = await readHost(settings, root)
      return { summary: summaryOf({ network, storage, vips: settings.vips }), network, storage }
    }
    case 'storage':
      return storageInventory(new Sysfs(root))
    case 'session users':
      return sessionUsers(new Sysfs(root))
  }
}

export const newsOf = (inventory: HostInventory, settings: InventorySettings): InventoryNews => ({
  sha256: digestOf(inventory, settings),
  summary: summaryOf({ ...inventory, vips: settings.vips }),
})
