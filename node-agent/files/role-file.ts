import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { type FolderWriter, openFolderWriter } from '../state-file/atomic-write.ts'

/**
 * What a host knows durably of its copy of one tree. It decides who may write: the epoch is on disk before the tree
 * opens, so that a sender of an older epoch is refused even after a crash in between.
 */
const schema = z.strictObject({
  version: z.literal(1),
  epoch: z.int().min(0),
  role: z.enum(['primary', 'backup', 'none']),
  /**
   * This copy was written as the primary's of that epoch, and the other host may not have all of it. `provenUntilMs`:
   * what was last changed before (by this host's clock, ms since 1970) the other host had durably, in its copy of that
   * name; 0 when nothing is proven.
   */
  ownChanges: z
    .strictObject({ epoch: z.int().min(0), provenUntilMs: z.number().min(0), copy: z.string().default('') })
    .nullable(),
  /**
   * The tree was a mount of its own when it was open: without it there is an empty directory at its path, which must be
   * taken neither for a tree whose files were all removed nor for a place to put them. Absent in files of before.
   */
  isMount: z.boolean().default(false),
  /**
   * A name of this copy, given once: another machine in this host's place, or this one set up anew, has another one, and
   * nothing that was proven of the copy before holds for it. Absent in files of before.
   */
  copy: z.string().default(''),
})

export type RoleRecord = z.output<typeof schema>

export const roleRecordPath = (stateDir: string, tree: string): string => join(stateDir, 'files', nameOf(tree))
const nameOf = (tree: string): string => `${tree}.json`

const fresh: RoleRecord = { version: 1, epoch: 0, role: 'none', ownChanges: null, isMount: false, copy: '' }

export class RoleFile {
  record: RoleRecord
  readonly #writer: FolderWriter
  readonly #name: string
  #writing: Promise<void> = Promise.resolve()

  private constructor(writer: FolderWriter, name: string, record: RoleRecord) {
    this.#writer = writer
    this.#name = name
    this.record = record
  }

  /** @throws when the file is there and not readable: the epoch must not be guessed */
  static async open(folder: string, tree: string): Promise<RoleFile> {
    const name = nameOf(tree)
    const record = readRecord(`${folder}/${name}`)
    // On the disk with the first role, before anybody is told it.
    const copy = record.copy === '' ? randomUUID() : record.copy
    return new RoleFile(await openFolderWriter(folder), name, { ...record, copy })
  }

  /**
   * Durable when it resolves. @throws NoRoom when the disk is full: what was there stays, and a later one is tried. After
   * any other error nothing is written any more (see the atomic writer).
   */
  async write(record: RoleRecord): Promise<void> {
    const before = this.record
    this.record = record
    const bytes = Buffer.from(`${JSON.stringify(record)}\n`)
    const written = this.#writing.then(() => this.#writer.write(this.#name, bytes))
    this.#writing = written.catch(error => {
      if (!isFull(error)) throw error
    })
    try {
      await written
    } catch (error) {
      if (this.record === record) this.record = before
      throw isFull(error) ? new NoRoom(`what this host knows of its copy can't be written: ${error.message}`) : error
    }
  }

  async close(): Promise<void> {
    await this.#writing
    await this.#writer.close()
  }
}

export class NoRoom extends Error {}

const isFull = (error: unknown): error is Error =>
  error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT')

function readRecord(path: string): RoleRecord {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return fresh
    throw error
  }
  const parsed = schema.safeParse(JSON.parse(text))
  if (parsed.success) return parsed.data
  throw new Error(`${path} is not a role record of version 1: ${parsed.error.message}`)
}
