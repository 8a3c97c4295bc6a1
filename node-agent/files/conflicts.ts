import { fdatasyncSync, readFileSync } from 'node:fs'
import {
  closeFile,
  EIO,
  type FileStat,
  makeDirectoryAt,
  O_CREAT,
  O_DIRECTORY,
  O_RDWR,
  openAt,
  type Place,
  RENAME_NOREPLACE,
  renameAt,
  statFd,
  truncateFd,
} from '../kernel/file-calls.ts'
import { EEXIST, ENOENT } from '../kernel/libc.ts'
import type { Keeper } from './applier.ts'
import { changedMs } from './big-file.ts'
import { showName } from './names.ts'
import { conflictsName } from './recovery.ts'
import type { RoleRecord } from './role-file.ts'
import { writeAll } from './staging.ts'
import type { WorkFolder } from './work-folder.ts'

/** Two versions of one path within an epoch are rare; more than this is a loop. */
const samePathMax = 1000
/** For events; the manifest has all. */
const namedMax = 20
const manifestName = 'manifest.jsonl'

type OwnChanges = NonNullable<RoleRecord['ownChanges']>

/**
 * Keeps what a returning primary had and the new primary had not: each version that the new primary's state replaces
 * goes, with its path, to `conflicts/EPOCH/files` in the work folder, and into `conflicts/EPOCH/manifest.jsonl`.
 * Nothing is merged and nothing is judged by its time; only what the other host has acknowledged is let go.
 */
export class ConflictKeeper implements Keeper {
  readonly isIndifferent = false
  kept: number
  readonly named: string[]
  readonly #folder: WorkFolder
  readonly #own: OwnChanges
  /** Nothing, as long as nobody has said that it is the copy that had it. */
  #provenUntilMs = 0
  /** Files that the new primary has sent since: their times are of today, and they are not this host's own. */
  readonly #fromPrimary = new Set<number>()
  #filesFd = -1
  #epochFd = -1
  #manifestFd = -1

  /** What an earlier life of this process has kept counts too. @throws when its list can't be read */
  constructor(folder: WorkFolder, own: OwnChanges) {
    this.#folder = folder
    this.#own = own
    const listed = wholeLines(readManifest(`/proc/self/fd/${folder.fd}/${conflictsName}/${own.epoch}`))
    const lines = listed.toString('utf8').split('\n').slice(0, -1)
    this.kept = lines.length
    this.named = lines.slice(0, namedMax).map(line => (JSON.parse(line) as { path: string }).path)
  }

  /** Where it is kept, for people. */
  get place(): string {
    return `${this.#folder.path}/${conflictsName}/${this.#own.epoch}`
  }

  from(copy: string): void {
    const { copy: proven, provenUntilMs } = this.#own
    this.#provenUntilMs = proven !== '' && copy === proven ? provenUntilMs : 0
  }

  placed(stat: FileStat): void {
    this.#fromPrimary.add(stat.ino)
  }

  wants(stat: FileStat): boolean {
    if (this.#fromPrimary.has(stat.ino)) return false
    return changedMs(stat) >= this.#provenUntilMs
  }

  take(at: Place, path: string, stat: FileStat): number {
    // A directory may hold anything; it is kept as it is.
    if (stat.kind !== 'directory' && !this.wants(stat)) return this.#folder.discard(at)
    const opened = this.#open()
    if (opened < 0) return opened
    const list = statFd(this.#manifestFd)
    if (typeof list === 'number') return list
    // The list comes first, and durably: nothing lies there of which it does not know.
    const errno = this.#list(path, stat, list.size) || this.#move(at, path)
    if (errno < 0) {
      truncateFd(this.#manifestFd, list.size)
      return errno
    }
    this.kept += 1
    if (this.named.length < namedMax) this.named.push(showName(path))
    return 0
  }

  #list(path: string, stat: FileStat, offset: number): number {
    const { kind, size, ctimeS } = stat
    const bytes = Buffer.from(path, 'latin1').toString('base64')
    const line = { path: showName(path), bytes, kind, size, changed: new Date(ctimeS * 1000).toISOString() }
    const written = writeAll(this.#manifestFd, Buffer.from(`${JSON.stringify(line)}\n`), offset)
    if (written < 0) return written
    try {
      fdatasyncSync(this.#manifestFd)
      return 0
    } catch (error) {
      return error instanceof Error && 'errno' in error ? Number(error.errno) : -EIO
    }
  }

  #open(): number {
    if (this.#filesFd >= 0) return 0
    const conflicts = makeAndOpen(this.#folder.fd, conflictsName)
    if (conflicts < 0) return conflicts
    this.#epochFd = makeAndOpen(conflicts, String(this.#own.epoch))
    closeFile(conflicts)
    if (this.#epochFd < 0) return this.#epochFd
    this.#manifestFd = openAt(this.#epochFd, manifestName, { flags: O_CREAT | O_RDWR, mode: 0o600 })
    if (this.#manifestFd < 0) return this.#manifestFd
    const cut = truncateFd(this.#manifestFd, wholeLines(readManifest(`/proc/self/fd/${this.#epochFd}`)).length)
    if (cut < 0) return cut
    this.#filesFd = makeAndOpen(this.#epochFd, 'files')
    return Math.min(0, this.#filesFd)
  }

  #move(at: Place, path: string): number {
    const names = path.split('/')
    const last = names.pop()!
    let fd = this.#filesFd
    for (const name of names) {
      const next = makeAndOpen(fd, name)
      if (fd !== this.#filesFd) closeFile(fd)
      if (next < 0) return next
      fd = next
    }
    let moved = -EEXIST
    for (let number = 0; moved === -EEXIST && number < samePathMax; number += 1) {
      const name = number === 0 ? last : `${last.slice(0, 240)}~${number}`
      moved = renameAt(at, { dirFd: fd, name }, RENAME_NOREPLACE)
    }
    if (fd !== this.#filesFd) closeFile(fd)
    return moved
  }

  close(): void {
    for (const fd of [this.#filesFd, this.#manifestFd, this.#epochFd]) if (fd >= 0) closeFile(fd)
    this.#filesFd = -1
    this.#manifestFd = -1
    this.#epochFd = -1
  }
}

function readManifest(folder: string): Buffer {
  try {
    return readFileSync(`${folder}/${manifestName}`)
  } catch (error) {
    if (error instanceof Error && 'errno' in error && error.errno === -ENOENT) return Buffer.alloc(0)
    throw error
  }
}

/** Without a line that a crash has cut short: nothing was moved for it. */
const wholeLines = (manifest: Buffer): Buffer => manifest.subarray(0, manifest.lastIndexOf('\n') + 1)

/** A file may stand where a directory is needed: it was kept under that name before. */
function makeAndOpen(dirFd: number, name: string): number {
  for (let number = 0; number < samePathMax; number += 1) {
    const tried = number === 0 ? name : `${name.slice(0, 240)}~${number}`
    const made = makeDirectoryAt(dirFd, tried)
    if (made < 0 && made !== -EEXIST) return made
    const fd = openAt(dirFd, tried, { flags: O_DIRECTORY })
    if (fd >= 0) return fd
  }
  return -EEXIST
}
