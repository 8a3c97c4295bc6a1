import { closeSync, readFileSync } from 'node:fs'
import { flushAll, renameAt, unlinkAt } from '../kernel/file-calls.ts'
import { showName, splitPath } from './names.ts'
import { applyRedo, decodeRedo, openForRedo, redoPrefix } from './redo.ts'
import type { Tree } from './tree.ts'
import type { WorkFolder } from './work-folder.ts'

/**
 * What a crash left in the work folder: patches that may be half applied are applied again, files that never got a name
 * are removed. Afterwards each file of the tree is one that the primary had.
 */
export async function recover(tree: Tree, folder: WorkFolder, note: (why: string) => void): Promise<void> {
  const names = folder.names()
  const redos = names.filter(name => name.startsWith(`${redoPrefix}-`))
  for (const name of redos.sort(byNumber)) {
    await redoOne({ tree, folder, name, note })
    unlinkAt(folder.fd, name)
  }
  for (const name of names) {
    if (name.startsWith('gone-') || name === conflictsName || redos.includes(name)) continue
    if (unlinkAt(folder.fd, name) < 0) renameAt({ dirFd: folder.fd, name }, folder.fresh('gone'))
  }
  await flushAll(folder.fd)
}

/** The folder of what a returning primary had and the new one had not. */
export const conflictsName = 'conflicts'

/** The order in which they were written: `redo-PID-NUMBER`. */
function byNumber(one: string, other: string): number {
  const number = (name: string): number => Number(name.split('-').at(-1))
  return number(one) - number(other)
}

async function redoOne(part: {
  tree: Tree
  folder: WorkFolder
  name: string
  note: (why: string) => void
}): Promise<void> {
  const { tree, folder, name, note } = part
  const redo = decodeRedo(readFileSync(`/proc/self/fd/${folder.fd}/${name}`))
  if (redo === null) return
  const at = splitPath(redo.path)
  const dirFd = tree.directory(at.folder)
  const fd = dirFd < 0 ? dirFd : openForRedo({ dirFd, name: at.name }, redo.ino)
  if (fd < 0) return
  const applied = await applyRedo(fd, redo)
  closeSync(fd)
  if (applied < 0)
    throw new Error(`${tree.path}: the change of ${showName(redo.path)} can't be completed (errno ${-applied})`)
  note(`${tree.path}: completed the change of ${showName(redo.path)} that a crash had interrupted`)
}
