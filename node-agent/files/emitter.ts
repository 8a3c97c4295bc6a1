import { closeSync, readSync } from 'node:fs'
import {
  EIO,
  ELOOP,
  ENOTDIR,
  ESTALE,
  EXDEV,
  type FileStat,
  O_NONBLOCK,
  openAt,
  statAt,
  statFd,
} from '../kernel/file-calls.ts'
import { ENOENT } from '../kernel/libc.ts'
import { BigFile, changedMs, isSameStat, type Known, modifiedMs, smallBytesMax } from './big-file.ts'
import { type EmitterPart, type FileInHand, type Said, type Transfer, unreadableWhy } from './emitter-part.ts'
import { KnownHashes } from './known-hashes.ts'
import type { FilePlace } from './link-index.ts'
import { type OtherName, otherNames, someTwin } from './linked-names.ts'
import { type DirectoryNode, longWhy, mountedWhy, unreachable } from './local-tree.ts'
import { readMeta } from './meta.ts'
import { joinPath, pathBytesMax } from './names.ts'
import type { Entry, Lane, NameEntry, NodeEntry, RenameEntry } from './work-queue.ts'

/** A file that changes while it is read is looked at again so often; then it is sent as it was read. */
const readAttempts = 3
const readAgainMs = 30
/** A directory that is not where it was: its event is read at the next turn. */
const movedMs = 1
/** Then only a comparison can find it. */
const movedAttempts = 50
/** What could not be read (a bad disk) is tried again at this pace. */
const unreadableMs = 2000
/** A large file that is still written to is sent when it was left alone for so long … */
const bigQuietMs = 50
/** … or at the latest after this. */
const bigLatestMs = 2000
/** Up to this size a file is sent sooner than the backup has said what it has of it. */
const wholeBytesMax = 8 * 2 ** 20

/** Turns what waits into operations: looks at what is there now, and says it. */
export class Emitter {
  /** Directories in which something was sent: their times come after. */
  readonly touched = new Map<DirectoryNode, { since: number; lane: Lane }>()
  readonly #part: EmitterPart
  readonly known = new KnownHashes()
  #streams = 0

  constructor(part: EmitterPart) {
    this.#part = part
  }

  /** A transfer when it is a large file; null when all is said. */
  emit(entry: NameEntry | NodeEntry | RenameEntry): Transfer | null {
    if (entry.kind === 'node') {
      const said = entry.dir.isGone ? 'said' : this.#directory(entry.dir, entry)
      if (said === 'said') return null
      const dueMs = this.#part.now() + (said === 'moved' ? movedMs : unreadableMs)
      this.#part.queue.directory(entry.dir, { lane: 'settling', since: entry.since, dueMs })
      return null
    }
    if (entry.kind === 'rename') return this.#rename(entry)
    return entry.dir.isGone ? null : this.#name(entry)
  }

  /** The backup's file is not what the hashes were made from. */
  forgetFile(dir: DirectoryNode, name: string): void {
    const stat = statAt(dir.open(this.#part.tree), name)
    if (typeof stat !== 'number') this.known.forget(stat.ino)
  }

  #touch(dir: DirectoryNode, entry: Entry): void {
    const { since = entry.since, lane = entry.lane } = this.touched.get(dir) ?? {}
    this.touched.set(dir, { since: Math.min(since, entry.since), lane: entry.lane === 'live' ? 'live' : lane })
  }

  #directory(dir: DirectoryNode, entry: Entry): Said {
    const above = dir.parent === null || dir.remoteParent === null ? 'said' : this.#ensure(dir.remoteParent, entry)
    if (above !== 'said') return above
    const why = unreachable(dir, this.#part.tree)
    if (why !== null) {
      this.#part.problem(dir.path, why)
      return 'said'
    }
    const fd = dir.open(this.#part.tree)
    const stat = fd < 0 ? fd : statAt(fd, '')
    if (typeof stat === 'number') return 'moved'
    const meta = readMeta({ dirFd: fd, name: '' }, stat)
    if (meta === null) return 'moved'
    if (typeof meta === 'number') {
      this.#part.problem(dir.path || '.', unreadableWhy(meta))
      return 'unreadable'
    }
    this.#part.problem(dir.path || '.', null)
    const wasKnown = dir.isKnown
    if (!wasKnown && dir.parent !== null && !this.#part.mayBeSent(Math.min(changedMs(stat), modifiedMs(stat))))
      return 'moved'
    dir.isKnown = true
    const again: NodeEntry = { kind: 'node', dir, since: entry.since, lane: entry.lane, dueMs: 0 }
    this.#part.send({ op: 'directory', path: dir.remotePath, meta }, again)
    if (!wasKnown && dir.remoteParent !== null) this.#touch(dir.remoteParent, entry)
    return 'said'
  }

  /** What lies in a directory can only be said when the backup has that directory. */
  #ensure(dir: DirectoryNode, entry: Entry): Said {
    if (dir.isKnown || dir.parent === null) return 'said'
    return this.#directory(dir, entry)
  }

  #rename(entry: RenameEntry): null {
    const { node, from, to } = entry
    // Elsewhere by now, or gone: what became of it is said by what follows.
    const path = joinPath(from.dir.remotePath, from.name)
    this.#ensure(to.dir, entry)
    const toPath = joinPath(to.dir.remotePath, to.name)
    if (Math.max(path.length, toPath.length) > pathBytesMax) return this.#renamedBeyond(entry, path)
    this.#part.send({ op: 'rename', path, to: toPath }, entry)
    // What is not compared yet may be stale, and moves to where nobody would look again.
    if (!this.#part.isCompared()) {
      const since = entry.since
      this.#part.queue.compare(node ?? to.dir, { lane: 'bulk', since })
    }
    if (node !== null) {
      node.remoteParent = to.dir
      node.remoteName = to.name
      // The look at what took its place may have had its turn before this one.
      if (node.isGone) this.#part.queue.changed(to.dir, to.name, { lane: 'live', since: entry.since })
    } else {
      this.#noteRenamed(to, entry)
    }
    this.#touch(from.dir, entry)
    this.#touch(to.dir, entry)
    return null
  }

  /** Of one of the two places the backup can't be told. */
  #renamedBeyond(entry: RenameEntry, path: string): null {
    const { node, from, to, since } = entry
    const { queue, send } = this.#part
    if (path.length <= pathBytesMax) send({ op: 'remove', path }, entry)
    this.#touch(from.dir, entry)
    if (node === null) queue.changed(to.dir, to.name, { lane: 'live', since, isWritten: true, isClosed: true })
    else {
      for (const one of node.all()) one.isKnown = false
      node.remoteParent = to.dir
      node.remoteName = to.name
      queue.directory(node, { lane: 'live', since })
      queue.compare(node, { lane: 'live', since })
    }
    return null
  }

  /** A name that was missing when another one of the same file was sent may hold an older version on the backup. */
  #noteRenamed(to: FilePlace, { since }: RenameEntry): void {
    const { links, queue, tree } = this.#part
    const stat = statAt(to.dir.open(tree), to.name)
    if (typeof stat !== 'number') links.note(stat.ino, to.dir, to.name)
    if (typeof stat !== 'number' && !links.isPartial(stat.ino)) return
    queue.changed(to.dir, to.name, { lane: 'live', since, isWritten: true, isClosed: true })
  }

  #name(entry: NameEntry): Transfer | null {
    const { dir, name } = entry
    const { tree, queue, problem, gone, send } = this.#part
    const here = joinPath(dir.path, name)
    const path = joinPath(dir.remotePath, name)
    const isLong = Math.max(path.length, here.length) > pathBytesMax
    const fd = dir.open(tree)
    const stat = fd < 0 ? fd : statAt(fd, name)
    if (fd >= 0 && stat === -ENOENT) {
      gone(here)
      if (!entry.isNew && !isLong) send({ op: 'remove', path }, entry)
      dir.halfSent.delete(name)
      this.#touch(dir, entry)
      return null
    }
    if (isLong || fd === -EXDEV) {
      problem(path, isLong ? longWhy : mountedWhy)
      return null
    }
    // The directory is elsewhere, and the event that says where is on its way.
    if (fd < 0) return this.#again(entry, entry.failures < movedAttempts ? movedMs : unreadableMs)
    if (typeof stat === 'number') return this.#unreadable(entry, path, stat)
    const above = this.#ensure(dir, entry)
    if (above !== 'said') return this.#again(entry, above === 'moved' ? readAgainMs : unreadableMs)
    this.#touch(dir, entry)
    switch (stat.kind) {
      case 'directory': {
        const child = dir.children.get(name) ?? this.#part.adopt(dir, name)
        if (child === null) return this.#notTakenIn(entry, path)
        this.#directory(child, entry)
        queue.compare(child, { lane: entry.lane, since: entry.since })
        return null
      }
      case 'other':
        problem(path, 'sockets, FIFOs and devices are not replicated')
        if (!entry.isNew) send({ op: 'remove', path }, entry)
        return null
      case 'symlink': {
        const others = otherNames(this.#part, stat, entry)
        if (others === null) return this.#again(entry, movedMs)
        const meta = readMeta({ dirFd: fd, name }, stat, { linked: others.length > 0 })
        if (meta === null || typeof meta === 'number') return this.#unreadable(entry, path, meta ?? -ENOENT)
        if (!this.#part.mayBeSent(changedMs(stat))) return this.#again(entry, movedMs, 'settling')
        send({ op: 'symlink', path, meta }, entry)
        this.#linkOthers(path, entry, others)
        return null
      }
      case 'file':
        return this.#file(entry, path, fd)
    }
  }

  /** A directory that can't be opened as one of this tree. */
  #notTakenIn(entry: NameEntry, path: string): null {
    const { tree, problem } = this.#part
    const fd = tree.fresh(joinPath(entry.dir.path, entry.name))
    if (fd === -EXDEV) {
      problem(path, mountedWhy)
      return null
    }
    const isMoving = fd >= 0 || [-ENOENT, -ESTALE, -ENOTDIR, -ELOOP].includes(fd)
    return isMoving ? this.#again(entry, readAgainMs) : this.#unreadable(entry, path, fd)
  }

  /** settling: nothing is wrong with it. */
  #again(entry: NameEntry, afterMs: number, why: 'failed' | 'settling' = 'failed'): null {
    this.#part.queue.retry(entry, this.#part.now() + afterMs, why)
    return null
  }

  #unreadable(entry: NameEntry, path: string, errno: number): null {
    // Something else has the name by now.
    if (errno === -ENOENT) return this.#again(entry, readAgainMs)
    this.#part.problem(path, unreadableWhy(errno))
    return this.#again(entry, unreadableMs)
  }

  #file(entry: NameEntry, path: string, dirFd: number): Transfer | null {
    const fd = openAt(dirFd, entry.name, { flags: O_NONBLOCK })
    if (fd === -ENOENT || fd === -ELOOP) return this.#again(entry, 0)
    if (fd < 0) return this.#unreadable(entry, path, fd)
    let keepOpen = false
    try {
      const stat = statFd(fd)
      if (typeof stat === 'number' || stat.kind !== 'file') return this.#again(entry, 0)
      const twin = entry.isNew && !entry.isWritten ? someTwin(this.#part, stat, entry) : null
      if (twin !== null) {
        this.#part.links.note(stat.ino, entry.dir, entry.name)
        this.#part.send({ op: 'link', path: twin, to: path }, entry)
        return null
      }
      const others = otherNames(this.#part, stat, entry)
      if (others === null) return this.#again(entry, movedMs)
      const meta = readMeta({ dirFd: fd, name: '' }, stat, { linked: others.length > 0 })
      if (meta === null || typeof meta === 'number') return this.#unreadable(entry, path, meta ?? -ENOENT)
      this.#part.problem(path, null)
      if (!this.#part.mayBeSent(changedMs(stat))) return this.#again(entry, movedMs, 'settling')
      if (entry.onlyAttributes && !entry.isNew) {
        this.#part.send({ op: 'attributes', path, meta }, entry)
        // On the backup its names may belong to separate files, until a comparison ties them together again.
        for (const other of others) this.#part.send({ op: 'attributes', path: other.path, meta }, entry)
        return null
      }
      if (stat.size > smallBytesMax) {
        if (this.#isBeingWritten(entry, stat)) return null
        keepOpen = true
        return this.#big({ entry, path, fd, stat, meta })
      }
      return this.#small({ entry, path, fd, stat, meta, others })
    } catch (error) {
      const errno = error instanceof Error && 'errno' in error ? Number(error.errno) : -EIO
      return this.#unreadable(entry, path, errno)
    } finally {
      if (!keepOpen) closeSync(fd)
    }
  }

  /** Still open, and written to a moment ago: it waits for its writer, but not for long. */
  #isBeingWritten(entry: NameEntry, stat: FileStat): boolean {
    const nowMs = this.#part.now()
    // The time is that of a write's beginning, and one call may write for seconds: then the size grows.
    const isResting = Date.now() - modifiedMs(stat) >= bigQuietMs && entry.seenBytes === stat.size
    if (entry.lane === 'bulk' || entry.isClosed || isResting || nowMs - entry.firstMs >= bigLatestMs) return false
    entry.seenBytes = stat.size
    this.#part.queue.retry(entry, nowMs + bigQuietMs / 2, 'settling')
    return true
  }

  #small(file: FileInHand): null {
    const { entry, path, fd, stat, meta, others } = file
    const content = Buffer.allocUnsafe(stat.size)
    let got = 0
    while (got < stat.size) {
      const read = readSync(fd, content, got, stat.size - got, got)
      if (read === 0) break
      got += read
    }
    if ((got < stat.size || !isSameStat(statFd(fd), stat)) && entry.failures < readAttempts) {
      return this.#again(entry, readAgainMs)
    }
    const sparse = stat.allocated < stat.size
    this.#part.send({ op: 'put', path, meta: { ...meta, size: got }, sparse, content: content.subarray(0, got) }, entry)
    this.#noteHalf(entry)
    if (got < stat.size) this.#again({ ...entry, isNew: false }, readAgainMs)
    this.#linkOthers(path, entry, others)
    return null
  }

  #noteHalf({ dir, name, isClosed, isWritten }: NameEntry): void {
    if (isWritten && !isClosed) dir.halfSent.add(name)
    else dir.halfSent.delete(name)
  }

  #big(file: Omit<FileInHand, 'others'>): Transfer {
    const { entry, path, fd, stat, meta } = file
    const { dir, name } = entry
    dir.sending.set(name, entry)
    const end = (): void => {
      dir.sending.delete(name)
      closeSync(fd)
    }
    let big: BigFile | null = null
    const isWhole = entry.isNew || stat.size <= wholeBytesMax
    let known: Known | null | undefined = this.known.get(stat.ino) ?? (isWhole ? null : undefined)
    const open = (): BigFile => {
      this.#streams += 1
      const { hashKey: key, stream: send, sendData, pool } = this.#part
      return new BigFile({
        fd,
        stream: this.#streams,
        path,
        meta,
        before: stat,
        key,
        known: known ?? null,
        send,
        sendData,
        pool,
      })
    }
    if (known === undefined) {
      void this.#part.askHashes(path, entry).then(found => {
        known = found
      })
    }
    return {
      entry,
      step: () => {
        if (known === undefined) return null
        big ??= open()
        if (big.step()) return true
        const isUnchanged = big.isUnchanged()
        // While it was read, its directory may have been renamed, and other names of it made or replaced.
        const isThere = !dir.isGone && joinPath(dir.remotePath, name) === path && this.#isAt(stat, entry)
        const now = statFd(fd)
        const others = isThere && typeof now !== 'number' ? otherNames(this.#part, now, entry) : null
        if (others === null || (!isUnchanged && entry.failures < readAttempts)) {
          this.#part.stream({ op: 'abort', stream: big.stream })
          end()
          if (!dir.isGone) this.#again(entry, readAgainMs)
          return false
        }
        const result = big.result()
        if (result === null) this.known.forget(stat.ino)
        const sent = result === null ? undefined : { ino: stat.ino, known: result }
        this.#part.send({ op: 'end', stream: big.stream }, entry, sent)
        this.#noteHalf(entry)
        // Its times may have been sent while this was on its way.
        this.#touch(dir, entry)
        end()
        if (!isUnchanged) this.#again({ ...entry, isNew: false }, readAgainMs)
        this.#linkOthers(path, entry, others)
        return false
      },
      abort: end,
    }
  }

  /** Whether it is still this file that has the name. */
  #isAt(stat: FileStat, { dir, name }: NameEntry): boolean {
    const fd = dir.open(this.#part.tree)
    const there = fd < 0 ? fd : statAt(fd, name)
    return typeof there !== 'number' && there.ino === stat.ino
  }

  /** A new file took this name on the backup: its other names follow, and need not be looked at themselves. */
  #linkOthers(path: string, entry: NameEntry, others: readonly OtherName[]): void {
    for (const other of others) {
      entry.since = Math.min(entry.since, this.#part.queue.lookedAt(other.dir, other.name))
      this.#part.send({ op: 'link', path, to: other.path }, entry)
      this.#touch(other.dir, entry)
    }
  }
}
