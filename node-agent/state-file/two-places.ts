import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { z } from 'zod'
import { readSecret } from '../keys/secret-file.ts'
import { openFolderWriter } from './atomic-write.ts'
import { decodeRecord, encodeRecord, type RecordFormat, recordBytesAt } from './record.ts'

/**
 * A small record that somebody waits for: it has two places in a file whose blocks are there already, and is written over
 * the older one. One write in place makes it durable; torn by a crash, the one before it is still there.
 */
const placeBytes = 4096

/** Durable when it resolves. Calls for one file must not overlap. @throws when it is too long or the disk refuses it */
export async function writePlace<T>(path: string, value: T, format: RecordFormat<T>): Promise<void> {
  const number = (newestAt(path, format)?.number ?? 0) + 1
  const bytes = encodeRecord(numbered(format), { number, value })
  if (bytes.length > placeBytes) throw new Error(`${path} has room for ${placeBytes} bytes, not for ${bytes.length}`)
  if (readSecret(path)?.length !== 2 * placeBytes) {
    const folder = await openFolderWriter(dirname(path))
    await folder.write(basename(path), Buffer.alloc(2 * placeBytes)).finally(() => folder.close())
  }
  const file = await open(path, constants.O_WRONLY | constants.O_DSYNC)
  try {
    const { bytesWritten } = await file.write(bytes, 0, bytes.length, (number % 2) * placeBytes)
    if (bytesWritten !== bytes.length) throw new Error(`${bytesWritten} of ${bytes.length} bytes were written`)
  } finally {
    await file.close()
  }
}

/** null: there is no such file, or nothing whole in it. */
export const readPlace = <T>(path: string, format: RecordFormat<T>): T | null => newestAt(path, format)?.value ?? null

interface Numbered<T> {
  number: number
  value: T
}

function newestAt<T>(path: string, format: RecordFormat<T>): Numbered<T> | null {
  const bytes = readSecret(path) ?? Buffer.alloc(0)
  const found = [0, placeBytes].flatMap(at => {
    const length = recordBytesAt(bytes, at)
    const decoded = length === null ? null : decodeRecord(numbered(format), bytes.subarray(at, at + length))
    return decoded?.ok ? [decoded.value] : []
  })
  return found.sort((one, other) => other.number - one.number)[0] ?? null
}

function numbered<T>({ kind, version, schema }: RecordFormat<T>): RecordFormat<Numbered<T>> {
  return { kind, version, schema: z.object({ number: z.int().min(1), value: schema }) as z.ZodType<Numbered<T>> }
}
