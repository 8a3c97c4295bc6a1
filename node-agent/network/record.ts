import { readFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { bondModes, networkTypes, type Vswitch, vswitchBackends } from '../../shared/hosts/network.ts'
import { openFolderWriter } from '../state-file/atomic-write.ts'

/** The vSwitches that we made, as they were wanted: what the kernel can't keep (types, description), and what a boot needs. */

/** More than there can be of anything: what is too much is said by the rules, with a sentence (vswitch-rules.ts). */
const listMax = 64

export const vswitchSchema = z.strictObject({
  name: z.string(),
  backend: z.enum(vswitchBackends),
  description: z.string().default(''),
  types: z.array(z.enum(networkTypes)).max(listMax),
  vlan: z.int().nullable().default(null),
  nics: z.array(z.string()).max(listMax).default([]),
  bond: z.enum(bondModes).nullable().default(null),
  addresses: z.array(z.string()).max(listMax).default([]),
  gateways: z.array(z.string()).max(listMax).default([]),
  mtu: z.int().default(1500),
}) satisfies z.ZodType<Vswitch>

/** A host with more has them made by something else. */
const vswitchesMax = 256
const recordSchema = z.strictObject({ version: z.literal(1), vswitches: z.array(vswitchSchema).max(vswitchesMax) })
const recordName = 'vswitches.json'

/** @throws if the record is damaged: what we own is then not known, and nothing may be changed. */
export function readRecord(folder: string): Vswitch[] {
  let text: string
  try {
    text = readFileSync(join(folder, recordName), 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
  const damaged = (why: string): Error =>
    new Error(`${join(folder, recordName)} is damaged (${why}): restore it, or remove it and adopt the vSwitches anew`)
  try {
    const record = recordSchema.safeParse(JSON.parse(text))
    if (record.success) return record.data.vswitches
    throw damaged(z.prettifyError(record.error))
  } catch (error) {
    throw error instanceof SyntaxError ? damaged(error.message) : error
  }
}

export async function writeRecord(folder: string, vswitches: readonly Vswitch[]): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const writer = await openFolderWriter(folder)
  try {
    const record = { version: 1, vswitches: [...vswitches] } satisfies z.input<typeof recordSchema>
    await writer.write(recordName, Buffer.from(`${JSON.stringify(record, null, 2)}\n`))
  } finally {
    await writer.close()
  }
}
