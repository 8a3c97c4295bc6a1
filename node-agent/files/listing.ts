import { createHash } from 'node:crypto'
import { type FileStat, statAt } from '../kernel/file-calls.ts'
import { ENOENT, KernelError } from '../kernel/libc.ts'
import type { Filter } from './filter.ts'
import type { ListedEntry } from './messages.ts'
import { type Meta, metaBytes, readMeta } from './meta.ts'
import { joinPath, workFolderName } from './names.ts'
import { namesIn } from './tree.ts'

/** One directory as it is on disk: what the two hosts compare. */
export interface Listing {
  own: Meta
  /** Sorted by name. Of a directory only its name and kind count here: the rest is in its own listing. */
  entries: ListedEntry[]
  /** Sockets, FIFOs, devices, other mounts. */
  skipped: string[]
}

export interface ListingPart {
  /** The open directory; negative: it could not be opened. */
  fd: number
  path: string
  filter: Filter
  /** Whether another name of this file is known in the tree. */
  isLinked: (stat: FileStat) => boolean
  /** Told of each file that is listed. */
  onFile?: (name: string, stat: FileStat) => void
  /** Called now and then: a directory with a million names holds up everything else for seconds. */
  onProgress: () => void
}

/** Some ten milliseconds of work. */
const progressEvery = 1024

/** Null when the directory is not there, or not to be reached without leaving the tree. @throws what the disk says */
export function listDirectory(part: ListingPart): Listing | null {
  const { fd, path } = part
  if (fd < 0) return null
  const stat = statAt(fd, '')
  const names = typeof stat === 'number' ? null : namesIn(fd)
  const own = typeof stat === 'number' ? null : readMeta({ dirFd: fd, name: '' }, stat)
  if (typeof own === 'number' && own !== -ENOENT) throw new KernelError('reading its attributes', -own)
  if (names === null || typeof stat === 'number' || own === null || typeof own === 'number') return null
  const listing: Listing = { own, entries: [], skipped: [] }
  for (const [index, name] of names.sort().entries()) {
    if (index % progressEvery === progressEvery - 1) part.onProgress()
    if ((path === '' && name === workFolderName) || part.filter.isExcluded(path, name)) continue
    const entry = listEntry(part, { fd, name, device: stat.device })
    if (entry === 'skipped') listing.skipped.push(joinPath(path, name))
    else if (entry !== null) listing.entries.push(entry)
  }
  return listing
}

function listEntry(
  part: ListingPart,
  at: { fd: number; name: string; device: number },
): ListedEntry | 'skipped' | null {
  const stat = statAt(at.fd, at.name)
  if (typeof stat === 'number') return null
  if (stat.kind === 'other' || stat.device !== at.device) return 'skipped'
  if (stat.kind === 'directory') return { name: at.name, meta: someDirectory }
  const meta = readMeta({ dirFd: at.fd, name: at.name }, stat, { linked: part.isLinked(stat) })
  if (meta === null || typeof meta === 'number') return null
  part.onFile?.(at.name, stat)
  return { name: at.name, meta }
}

const someDirectory: Meta = {
  kind: 'directory',
  mode: 0,
  uid: 0,
  gid: 0,
  size: 0,
  mtimeS: 0,
  mtimeNs: 0,
  linked: false,
  attributes: [],
  target: '',
}

/** SHA-256 over the directory itself and what it lists. */
export function digestOf(listing: Listing): Buffer {
  const hash = createHash('sha256').update(metaBytes(listing.own))
  for (const { name, meta } of listing.entries) hash.update(`\0${name}\0`, 'latin1').update(metaBytes(meta))
  return hash.digest()
}

/** What the one that is right has and the other has not or differently, and what the other has in surplus. */
export function differences(right: Listing, other: Listing): { names: string[]; surplus: string[] } {
  const there = new Map(other.entries.map(({ name, meta }) => [name, metaBytes(meta)]))
  const names: string[] = []
  for (const { name, meta } of right.entries) {
    if (there.get(name)?.equals(metaBytes(meta)) !== true) names.push(name)
    there.delete(name)
  }
  return { names, surplus: [...there.keys()] }
}
