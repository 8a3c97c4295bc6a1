import { z } from 'zod'

/** Facts of a machine that prechecks compare. Reported by a host, so bounded in every direction. */
const word = z.string().max(128)
export const hostFacts = z
  .object({
    architecture: word,
    kernel: word,
    bootMode: z.enum(['bios', 'uefi', 'unknown']),
    product: word.describe('Of the machine, as its firmware names it'),
    productVersion: word.describe('Of Understudy'),
    postgresVersion: word.nullable(),
    hostName: word,
    addresses: z
      .array(z.object({ interface: z.string().max(15), address: z.string().max(64) }))
      .max(64)
      .describe('With prefix length'),
    memoryMb: z.int().min(0),
    cpus: z.int().min(0),
    disks: z.array(z.object({ name: word, sizeMb: z.int().min(0) })).max(64),
    dataFreeMb: z.int().min(0).nullable().describe('Free space where the data directory lies or will lie'),
    dataSizeMb: z.int().min(0).nullable(),
    timeSource: z.enum(['synchronised', 'unsynchronised', 'unknown']),
  })
  .partial()
  .meta({ id: 'HostFacts' })
export type HostFacts = z.output<typeof hostFacts>
