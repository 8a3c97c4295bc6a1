import { z } from 'zod'

/** The directory tree that is wished on both hosts. */
export const syncPartition = z
  .strictObject({
    path: z
      .string()
      .max(200)
      .regex(/^\/[^\0]*$/, 'must be an absolute path'),
    sizeGb: z
      .int()
      .min(1)
      .max(65_536)
      .nullable()
      .default(null)
      .describe(
        'GiB of the partition that each host makes for it, in a file beside it; null: the directory is taken as it is. A block device is named in the host’s own configuration',
      ),
  })
  .meta({ id: 'SyncPartition' })
