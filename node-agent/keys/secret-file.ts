import { readFileSync, statSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { openFolderWriter } from '../state-file/atomic-write.ts'

/** Files that hold keys: mode 0600, written whole or not at all, and not believed when others could read them. */
export async function writeSecret(path: string, bytes: Uint8Array): Promise<void> {
  const folder = await openFolderWriter(dirname(path))
  try {
    await folder.write(basename(path), bytes)
  } finally {
    await folder.close()
  }
}

/** null = there is no such file. */
export function readSecret(path: string): Buffer | null {
  let mode: number
  try {
    mode = statSync(path).mode
  } catch (fault) {
    if ((fault as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw fault
  }
  if ((mode & 0o077) !== 0) {
    const shown = (mode & 0o777).toString(8).padStart(4, '0')
    throw new Error(
      `${path} can be read by others (mode ${shown}): chmod 0600 it, and replace the key if somebody may have seen it`,
    )
  }
  return readFileSync(path)
}
