import { z } from 'zod'
import { verbNames } from '../../shared/contract/documents.ts'
import { inventorySettingsSchema } from '../inventory/settings.ts'

/** What the core tells the control worker once; the supervisor tells it again to one that was started anew. */
export const controlTopic = 'control'

export const controlSettingsSchema = z.object({
  /** Identity, memory, certificate and spool lie here. */
  folder: z.string(),
  /** Of the core: what an operator can do on this host, the portal can, and nothing more. */
  socket: z.string(),
  configPath: z.string(),
  inventory: inventorySettingsSchema,
  refuse: z.array(z.enum(verbNames)),
})
export type ControlSettings = z.output<typeof controlSettingsSchema>
