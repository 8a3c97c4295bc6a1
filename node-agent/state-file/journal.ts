import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { z } from 'zod'
import { readSecret } from '../keys/secret-file.ts'
import { openFolderWriter } from './atomic-write.ts'
import { decodeRecord, encodeRecord, type RecordFormat, recordBytesAt } from './record.ts'

/**
 * Records behind each other in a file whose blocks are there already: each is durable after one write in place, where a
 * file that is replaced whole costs two commits of the file system's own journal. For what is written often beside a
 * file that is written rarely: the file names the round of the journal that goes on from it. A new round begins at the
 * front again; what lies behind its last record is of an older round, torn, or zeros, and ends the reading.
 */
export class Journal<T> {
  readonly #file: FileHandle
  readonly #format: RecordFormat<Entry<T>>
  readonly #size: number
  #round = 0
  #at = 0

  private constructor(part: { file: FileHandle; format: RecordFormat<Entry<T>>; size: number }) {
    this.#file = part.file
    this.#format = part.format
    this.#size = part.size
  }

  /** @param size in bytes, of the whole file; one of another size is made anew, so it is never changed */
  static async open<T>(path: string, part: { size: number; format: RecordFormat<T> }): Promise<Journal<T>> {
    const { size, format } = part
    if (readSecret(path)?.length !== size) {
      const folder = await openFolderWriter(dirname(path))
      // Zeros that are written, not a hole: a block that comes to be with a record would cost a commit.
      await folder.write(basename(path), Buffer.alloc(size)).finally(() => folder.close())
    }
    const file = await open(path, constants.O_WRONLY | constants.O_DSYNC)
    return new Journal({ file, format: entryFormat(format), size })
  }

  /** What is appended from now on is of this round, whose number was never used before. */
  begin(round: number): void {
    this.#round = round
    this.#at = 0
  }

  /**
   * Durable when it resolves with true; false: it does not fit any more, and nothing was written. Calls must not overlap.
   * After a failure nothing may be appended in the same round: what it left lies in the way.
   */
  async append(entry: T): Promise<boolean> {
    const bytes = encodeRecord(this.#format, { round: this.#round, entry })
    if (this.#at + bytes.length > this.#size) return false
    const { bytesWritten } = await this.#file.write(bytes, 0, bytes.length, this.#at)
    if (bytesWritten !== bytes.length) throw new Error(`${bytesWritten} of ${bytes.length} bytes were written`)
    this.#at += bytes.length
    return true
  }

  close(): Promise<void> {
    return this.#file.close()
  }
}

/** The records of a round in their order; none where there is no such file. @throws where others can read it */
export function readJournal<T>(path: string, { round, format }: { round: number; format: RecordFormat<T> }): T[] {
  const bytes = readSecret(path) ?? Buffer.alloc(0)
  const found: T[] = []
  for (let at = 0; ; ) {
    const length = recordBytesAt(bytes, at)
    if (length === null) return found
    const decoded = decodeRecord(entryFormat(format), bytes.subarray(at, at + length))
    if (!decoded.ok || decoded.value.round !== round) return found
    found.push(decoded.value.entry)
    at += length
  }
}

interface Entry<T> {
  round: number
  entry: T
}

function entryFormat<T>({ kind, version, schema }: RecordFormat<T>): RecordFormat<Entry<T>> {
  return { kind, version, schema: z.object({ round: z.int().min(0), entry: schema }) as z.ZodType<Entry<T>> }
}
