import { createHash } from 'node:crypto'
import { type FileStat, statAt } from '../kernel/file-calls.ts'
import { ENOENT, KernelError } from '../kernel/libc.ts'
import type { Filter } from './filter.ts'
import type { ListedEntry } from './messages.ts'
import { type Meta, metaBytes, readMeta } from './meta.ts'
import { joinPath, workFolderName } from './names.ts'

/** A part of a directory as it is on disk: what the two hosts compare. */
export interface Listing {
  /** Of the directory itself; null in all parts but the first. */
  own: Meta | null
  /** Sorted by name. Of a directory only its name and kind count here: the rest is in its own listing. */
  entries: ListedEntry[]
  /** Sockets, FIFOs, devices, other mounts. */
  skipped: string[]
}

export interface ListingPart {
  /** The open directory; negative: it could not be opened. */
  fd: number
  path: string
  /** Those that are not there (any more) are left out. */
  names: Iterable<string>
  what: 'with the directory itself' | 'names alone'
  /** Whether another name of this file is known in the tree. */
  isLinked: (stat: FileStat) => boolean
  /** Told of each file that is listed. */
  onFile?: (name: string, stat: FileStat) => void
}

/** Whether a name in this directory is replicated. */
export const isReplicated = (filter: Filter, path: string, name: string): boolean =>
  !(path === '' && name === workFolderName) && !filter.isExcluded(path, name)

/** Null when the directory is not there, or not to be reached without leaving the tree. @throws what the disk says */
export function listNames(part: ListingPart): Listing | null {
  const { fd, path, what } = part
  const stat = fd < 0 ? fd : statAt(fd, '')
  if (typeof stat === 'number') return null
  const own = what === 'names alone' ? null : readMeta({ dirFd: fd, name: '' }, stat)
  if (typeof own === 'number') {
    if (own === -ENOENT) return null
    throw new KernelError('reading its attributes', -own)
  }
  const listing: Listing = { own, entries: [], skipped: [] }
  for (const name of [...part.names].sort()) {
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
export function digestOf({ own, entries }: Listing): Buffer {
  const hash = createHash('sha256')
  if (own !== null) hash.update(metaBytes(own))
  for (const { name, meta } of entries) hash.update(`\0${name}\0`, 'latin1').update(metaBytes(meta))
  return hash.digest()
}

/** What the one that is right has and the other has not or differently, and what the other has in surplus. */
export function differences(
  right: readonly ListedEntry[],
  other: readonly ListedEntry[],
): { names: string[]; surplus: string[] } {
  const there = new Map(other.map(({ name, meta }) => [name, metaBytes(meta)]))
  const names: string[] = []
  for (const { name, meta } of right) {
    if (there.get(name)?.equals(metaBytes(meta)) !== true) names.push(name)
    there.delete(name)
  }
  return { names, surplus: [...there.keys()] }
}
