import { statAt } from '../kernel/file-calls.ts'
import { smallBytesMax } from './big-file.ts'
import type { FilePlace } from './link-index.ts'
import type { DirectoryNode } from './local-tree.ts'
import type { Tree } from './tree.ts'
import type { WorkQueue } from './work-queue.ts'

export interface HalfRename {
  dir: DirectoryNode
  name: string
  isDirectory: boolean
  atMs: number
  /** Whoever asks for a barrier before the other half is known waits for what becomes of this one. */
  since: number
}

/** A file got another name within the tree: what the backup is told, so that it shows no older version under the new one. */
export function fileRenamed({ queue, tree }: { queue: WorkQueue; tree: Tree }, from: HalfRename, to: FilePlace): void {
  const waiting = queue.waiting(from.dir, from.name)
  if (waiting !== undefined) queue.drop(waiting)
  // What was written under the old name before a barrier was asked for is what that barrier waits for, under the new one.
  const earlier = [from.since, waiting?.since, from.dir.sending.get(from.name)?.since]
  const since = Math.min(...earlier.filter(one => one !== undefined))
  const look = { lane: 'live', since, isWritten: true, isClosed: true } as const
  if (waiting?.isNew === true) {
    // The usual "write a temporary file, rename it": the backup never sees the temporary name.
    queue.changed(to.dir, to.name, look)
    queue.directory(from.dir, { lane: 'live' })
    return
  }
  // What the backup has under the old name is older: under the new one it must not show, unless a large file would
  // have to be sent as a whole because of it.
  const isOlder = waiting !== undefined || from.dir.halfSent.has(from.name) || from.dir.sending.has(from.name)
  // The look came after the rename, or may have: then it is another file, which had the old name by that time.
  const isAnother = queue.isLookedAt(from.dir, from.name)
  if (!isAnother && (!isOlder || (isLarge(to, tree) && !from.dir.halfSent.has(from.name)))) {
    // Looked at before the rename had its turn, it would be replaced by what the backup has under the old name.
    const replaced = queue.waiting(to.dir, to.name)
    if (replaced !== undefined) queue.drop(replaced)
    queue.renamed({ node: null, from: { dir: from.dir, name: from.name }, to, since })
    if (!isOlder && replaced === undefined) return
    queue.changed(to.dir, to.name, { ...look, since: Math.min(since, replaced?.since ?? since) })
  } else {
    // The new name first: between the two the backup has it under both, and never under none.
    queue.changed(to.dir, to.name, look)
    queue.changed(from.dir, from.name, { lane: 'live', since })
  }
}

function isLarge(at: { dir: DirectoryNode; name: string }, tree: Tree): boolean {
  const fd = at.dir.open(tree)
  const stat = fd < 0 ? fd : statAt(fd, at.name)
  return typeof stat !== 'number' && stat.size > smallBytesMax
}
