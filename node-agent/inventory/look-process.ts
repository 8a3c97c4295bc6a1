import { text } from 'node:stream/consumers'
import { summaryOf } from '../../shared/hosts/summary.ts'
import { stepBack } from '../workers/worker-process.ts'
import { digestOf, type HostInventory, readHost } from './read-host.ts'
import { type InventoryNews, type InventorySettings, inventorySettingsSchema } from './settings.ts'

/** The program behind one look: settings come in on standard input, one line of JSON goes out. */
export const lookVerb = 'inventory-look'

export async function lookProcess(): Promise<void> {
  stepBack()
  const settings = inventorySettingsSchema.parse(JSON.parse(await text(process.stdin)))
  process.stdout.write(`${JSON.stringify(newsOf(await readHost(settings), settings))}\n`)
}

export const newsOf = (inventory: HostInventory, settings: InventorySettings): InventoryNews => ({
  sha256: digestOf(inventory, settings),
  summary: summaryOf({ ...inventory, vips: settings.vips }),
})
