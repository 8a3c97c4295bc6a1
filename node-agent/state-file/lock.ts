import { closeSync, constants, openSync } from 'node:fs'
import { join } from 'node:path'
import koffi from 'koffi'

/**
 * One user of a folder at a time, by flock(2) on a file in it.
 *
 * The lock belongs to the open file, not to a process: a child that inherited the descriptor holds it too. So a folder
 * is free only when the owner and every writer it started are gone, a writer that still hangs in the disk included;
 * otherwise such a writer could rename an old state over the new one of the next owner. The kernel drops it with the
 * last process; nothing is left to clean up.
 */
export interface FolderLock {
  descriptor: number
  release(): void
}

export type LockResult = { ok: true; lock: FolderLock } | { ok: false; why: string }

export const lockName = 'lock'
const lockExclusive = 2
const lockNoWait = 4
const wouldBlock = 11

const libc = koffi.load('libc.so.6')
const flock = libc.func('int flock(int fd, int operation)') as (descriptor: number, operation: number) => number

export function lockFolder(folder: string): LockResult {
  const path = join(folder, lockName)
  const descriptor = openSync(path, constants.O_CREAT | constants.O_RDWR | constants.O_NOFOLLOW, 0o600)
  if (flock(descriptor, lockExclusive | lockNoWait) === 0) {
    return { ok: true, lock: { descriptor, release: () => closeSync(descriptor) } }
  }
  const code = koffi.errno()
  closeSync(descriptor)
  if (code !== wouldBlock) return { ok: false, why: `${path} can't be locked: flock failed with errno ${code}` }
  return {
    ok: false,
    why: `${folder} is in use by another process, or by a writer of an earlier one that still hangs in the disk. \`fuser ${path}\` names it; stop it first.`,
  }
}
