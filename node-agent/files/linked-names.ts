import { type FileStat, statAt } from '../kernel/file-calls.ts'
import type { FilePlace, LinkIndex } from './link-index.ts'
import { joinPath, pathBytesMax } from './names.ts'
import type { Tree } from './tree.ts'
import type { NameEntry, WorkQueue } from './work-queue.ts'

interface LinkedPart {
  tree: Tree
  queue: WorkQueue
  links: LinkIndex
}

export interface OtherName extends FilePlace {
  /** On the backup. */
  path: string
}

/**
 * A name of the same file that the backup has in its present version, so that this one, which is new, has only to be tied to
 * it: found without a look at all the others, of which there may be thousands.
 */
export function someTwin({ links, tree, queue }: LinkedPart, stat: FileStat, entry: NameEntry): string | null {
  if (stat.links < 2) return null
  for (const { dir, name } of links.others(stat.ino, entry.dir, entry.name)) {
    if (dir.isGone || !(dir.isKnown || dir.parent === null)) continue
    if (queue.waiting(dir, name) !== undefined || dir.sending.has(name)) continue
    const fd = dir.open(tree)
    const there = fd < 0 ? fd : statAt(fd, name)
    const path = joinPath(dir.remotePath, name)
    if (typeof there !== 'number' && there.ino === stat.ino && path.length <= pathBytesMax) return path
  }
  return null
}

/**
 * Other names of the same file, looked at now; a file of one name is noted in case it gets another. Null: one of them
 * is in a directory that is on its way.
 */
export function otherNames(part: LinkedPart, stat: FileStat, entry: NameEntry): OtherName[] | null {
  const { links, tree, queue } = part
  if (stat.links < 2) {
    links.noteOnly(stat.ino, entry.dir, entry.name)
    return []
  }
  links.note(stat.ino, entry.dir, entry.name)
  const found: OtherName[] = []
  for (const place of links.others(stat.ino, entry.dir, entry.name)) {
    const fd = place.dir.isGone ? -1 : place.dir.open(tree)
    if (fd < 0 && !place.dir.isGone) return null
    const there = fd < 0 ? fd : statAt(fd, place.name)
    if (typeof there === 'number' || there.ino !== stat.ino) links.forget(stat.ino, place)
    else if (place.dir.isKnown || place.dir.parent === null) {
      const path = joinPath(place.dir.remotePath, place.name)
      if (path.length <= pathBytesMax) found.push({ path, dir: place.dir, name: place.name })
    } else {
      // Its directory is being compared, possibly with what was in it before this change.
      queue.changed(place.dir, place.name, { lane: 'live', since: entry.since, isWritten: true, isClosed: true })
    }
  }
  links.setPartial(stat.ino, { partial: found.length < stat.links - 1 })
  return found
}
