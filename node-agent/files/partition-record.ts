import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { writeWhole } from '../pair/setup-file.ts'

/**
 * That the file system of a tree is this host's to make, written before anything is erased: an interrupted set-up knows
 * by it what it may begin anew, and what it made is never made a second time.
 */
const schema = z.strictObject({
  version: z.literal(1),
  source: z.string(),
  /** Of the file system, which is known by it wherever its device turns up. */
  uuid: z.string(),
  /** From then on there may be data in it. */
  isMade: z.boolean(),
})
export type PartitionRecord = z.output<typeof schema>

const folderOf = (stateDir: string): string => join(stateDir, 'files')
/** A tree's name has no dot: no other record has this name. */
export const partitionRecordPath = (stateDir: string, tree: string): string =>
  join(folderOf(stateDir), `${tree}.partition.json`)

/** null: none was begun here. @throws with a sentence when it is damaged: what may be erased must not be guessed */
export function readPartitionRecord(stateDir: string, tree: string): PartitionRecord | null {
  const path = partitionRecordPath(stateDir, tree)
  if (!existsSync(path)) return null
  try {
    return schema.parse(JSON.parse(readFileSync(path, 'utf8')))
  } catch {
    throw new Error(`${path} is damaged: see what is on the partition of tree ${tree}, then remove this file`)
  }
}

export async function writePartitionRecord(stateDir: string, tree: string, record: PartitionRecord): Promise<void> {
  mkdirSync(folderOf(stateDir), { recursive: true, mode: 0o700 })
  await writeWhole(partitionRecordPath(stateDir, tree), `${JSON.stringify(record)}\n`)
}
