import { closeSync, readFileSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import {
  EISDIR,
  ELOOP,
  ENOSPC,
  ENOTDIR,
  ESTALE,
  EXDEV,
  flushAll,
  O_RDWR,
  renameAt,
  unlinkAt,
} from '../kernel/file-calls.ts'
import { ENOENT } from '../kernel/libc.ts'
import { showName, splitPath } from './names.ts'
import { applyRedo, decodeRedo, openForRedo, redoPrefix } from './redo.ts'
import type { Tree } from './tree.ts'
import { gonePrefix, removeSome, someFiles, type WorkFolder } from './work-folder.ts'

/**
 * What a crash left in the work folder: patches that may be half applied are applied again, files that never got a name
 * are removed. Afterwards each file of the tree is one that the primary had.
 */
export async function recover(tree: Tree, folder: WorkFolder, note: (why: string) => void): Promise<void> {
  const names = folder.names()
  const redos = names.filter(name => name.startsWith(`${redoPrefix}-`))
  // First, since on a full disk a patch may need the room.
  for (const name of names) {
    if (name.startsWith(`${gonePrefix}-`) || name === conflictsName || redos.includes(name)) continue
    if (unlinkAt(folder.fd, name) < 0) renameAt({ dirFd: folder.fd, name }, folder.fresh(gonePrefix))
  }
  for (const name of redos.sort(byNumber)) {
    let redone = await completeRedo({ tree, folder, name })
    if (redone?.errno === -ENOSPC) {
      await removeGone(folder)
      redone = await completeRedo({ tree, folder, name })
    }
    if (redone !== null) {
      const { errno, path } = redone
      if (errno < 0)
        throw new Error(`${tree.path}: the change of ${showName(path)} can't be completed (errno ${-errno})`)
      note(`${tree.path}: completed the change of ${showName(path)} that a crash had interrupted`)
    }
    unlinkAt(folder.fd, name)
  }
  await flushAll(folder.fd)
}

/** What was put aside, at once: its room is needed. */
async function removeGone(folder: WorkFolder): Promise<void> {
  for (const name of folder.names()) {
    if (!name.startsWith(`${gonePrefix}-`)) continue
    while (!removeSome({ dirFd: folder.fd, name }, someFiles())) await nextTurn()
  }
}

/** The folder of what a returning primary had and the new one had not. */
export const conflictsName = 'conflicts'

/** The order in which they were written: `redo-LIFE-NUMBER`. */
function byNumber(one: string, other: string): number {
  const number = (name: string): number => Number(name.split('-').at(-1))
  return number(one) - number(other)
}

/** Any other error says nothing about whether it is there half changed. */
const isElsewhere = (errno: number): boolean => [-ENOENT, -ENOTDIR, -ELOOP, -EXDEV, -ESTALE, -EISDIR].includes(errno)

/** Writes a patch once more; null when there is nothing to be done: it was never begun, or its file is not there any more. */
export async function completeRedo(part: {
  tree: Tree
  folder: WorkFolder
  name: string
}): Promise<{ path: string; errno: number } | null> {
  const { tree, folder, name } = part
  const redo = decodeRedo(readFileSync(`/proc/self/fd/${folder.fd}/${name}`))
  if (redo === null) return null
  const at = splitPath(redo.path)
  const dirFd = tree.directory(at.folder)
  const fd = dirFd < 0 ? dirFd : openForRedo({ dirFd, name: at.name }, { ino: redo.ino, flags: O_RDWR })
  if (fd < 0) return isElsewhere(fd) ? null : { path: redo.path, errno: fd }
  try {
    return { path: redo.path, errno: await applyRedo(fd, redo) }
  } finally {
    closeSync(fd)
  }
}
