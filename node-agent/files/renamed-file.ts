import { type FileStat, statAt } from '../kernel/file-calls.ts'
import { smallBytesMax } from './big-file.ts'
import type { FilePlace, LinkIndex } from './link-index.ts'
import type { DirectoryNode } from './local-tree.ts'
import type { Tree } from './tree.ts'
import type { RenameEntry, WorkQueue } from './work-queue.ts'

export interface HalfRename {
  dir: DirectoryNode
  name: string
  isDirectory: boolean
  atMs: number
  /** Whoever asks for a barrier before the other half is known waits for what becomes of this one. */
  since: number
}

interface Part {
  queue: WorkQueue
  tree: Tree
  links: LinkIndex
}

/**
 * A file got another name within the tree: what the backup is told, so that it shows no older version under the new one.
 * Null when that is no rename. `isExchange`: the new name's file may have got the old name (rename(2), RENAME_EXCHANGE).
 */
export function fileRenamed(
  part: Part,
  { from, to, isExchange }: { from: HalfRename; to: FilePlace; isExchange: boolean },
): RenameEntry | null {
  const { queue, tree, links } = part
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
    if (isExchange) queue.changed(from.dir, from.name, { lane: 'live', since })
    return null
  }
  // What the backup has under the old name is older: under the new one it must not show, unless a large file would
  // have to be sent as a whole because of it.
  const isOlder = waiting !== undefined || from.dir.halfSent.has(from.name) || from.dir.sending.has(from.name)
  // The look came after the rename, or may have: then another file had the old name by that time, or the new one is sent.
  const isAnother = isExchange || queue.isLookedAt(from.dir, from.name) || queue.isLookedAt(to.dir, to.name)
  if (!isAnother && (!isOlder || (isLarge(to, tree) && !from.dir.halfSent.has(from.name)))) {
    // Looked at before the rename had its turn, it would be replaced by what the backup has under the old name.
    const replaced = queue.waiting(to.dir, to.name)
    if (replaced !== undefined) queue.drop(replaced)
    const renamed = queue.renamed({ node: null, from: { dir: from.dir, name: from.name }, to, since })
    // Until that has its turn the backup has not got this name, whatever is known of it: nothing is tied to it.
    const stat = statOf(to, tree)
    if (typeof stat !== 'number') links.forget(stat.ino, to)
    if (!isOlder && replaced === undefined) return renamed
    queue.changed(to.dir, to.name, { ...look, since: Math.min(since, replaced?.since ?? since) })
    return renamed
  } else {
    // The new name first: between the two the backup has it under both, and never under none.
    queue.changed(to.dir, to.name, look)
    queue.changed(from.dir, from.name, { lane: 'live', since })
    return null
  }
}

function statOf({ dir, name }: FilePlace, tree: Tree): FileStat | number {
  const fd = dir.open(tree)
  return fd < 0 ? fd : statAt(fd, name)
}

function isLarge(at: FilePlace, tree: Tree): boolean {
  const stat = statOf(at, tree)
  return typeof stat !== 'number' && stat.size > smallBytesMax
}

/** The two events of an exchange follow each other at once, but possibly not in the same read. */
const exchangeMs = 1000

/** Renames of the last second or two, by the old name: what goes the other way may be the second half of an exchange. */
export class LatestRenames {
  #latest = new Map<string, { to: string; entry: RenameEntry | null }>()
  #before = this.#latest
  #atMs = Number.NEGATIVE_INFINITY

  note(from: FilePlace, to: FilePlace, entry: RenameEntry | null): void {
    this.#latest.set(keyOf(from), { to: keyOf(to), entry })
  }

  /** The rename that went the other way; undefined when there was none. `entry` is null where both names were looked at instead. */
  opposite(from: FilePlace, to: FilePlace): { entry: RenameEntry | null } | undefined {
    const earlier = this.#latest.get(keyOf(to)) ?? this.#before.get(keyOf(to))
    return earlier?.to === keyOf(from) ? earlier : undefined
  }

  forgetBefore(nowMs: number): void {
    if (nowMs - this.#atMs < exchangeMs) return
    this.#before = this.#latest
    this.#latest = new Map()
    this.#atMs = nowMs
  }
}

const keyOf = ({ dir, name }: FilePlace): string => `${dir.ino}/${name}`
