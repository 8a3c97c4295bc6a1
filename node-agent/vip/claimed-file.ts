import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { openFolderWriter } from '../state-file/atomic-write.ts'

/**
 * The virtual addresses that this host has claimed before. One that is in the configuration and not in here is new, and
 * the network is asked about it before it is put up (RFC 5227, 2.1).
 */
const fileName = 'claimed-addresses.json'
const schema = z.strictObject({ addresses: z.array(z.string()).max(64) })

/** null: none were noted yet, or the file is damaged: then none counts as new, since set-up has asked about them. */
export function readClaimed(stateDir: string): string[] | null {
  try {
    return schema.parse(JSON.parse(readFileSync(join(stateDir, fileName), 'utf8'))).addresses
  } catch {
    return null
  }
}

export async function writeClaimed(stateDir: string, addresses: readonly string[]): Promise<void> {
  const folder = await openFolderWriter(stateDir)
  try {
    await folder.write(fileName, Buffer.from(JSON.stringify({ addresses })))
  } finally {
    await folder.close()
  }
}
