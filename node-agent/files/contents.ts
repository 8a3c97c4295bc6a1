import { closeSync } from 'node:fs'
import { type FileStat, O_NONBLOCK, openAt, statAt, statFd } from '../kernel/file-calls.ts'
import { isSameStat, readFully } from './big-file.ts'
import { hashBlock } from './block-hashes.ts'
import type { NewOperation } from './emitter-part.ts'
import type { Filter } from './filter.ts'
import { isReplicated } from './listing.ts'
import type { DirectoryNode } from './local-tree.ts'
import { joinPath, pathBytesMax, showName } from './names.ts'
import { namesInSlices } from './parts.ts'
import type { Tree } from './tree.ts'
import type { Entry, VerifyEntry, WorkQueue } from './work-queue.ts'

export interface ContentsPart {
  tree: Tree
  filter: Filter
  root: DirectoryNode
  queue: WorkQueue
  hashKey: Buffer
  now: () => number
  note: (why: string) => void
  send: (operation: NewOperation, entry: Entry) => number
  /** How fast a pass reads, on each side. */
  bytesPerS: number
}

/** Read, hashed and compared at once. */
const chunkBytes = 1024 * 1024
/** A small file costs as much as so many bytes, so that the rate also bounds what many of them cost. */
const fileCostBytes = 16 * 1024
/** Credit for a pause; what was not read in time is not made up for. */
const burstMs = 50
const differencesNoted = 10

export interface ContentVerdict {
  files: number
  bytes: number
  differences: number
  tookMs: number
  endedMs: number
}

/**
 * Compares what the files contain, which equal times and sizes only suggest: a pass reads everything, chunk by chunk, at
 * a bounded rate and only when nothing else is to be sent. Each chunk is a question within the log, so that the backup
 * compares it with the state as of this place; a file that changes meanwhile has another time there or here, and is no
 * difference. What differs is sent again.
 */
export class Contents {
  readonly #part: ContentsPart
  #pass: {
    walk: Generator<VerifyEntry | null>
    files: number
    bytes: number
    differences: number
    beganMs: number
  } | null = null
  #file: Verification | null = null
  /** Questions of the pass that wait for their answers. */
  readonly #open = new Set<number>()
  #nextMs = 0
  #last: ContentVerdict | null = null
  /** Of the last difference that was found: the copies differ until what repairs it has arrived. */
  divergedMark = Number.NEGATIVE_INFINITY

  constructor(part: ContentsPart) {
    this.#part = part
  }

  /** From the beginning; one that runs already goes on. */
  begin(): void {
    if (this.#pass !== null) return
    this.#pass = { walk: this.#walk(), files: 0, bytes: 0, differences: 0, beganMs: this.#part.now() }
  }

  /** The connection was cut: the file in hand has its turn in the next pass. */
  cut(): void {
    this.#open.clear()
    this.#file?.end()
    this.#file = null
  }

  /** When {@link step} has something to do; Infinity when no pass runs. */
  get dueMs(): number {
    return this.#pass === null ? Number.POSITIVE_INFINITY : this.#nextMs
  }

  /** One chunk, or one directory's names. False when nothing is to be done now. */
  step(): boolean {
    const pass = this.#pass
    const nowMs = this.#part.now()
    if (pass === null || nowMs < this.#nextMs) return false
    if (this.#file === null) {
      const next = pass.walk.next()
      if (next.done === true) {
        if (this.#open.size > 0) return false
        this.#ended()
        return true
      }
      if (next.value === null) return true
      this.#file = this.verify(next.value)
      pass.files += 1
      this.#spend(fileCostBytes)
    }
    const read = this.#file.step()
    if (read === null) this.#file = null
    else {
      pass.bytes += read
      this.#spend(read)
    }
    return true
  }

  verify(entry: VerifyEntry): Verification {
    const send = (operation: NewOperation, of: Entry): number => {
      const seq = this.#part.send(operation, of)
      if (entry.isScrub) this.#open.add(seq)
      return seq
    }
    return new Verification({ ...this.#part, send }, entry)
  }

  /** The backup has something else under the same size and time. It is on its way already. */
  differs({ dir, name, isScrub }: VerifyEntry): void {
    if (!isScrub) return
    const { note, tree, queue } = this.#part
    this.divergedMark = queue.nextMark()
    if (this.#pass !== null) this.#pass.differences += 1
    if ((this.#pass?.differences ?? 0) > differencesNoted) return
    note(`${tree.path}: the contents of ${showName(joinPath(dir.path, name))} differ on the backup; they are repaired`)
  }

  acknowledged(seq: number): void {
    this.#open.delete(seq)
  }

  #spend(bytes: number): void {
    const ms = (bytes / this.#part.bytesPerS) * 1000
    this.#nextMs = Math.max(this.#nextMs, this.#part.now() - burstMs) + ms
  }

  #ended(): void {
    const { files, bytes, differences, beganMs } = this.#pass!
    const endedMs = this.#part.now()
    this.#pass = null
    this.#last = { files, bytes, differences, tookMs: Math.round(endedMs - beganMs), endedMs }
  }

  *#walk(): Generator<VerifyEntry | null> {
    const { tree, root, filter } = this.#part
    for (const dir of root.all()) {
      // A directory that is on its way has its turn in the next pass.
      const fd = dir.isGone ? -1 : dir.open(tree)
      for (const names of fd < 0 ? [] : readable(fd)) {
        yield null
        for (const name of names) {
          if (!isReplicated(filter, dir.path, name)) continue
          yield { kind: 'verify', dir, name, since: Number.POSITIVE_INFINITY, lane: 'bulk', isScrub: true }
        }
      }
    }
  }

  status() {
    const { queue } = this.#part
    const pass = this.#pass
    return {
      running: pass === null ? null : { files: pass.files, bytes: pass.bytes, differences: pass.differences },
      last: this.#last,
      waiting: queue.length,
    }
  }
}

/** What can't be listed is said by a comparison. */
function* readable(dirFd: number): Generator<string[]> {
  try {
    yield* namesInSlices(dirFd)
  } catch {}
}

/** One file, chunk by chunk. */
export class Verification {
  readonly entry: VerifyEntry
  readonly #part: ContentsPart
  #fd = -1
  #stat: FileStat | null = null
  #offset = 0

  constructor(part: ContentsPart, entry: VerifyEntry) {
    this.#part = part
    this.entry = entry
  }

  /** Bytes that were read; null when it is done, or can't tell: it is not a file, or a change of it is on its way. */
  step(): number | null {
    const { dir, name } = this.entry
    const { queue, hashKey, send } = this.#part
    const path = joinPath(dir.remotePath, name)
    const isMoving =
      dir.isGone || path.length > pathBytesMax || dir.sending.has(name) || queue.waiting(dir, name) !== undefined
    const stat = isMoving ? null : (this.#stat ?? this.#open())
    if (stat === null) return this.end()
    const length = Math.min(chunkBytes, stat.size - this.#offset)
    const chunk = Buffer.allocUnsafe(length)
    try {
      readFully(this.#fd, chunk, this.#offset)
    } catch {
      // Said when it is read to be sent; here it only can't be compared.
      return this.end()
    }
    if (!isSameStat(statFd(this.#fd), stat)) return this.end()
    const { size, mtimeS, mtimeNs } = stat
    const base = { of: 'file', size, mtimeS, mtimeNs } as const
    send({ op: 'verify', path, base, offset: this.#offset, length, hash: hashBlock(hashKey, chunk) }, this.entry)
    this.#offset += length
    if (this.#offset >= size) this.end()
    return length
  }

  #open(): FileStat | null {
    if (this.#offset > 0) return null
    const { dir, name } = this.entry
    const dirFd = dir.open(this.#part.tree)
    const there = dirFd < 0 ? dirFd : statAt(dirFd, name)
    if (typeof there === 'number' || there.kind !== 'file') return null
    const fd = openAt(dirFd, name, { flags: O_NONBLOCK })
    if (fd < 0) return null
    this.#fd = fd
    const stat = statFd(fd)
    this.#stat = typeof stat === 'number' || stat.kind !== 'file' ? null : stat
    return this.#stat
  }

  end(): null {
    if (this.#fd >= 0) closeSync(this.#fd)
    this.#fd = -1
    this.#stat = null
    // Nothing more is read of it.
    this.#offset = Number.POSITIVE_INFINITY
    return null
  }
}
