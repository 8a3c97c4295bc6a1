import { accessSync, constants, mkdirSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'

/**
 * A folder, and those above it that are missing. Node's own way of making several (`recursive`) never ends where the kernel
 * answers ENOENT to a new name, as /proc does: it takes that for a parent that is missing.
 *
 * @returns the first folder that was made; undefined where all were there
 * @throws with a sentence that names the path and the remedy
 */
export function makeFolder(path: string, mode = 0o777): string | undefined {
  const missing: string[] = []
  try {
    for (let at = resolve(path); !isThere(at); at = dirname(at)) missing.unshift(at)
    for (const folder of missing) makeOne(folder, mode)
    if (!statSync(path).isDirectory()) throw new Error('it is a file')
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new Error(`the folder ${path} cannot be made (${why}): name one on a local disk that can be written`)
  }
  return missing[0]
}

/** The folder itself, or the nearest one above it that is there. */
export function existingAbove(path: string): string {
  let at = resolve(path)
  while (!isThere(at)) at = dirname(at)
  return at
}

/** Why there can be no folder that is written to; undefined where one is, or can be made. */
export function whyNoFolder(path: string): string | undefined {
  try {
    const at = existingAbove(path)
    if (!statSync(at).isDirectory()) return at === resolve(path) ? 'it is no folder' : `${at} is no folder`
    accessSync(at, constants.W_OK)
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

const isThere = (path: string): boolean => statSync(path, { throwIfNoEntry: false }) !== undefined

/** Another process may make the same one meanwhile. */
function makeOne(path: string, mode: number): void {
  try {
    mkdirSync(path, { mode })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || !isThere(path)) throw error
  }
}
