import { join } from 'node:path'
import type { Config } from '../config.ts'
import type { WorkerDefinition } from '../workers/definition.ts'
import { workerCommand } from '../workers/registry.ts'
import { type InventoryNews, type InventorySettings, inventoryNewsSchema, inventoryNewsTopic } from './settings.ts'

/** What the core knows of the worker that looks at networks and storage: how to start it and what it tells. */
export const inventoryWorkerName = 'inventory'
/** Measured: 60 MiB at rest, 90 with 2 000 disks. */
const memoryMb = 256
/** An agent that starts has its pair to look after first, and nobody waits for this. */
export const inventoryAfterMs = 5_000

export function inventoryDefinition(heard: (news: InventoryNews) => void): WorkerDefinition {
  return {
    name: inventoryWorkerName,
    command: workerCommand(inventoryWorkerName, { memoryMb }),
    memoryMb,
    told: (topic, body) => {
      if (topic === inventoryNewsTopic) heard(inventoryNewsSchema.parse(body))
    },
  }
}

export const inventorySettings = ({ stateDir, vips }: Pick<Config, 'stateDir' | 'vips'>): InventorySettings => ({
  networkFolder: join(stateDir, 'network'),
  vips: vips.map(vip => ({ address: vip.address, interface: vip.interface })),
})
