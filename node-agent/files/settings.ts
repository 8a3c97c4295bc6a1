import { isAbsolute, resolve } from 'node:path'
import { z } from 'zod'
import { patternFault, patternsMax } from './filter.ts'

/** The section `sync` of the configuration, and what the files worker is told of the rest. */

/** One connection and some descriptors each. */
const treesMax = 16

const pattern = z.string().superRefine((value, context) => {
  const fault = patternFault(value)
  if (fault !== null) context.addIssue({ code: 'custom', message: `${fault}; write it like "cache/**" or "*.tmp"` })
})

/** Compared with other paths as they are written, and a line of a unit of systemd's. */
const absolute = z
  .string()
  .refine(isAbsolute, 'must be an absolute path; begin it with "/"')
  .refine(
    value => [resolve(value), `${resolve(value)}/`].includes(value) && value !== '//',
    'must be a plain path, without "//", "/./" and "/../"; write it like "/srv/data"',
  )
  .refine(value => !/\p{Cc}/u.test(value), 'must have no control characters; write it like "/srv/data"')

/** Of a partition that is smaller, a journal would take too large a part. */
const partitionMbMin = 16

/** What a tree is to be a mount of, made by the set-up of each host. */
export const partitionSchema = z.strictObject({
  /** An empty block device, or a file that is made with `sizeMb` and mounted by a loop device. */
  source: absolute,
  /** Of the file that is made; of a device, what it has to have at least. */
  sizeMb: z.int().min(partitionMbMin).max(67_108_864).nullable().default(null),
})
export type PartitionConfig = z.output<typeof partitionSchema>

export const treeSchema = z.strictObject({
  name: z
    .string()
    .regex(
      /^[a-z][a-z0-9-]{0,31}$/,
      'must be 1 to 32 of a-z, 0-9 and "-", beginning with a letter; write it like "data"',
    ),
  path: absolute.refine(value => value !== '/', 'is the whole system; name a directory or the mount of a partition'),
  /** null: the directory is taken as it is, whatever it lies on. */
  partition: partitionSchema.nullable().default(null),
  include: z.array(pattern).max(patternsMax).default([]),
  exclude: z.array(pattern).max(patternsMax).default([]),
  /** required: the backup counts as ready only while it is less than lagLimitS behind. */
  policy: z.enum(['async', 'required']).default('async'),
  /** Seconds; beyond it there is an alarm. */
  lagLimitS: z.number().min(0.1).max(86_400).default(10),
  /** Megabytes a second that seed and repair may take; 0 = as fast as it goes. */
  bulkMbPerS: z.number().min(0).max(100_000).default(0),
  /** Megabytes a second that comparing contents may read on each host. */
  contentMbPerS: z.number().min(0.1).max(100_000).default(10),
  /** Hours from the end of one comparison of contents to the next; 0 = only when asked. */
  contentEveryH: z.number().min(0).max(8760).default(24),
})

export const syncSchema = z.strictObject({
  /** TCP, on the addresses of the peer link. */
  port: z.int().min(1).max(65_535),
  trees: z.array(treeSchema).min(1).max(treesMax),
})

export type SyncConfig = z.output<typeof syncSchema>
export type TreeConfig = z.output<typeof treeSchema>

/** What the core tells its files worker once. Keys are named by path: they pass no pipe and no log. */
export const filesSettingsSchema = z.strictObject({
  pair: z.string(),
  node: z.enum(['a', 'b']),
  stateDir: z.string(),
  /** One for each path between the hosts. */
  listen: z.strictObject({ hosts: z.array(z.string()).min(1), port: z.int() }),
  peer: z.strictObject({ hosts: z.array(z.string()).min(1), port: z.int() }),
  tls: z.strictObject({ key: z.string(), certificate: z.string(), authority: z.string() }),
  trees: z.array(treeSchema),
})
export type FilesSettings = z.output<typeof filesSettingsSchema>

/** Whose tree it is now. Told at each change; the newest counts. */
export const filesRoleSchema = z.strictObject({
  role: z.enum(['primary', 'backup', 'none']),
  epoch: z.int().min(0),
})
export type FilesRole = z.output<typeof filesRoleSchema>

/** A forced takeover begins a generation, in which epochs go on from there; one number grows with both. */
const epochsInGeneration = 1_000_000
export const termOf = ({ gen, epoch }: { gen: number; epoch: number }): number => gen * epochsInGeneration + epoch

export const settingsTopic = 'files settings'
export const roleTopic = 'files role'
/** From the worker: the term whose trees are open here. */
export const openedTopic = 'files opened'
