import { closeSync, constants, fsyncSync, openSync, renameSync, writeFileSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { open, rename } from 'node:fs/promises'
import { join } from 'node:path'

/**
 * Replaces files of one folder so that after a crash at any point either the old or the new contents are there, whole:
 * write a temporary file, fsync it, rename it over the old one, fsync the folder. When `write` returns, the new
 * contents survive a loss of power.
 *
 * An fsync that failed once tells nothing when it is repeated (the kernel has dropped the dirty pages: fsync(2),
 * "Error reporting"), so a caller must not try the same write again but stop.
 */
export interface FolderWriter {
  /** Calls for the same name must not overlap; calls for different names may. `mode`: default 0600, whatever the umask. */
  write(name: string, bytes: Uint8Array, mode?: number): Promise<void>
  /** Makes the present names in the folder durable, such as that of a new folder in it. */
  sync(): Promise<void>
  close(): Promise<void>
}

/** The same for a process that has nothing else to do: the folder is open as `folderFd`. */
export function replaceSync(part: { folder: string; folderFd: number; name: string; bytes: Uint8Array }): void {
  const path = join(part.folder, part.name)
  const temporary = path + temporarySuffix
  const file = openSync(temporary, temporaryFlags, 0o600)
  try {
    writeFileSync(file, part.bytes)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
  renameSync(temporary, path)
  fsyncSync(part.folderFd)
}

/** What a crash may leave behind; safe to remove or to overwrite. */
export const temporarySuffix = '.tmp'
const temporaryFlags = constants.O_CREAT | constants.O_TRUNC | constants.O_WRONLY | constants.O_NOFOLLOW

export async function openFolderWriter(folder: string): Promise<FolderWriter> {
  const handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY)
  return {
    write: (name, bytes, mode = 0o600) => replace({ folder, handle, name, bytes, mode }),
    sync: () => handle.sync(),
    close: () => handle.close(),
  }
}

async function replace(part: {
  folder: string
  handle: FileHandle
  name: string
  bytes: Uint8Array
  mode: number
}): Promise<void> {
  const path = join(part.folder, part.name)
  const temporary = path + temporarySuffix
  const file = await open(temporary, temporaryFlags, 0o600)
  try {
    await file.chmod(part.mode)
    await file.writeFile(part.bytes)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(temporary, path)
  await part.handle.sync()
}
