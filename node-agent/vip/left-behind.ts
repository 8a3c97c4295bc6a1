import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { openFolderWriter } from '../state-file/atomic-write.ts'

/**
 * The virtual addresses that the agent before this one may have put up, so that those which are in no configuration any
 * more come off this host, whoever changed the configuration: an operator, the command line, the control plane.
 */
const fileName = 'virtual-addresses.json'
const vipSchema = z.strictObject({ address: z.string(), interface: z.string() })
const schema = z.strictObject({ v: z.literal(1), vips: z.array(vipSchema).max(64) })
export type PutUp = z.output<typeof vipSchema>

/** [] where none were noted, or the file is damaged: then an old one stays until the host boots. */
export function readPutUp(stateDir: string): PutUp[] {
  try {
    return schema.parse(JSON.parse(readFileSync(join(stateDir, fileName), 'utf8'))).vips
  } catch {
    return []
  }
}

export async function writePutUp(stateDir: string, vips: readonly PutUp[]): Promise<void> {
  const folder = await openFolderWriter(stateDir)
  try {
    await folder.write(fileName, Buffer.from(JSON.stringify({ v: 1, vips })))
  } finally {
    await folder.close()
  }
}

/** An address that moved to another interface is left behind on the one where it was. */
export const leftBehind = (before: readonly PutUp[], now: readonly PutUp[]): PutUp[] =>
  before.filter(old => !now.some(one => one.address === old.address && one.interface === old.interface))
