import { closeSync, readSync, statfsSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { dropCached, type FileStat, O_NONBLOCK, openAt, type Place, statAt, statFd } from '../kernel/file-calls.ts'
import { Applier, codeOf, isBase, type Keeper } from './applier.ts'
import { readFully } from './big-file.ts'
import { blockBytes, blockCount, hashBlock, hashBytes, hashStartOf, isHashed } from './block-hashes.ts'
import { CopyNames } from './copy-names.ts'
import { makeFilter } from './filter.ts'
import { differences, digestOf, type Listing, listNames } from './listing.ts'
import { encode, type FromReceiver, type FromSender, type Hello, type NackCode, type Operation } from './messages.ts'
import { joinPath, splitPath } from './names.ts'
import { crowdedNames, type Part, Turns } from './parts.ts'
import { recover } from './recovery.ts'
import { type Arriving, type Staged, Staging } from './staging.ts'
import { Sweeper } from './sweeper.ts'
import type { Tree } from './tree.ts'
import { WorkFolder } from './work-folder.ts'

export interface ReceiverPart {
  tree: Tree
  /** What is done with versions that disappear; changes with the roles. */
  keeper: (folder: WorkFolder) => Keeper
  note: (why: string) => void
  /** A comparison of the whole tree has ended. */
  onCompared: (verdict: { manifest: string; files: number; differences: number }) => void
}

/** One group of operations that becomes durable together: bounds what a crash can take, and how long a flush lasts. */
const groupMax = 4096
const groupBytesMax = 64 * 2 ** 20
/** Hashing a base gives way to the loop after so many blocks. */
const blocksAtOnce = 16

type Pending =
  | { operation: Exclude<Operation, { op: 'put' | 'end' }> }
  | { operation: { op: 'put'; seq: number; path: string }; staged: Staged }
  | { operation: { op: 'end'; seq: number; path: string }; arriving: Arriving }

/**
 * The backup's side of one tree. Operations arrive in order, are staged as they come, and are put into effect in groups:
 * contents durable, names changed, names durable, acknowledged.
 */
export class Receiver {
  readonly #part: ReceiverPart
  readonly #folder: WorkFolder
  readonly #staging: Staging
  readonly #applier: Applier
  #pending: Pending[] = []
  #pendingBytes = 0
  #working: Promise<void> | null = null
  #send: ((frame: Buffer) => void) | null = null
  #log = ''
  #applied = 0
  #hashKey: Buffer = Buffer.alloc(0)
  readonly #names: CopyNames
  #keeper: Keeper
  readonly #sweeper: Sweeper
  /** How much of the file that is being verified was equal, from its beginning. */
  #verified = { path: '', bytes: 0 }
  receivedBytes = 0

  private constructor(part: ReceiverPart, folder: WorkFolder) {
    this.#part = part
    this.#folder = folder
    this.#staging = new Staging(folder)
    const { tree } = part
    this.#names = new CopyNames(tree)
    this.#keeper = part.keeper(folder)
    this.#sweeper = new Sweeper(folder, () => this.#working === null)
    this.#applier = new Applier({ tree, folder, staging: this.#staging, keeper: () => this.#keeper })
  }

  /** Finishes what a crash left half done, before anybody sees the tree. */
  static async open(part: ReceiverPart): Promise<Receiver> {
    const folder = new WorkFolder(part.tree)
    try {
      await recover(part.tree, folder, part.note)
      const receiver = new Receiver(part, folder)
      receiver.#sweeper.look()
      return receiver
    } catch (error) {
      // It is tried again each second.
      folder.close()
      throw error
    }
  }

  /** What this host had of its own is put aside. */
  keepNothing(): void {
    this.#keeper = keepNothing(this.#folder)
  }

  get applied(): number {
    return this.#applied
  }

  /** Nothing waits to be put into effect. */
  get isIdle(): boolean {
    return this.#working === null
  }

  /** Reading from the connection should pause. */
  get isFull(): boolean {
    return this.#pending.length > 2 * groupMax || this.#pendingBytes > 2 * groupBytesMax
  }

  /**
   * Another connection of the epoch's primary. Everything that came over the one before is in effect when this
   * resolves with the last operation of this log that is durable here, or null for a log that is new here.
   */
  async attach(hello: Hello, send: (frame: Buffer) => void): Promise<number | null> {
    this.#send = null
    this.#staging.cut()
    await this.#working
    this.#keeper.from(hello.copy)
    this.#hashKey = Buffer.from(hello.hashKey, 'hex')
    this.#names.begin({ filter: makeFilter(hello), hashStart: hashStartOf(this.#hashKey) })
    const isKnown = hello.log === this.#log
    if (!isKnown) this.#applied = 0
    this.#log = hello.log
    this.#send = send
    return isKnown ? this.#applied : null
  }

  /** @throws on what no sender says: the connection is then cut */
  receive(message: FromSender, bytes: number): void {
    this.receivedBytes += bytes
    switch (message.op) {
      case 'begin':
      case 'data':
      case 'abort':
        return this.#staging.stream(message)
      case 'ping':
        return this.#answer({ op: 'pong', freeBytes: this.freeBytes() })
      case 'compared':
        this.#names.forget()
        return this.#part.onCompared(message)
      case 'put': {
        const { seq, path } = message
        this.#add({ operation: { op: 'put', seq, path }, staged: this.#staging.small(message) }, bytes)
        return
      }
      case 'end': {
        const arriving = this.#staging.end(message.stream)
        this.#add({ operation: { op: 'end', seq: message.seq, path: arriving.path }, arriving }, arriving.bytes)
        return
      }
      default:
        this.#add({ operation: message }, bytes)
    }
  }

  #add(pending: Pending, bytes: number): void {
    this.#pending.push(pending)
    this.#pendingBytes += bytes
    this.#working ??= this.#work().finally(() => {
      this.#working = null
    })
  }

  async #work(): Promise<void> {
    // What came in the same turn belongs to the same group.
    await nextTurn()
    while (this.#pending.length > 0) {
      const group = this.#pending.splice(0, groupMax)
      this.#pendingBytes = this.#pending.length === 0 ? 0 : this.#pendingBytes
      await this.#staging.flush()
      const nacks: { seq: number; code: NackCode; path: string }[] = []
      // What is written to a directory that is not the tree any more would be promised, and not be there when it counts.
      const { isInPlace } = this.#part.tree
      const turns = new Turns()
      for (const pending of group) {
        await turns.next()
        const code = isInPlace ? await this.#tried(pending) : this.#refused(pending)
        this.#applier.settle()
        const { seq, path } = pending.operation
        if (code !== null) nacks.push({ seq, code, path })
      }
      const flushed = await this.#applier.flush()
      const failed = flushed ?? (isInPlace && !this.#part.tree.isInPlace ? 'ESTALE' : null)
      if (failed !== null) {
        nacks.length = 0
        for (const { operation } of group) nacks.push({ seq: operation.seq, code: failed, path: operation.path })
      }
      this.#applied = group.at(-1)!.operation.seq
      this.#answer({ op: 'ack', seq: this.#applied, nacks })
    }
    this.#sweeper.look()
  }

  /** What the disk says wherever it is read is an answer like any other. */
  async #tried(pending: Pending): Promise<NackCode | null> {
    try {
      return await this.#apply(pending)
    } catch (error) {
      if (error instanceof Error && 'errno' in error) return codeOf(-Math.abs(Number(error.errno)))
      throw error
    }
  }

  #refused(pending: Pending): NackCode {
    const staged = 'staged' in pending ? pending.staged : 'arriving' in pending ? pending.arriving.staged : null
    if (staged !== null) this.#staging.release(staged, { keepName: false })
    return 'ESTALE'
  }

  #apply(pending: Pending): NackCode | null | Promise<NackCode | null> {
    if ('staged' in pending) return this.#applier.place(pending.operation.path, pending.staged)
    if ('arriving' in pending) {
      const { arriving } = pending
      return arriving.base === null
        ? this.#applier.place(arriving.path, arriving.staged)
        : this.#applier.patch(arriving)
    }
    const { operation } = pending
    switch (operation.op) {
      case 'directory':
        return this.#applier.directory(operation.path, operation.meta)
      case 'symlink':
        return this.#applier.symlink(operation.path, operation.meta)
      case 'attributes':
        return this.#applier.attributes(operation.path, operation.meta)
      case 'link':
        return this.#applier.link(operation.path, operation.to)
      case 'rename':
        return this.#applier.rename(operation.path, operation.to)
      case 'remove':
        return this.#applier.remove(operation.path)
      case 'compare':
        return this.#compare(operation)
      case 'listing':
        return this.#listing(operation)
      case 'ties':
        this.#ties(operation)
        return null
      case 'hashes':
        return this.#hashes(operation)
      case 'verify':
        return this.#verify(operation)
    }
  }

  /** With the names of files that may be this host's own, whatever their times say. */
  #list(path: string, { index }: Part, names: Iterable<string>): { listing: Listing | null; doubtful: Set<string> } {
    const doubtful = new Set<string>()
    const onFile = (name: string, stat: FileStat): void => {
      if (stat.kind === 'file' && this.#keeper.wants(stat)) doubtful.add(name)
    }
    const isLinked = (stat: FileStat): boolean => stat.links > 1
    const what = index === 0 ? 'with the directory itself' : 'names alone'
    const listing = listNames({ fd: this.#names.directory(path), path, names, what, isLinked, onFile })
    return { listing, doubtful }
  }

  async #compare({ seq, path, part, digest }: Extract<Operation, { op: 'compare' }>): Promise<null> {
    const here = await this.#names.of(path, part, part.index === 0 ? 'anew' : 'as known')
    const isComparable = here !== null && here.count <= crowdedNames * part.count
    const listed = isComparable ? this.#list(path, part, here.names) : null
    const isSame = listed?.listing && listed.doubtful.size === 0 && digestOf(listed.listing).equals(digest)
    if (isSame) return null
    const absent = here === null || listed?.listing === null
    this.#answer({ op: 'differs', seq, path, absent, names: here?.count ?? 0 })
    return null
  }

  async #listing({ seq, path, part, entries }: Extract<Operation, { op: 'listing' }>): Promise<null> {
    const here = await this.#names.of(path, part, 'as known')
    // What came since the names were read is named by the sender.
    const names = new Set([...(here?.names ?? []), ...entries.map(one => one.name)])
    const { listing, doubtful } = this.#list(path, part, here === null ? [] : names)
    if (here === null || listing === null) {
      this.#answer({ op: 'differs', seq, path, absent: true, names: 0 })
      return null
    }
    const found = differences(entries, listing.entries)
    // Sockets and the like in our copy are in nobody's listing; they are in the way of an identical tree.
    const surplus = [...found.surplus, ...listing.skipped.map(one => splitPath(one).name)]
    for (const name of [...found.names, ...surplus]) doubtful.delete(name)
    this.#answer({ op: 'want', seq, path, names: found.names, surplus, doubtful: [...doubtful] })
    return null
  }

  /** Which of these names are not of the same file here. */
  #ties({ seq, path, ties }: Extract<Operation, { op: 'ties' }>): void {
    const inoAt = (at: string): number => {
      const { folder, name } = splitPath(at)
      const dirFd = this.#part.tree.directory(folder)
      const stat = dirFd < 0 ? dirFd : statAt(dirFd, name)
      return typeof stat === 'number' ? -1 : stat.ino
    }
    const loose = ties.filter(tie => inoAt(joinPath(path, tie.name)) !== inoAt(tie.to))
    if (loose.length === 0) return
    this.#answer({ op: 'want', seq, path, names: loose.map(tie => tie.name), surplus: [], doubtful: [] })
  }

  /** Another version is no difference: it is on its way. What is equal throughout is the primary's. */
  #verify({ path, base, offset, length, hash }: Extract<Operation, { op: 'verify' }>): NackCode | null {
    const { folder, name } = splitPath(path)
    const dirFd = this.#part.tree.directory(folder)
    const fd = dirFd < 0 ? dirFd : openAt(dirFd, name, { flags: O_NONBLOCK })
    if (fd < 0) return null
    try {
      const stat = statFd(fd)
      if (typeof stat === 'number' || stat.kind !== 'file' || !isBase(stat, base)) return null
      if (length > blockBytes * 16) return null
      const bytes = Buffer.allocUnsafe(length)
      // From the disk, as it will be read after a takeover.
      dropCached(fd, offset, length)
      readFully(fd, bytes, offset)
      if (!hashBlock(this.#hashKey, bytes).equals(hash)) return 'content'
      const from = this.#verified.path === path ? this.#verified.bytes : 0
      this.#verified = { path, bytes: offset === from || offset === 0 ? offset + length : Number.NaN }
      if (this.#verified.bytes === stat.size) this.#keeper.placed(stat)
      return null
    } catch {
      // What the disk does not give back is no copy: it is sent again, into other blocks.
      return 'content'
    } finally {
      closeSync(fd)
    }
  }

  /** Hashes of what an interrupted transfer left, or of the file that is there. */
  async #hashes({ seq, path }: Extract<Operation, { op: 'hashes' }>): Promise<null> {
    const part = this.#staging.part(path)
    const { folder, name } = splitPath(path)
    const dirFd = part === null ? this.#part.tree.directory(folder) : -1
    const fd = part?.staged.fd ?? (dirFd < 0 ? dirFd : openAt(dirFd, name, { flags: O_NONBLOCK }))
    const stat = fd < 0 ? fd : statFd(fd)
    // While own versions are kept, files are replaced as a whole: a patch would write into what is to be kept.
    const mayPatch = part !== null || this.#keeper.isIndifferent
    if (typeof stat === 'number' || stat.kind !== 'file' || !mayPatch || !isHashed(stat.size)) {
      this.#answer({ op: 'hashesOf', seq, base: null, hashes: Buffer.alloc(0) })
    } else {
      const { size, mtimeS, mtimeNs } = stat
      const base = { of: part === null ? 'file' : 'part', size, mtimeS, mtimeNs } as const
      const hashes = await this.#hash(fd, size)
      this.#answer({ op: 'hashesOf', seq, base: hashes === null ? null : base, hashes: hashes ?? Buffer.alloc(0) })
    }
    if (part === null && fd >= 0) closeSync(fd)
    return null
  }

  /** Null when the disk does not give back what is there. */
  async #hash(fd: number, size: number): Promise<Buffer | null> {
    const hashes = Buffer.alloc(blockCount(size) * hashBytes)
    const block = Buffer.allocUnsafe(blockBytes)
    for (let index = 0; index * blockBytes < size; index += 1) {
      let read = 0
      try {
        read = readSync(fd, block, 0, blockBytes, index * blockBytes)
      } catch {
        return null
      }
      hashBlock(this.#hashKey, block.subarray(0, read)).copy(hashes, index * hashBytes)
      if (index % blocksAtOnce === blocksAtOnce - 1) await nextTurn()
    }
    return hashes
  }

  #answer(message: FromReceiver): void {
    this.#send?.(encode(message))
  }

  freeBytes(): number {
    const { bavail, bsize } = statfsSync(`/proc/self/fd/${this.#folder.fd}`)
    return bavail * bsize
  }

  /** The tree is whole when this resolves: what was received in full is applied, the rest is dropped. */
  async close(): Promise<void> {
    this.#send = null
    await this.#working
    this.#sweeper.close()
    this.#staging.close()
    this.#folder.close()
  }
}

/** For a backup that never was primary: what the primary removed or replaced is nobody's any more. */
export const keepNothing = (folder: WorkFolder): Keeper => ({
  isIndifferent: true,
  take: (at: Place) => folder.discard(at),
  from: () => undefined,
  placed: () => undefined,
  wants: () => false,
})
