import { closeSync, constants, existsSync, fsyncSync, openSync, readFileSync, rmSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { openFolderWriter } from './atomic-write.ts'

/**
 * What a change has to be taken back by, in a file that is there as long as the change is under way: written before
 * anything is done, removed when it is over, and found by the next one where the process or the power ended in between.
 */
export interface JournalPlace {
  folder: string
  name: string
  /** Whose it is and what to do with a damaged one: ends "…, which <of>, is damaged (…): <remedy>". */
  of: string
  remedy: string
}

/** Durable when it returns. */
export async function writeJournalFile({ folder, name }: JournalPlace, journal: object): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const writer = await openFolderWriter(folder)
  try {
    await writer.write(name, Buffer.from(JSON.stringify(journal)))
  } finally {
    await writer.close()
  }
}

export const isJournalThere = ({ folder, name }: Pick<JournalPlace, 'folder' | 'name'>): boolean =>
  existsSync(join(folder, name))

/** @returns null: no change is under way. @throws if it is damaged */
export function readJournalFile<S extends z.ZodType>(place: JournalPlace, schema: S): z.output<S> | null {
  if (!isJournalThere(place)) return null
  const path = join(place.folder, place.name)
  const damaged = (why: string): Error => new Error(`${path}, which ${place.of}, is damaged (${why}): ${place.remedy}`)
  try {
    const journal = schema.safeParse(JSON.parse(readFileSync(path, 'utf8')))
    if (journal.success) return journal.data
    throw damaged(z.prettifyError(journal.error))
  } catch (error) {
    throw error instanceof SyntaxError ? damaged(error.message) : error
  }
}

/** For good: a loss of power must not bring back what would be taken for a change under way. */
export function removeJournalFile({ folder, name }: Pick<JournalPlace, 'folder' | 'name'>): void {
  rmSync(join(folder, name), { force: true })
  const names = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    fsyncSync(names)
  } finally {
    closeSync(names)
  }
}
