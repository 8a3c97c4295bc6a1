import { z } from 'zod'

/** What the host that begins says of its trees in the join token, so that the other one knows what has to fit. */
export const heldTreeSchema = z.strictObject({
  name: z.string(),
  usedBytes: z.number().min(0),
  /** Of the partition that was made for it; null: a directory, or a device. */
  partitionMb: z.int().nullable(),
})
export type HeldTree = z.output<typeof heldTreeSchema>

export const agreedSyncSchema = z.strictObject({ port: z.int(), trees: z.array(heldTreeSchema) })
export type AgreedSync = z.output<typeof agreedSyncSchema>

export const mebibyte = 2 ** 20
