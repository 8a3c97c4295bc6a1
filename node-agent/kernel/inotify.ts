/**
 * inotify(7) without loss: the queue's overflow is an event of its own, which Node's fs.watch never shows.
 * Events are read in the caller's thread, without blocking, so that after a {@link Inotify.read} that was not cut short
 * every change made before the call has been told.
 */
import koffi from 'koffi'
import { closeFd, KernelError, waitReadable } from './libc.ts'

const lib = koffi.load('libc.so.6')
const native = {
  init: lib.func('int inotify_init1(int flags)'),
  add: lib.func('int inotify_add_watch(int fd, const char *path, uint32 mask)'),
  remove: lib.func('int inotify_rm_watch(int fd, int wd)'),
  read: lib.func('int64 read(int fd, void *into, size_t size)'),
}

export const IN_MODIFY = 0x2
export const IN_ATTRIB = 0x4
export const IN_CLOSE_WRITE = 0x8
export const IN_MOVED_FROM = 0x40
export const IN_MOVED_TO = 0x80
export const IN_CREATE = 0x100
export const IN_DELETE = 0x200
export const IN_DELETE_SELF = 0x400
export const IN_MOVE_SELF = 0x800
export const IN_UNMOUNT = 0x2000
export const IN_Q_OVERFLOW = 0x4000
export const IN_IGNORED = 0x8000
export const IN_ISDIR = 0x4000_0000
const IN_ONLYDIR = 0x0100_0000
const IN_EXCL_UNLINK = 0x0400_0000
const IN_CLOEXEC = 0o2000000
const IN_NONBLOCK = 0o4000
const wanted =
  IN_MODIFY |
  IN_ATTRIB |
  IN_CLOSE_WRITE |
  IN_MOVED_FROM |
  IN_MOVED_TO |
  IN_CREATE |
  IN_DELETE |
  IN_ONLYDIR |
  IN_EXCL_UNLINK

export interface FileEvent {
  /** Minus one for an overflow. */
  watch: number
  mask: number
  /** Joins the two halves of a rename. */
  cookie: number
  /** One character a byte. */
  name: string
}

/** Some thousand events in one call. */
const readBytes = 256 * 1024
/** Of one event: a read with less room left than this may have left others unread. */
const eventBytesMax = 16 + 256
const headerBytes = 16

export class Inotify {
  readonly #fd: number
  readonly #buffer = Buffer.alloc(readBytes)
  #closed = false
  #hasMore = false

  constructor() {
    this.#fd = native.init(IN_CLOEXEC | IN_NONBLOCK)
    if (this.#fd < 0) throw new KernelError('inotify_init1', koffi.errno(), 'raise fs.inotify.max_user_instances')
  }

  /** Watches an open directory. Minus the errno: ENOSPC when the user's number of watches is used up. */
  add(dirFd: number, more = 0): number {
    const watch = native.add(this.#fd, `/proc/self/fd/${dirFd}`, (wanted | more) >>> 0)
    return watch < 0 ? -koffi.errno() : watch
  }

  remove(watch: number): void {
    native.remove(this.#fd, watch)
  }

  /** The last {@link read} may not have brought all that had happened before it. */
  get hasMore(): boolean {
    return this.#hasMore
  }

  /** What is queued, at most some thousand events; empty when nothing is. */
  read(): FileEvent[] {
    const length = this.#closed ? 0 : Number(native.read(this.#fd, this.#buffer, readBytes))
    this.#hasMore = length > readBytes - eventBytesMax
    const events: FileEvent[] = []
    for (let at = 0; at < length; ) {
      const nameBytes = this.#buffer.readUInt32LE(at + 12)
      const nameAt = at + headerBytes
      const end = nameBytes === 0 ? nameAt : this.#buffer.indexOf(0, nameAt)
      events.push({
        watch: this.#buffer.readInt32LE(at),
        mask: this.#buffer.readUInt32LE(at + 4),
        cookie: this.#buffer.readUInt32LE(at + 8),
        name: this.#buffer.toString('latin1', nameAt, end),
      })
      at = nameAt + nameBytes
    }
    return events
  }

  /** Waits on a thread of Node's pool until there are events. */
  wait(limitMs: number): Promise<boolean> {
    return this.#closed ? Promise.resolve(false) : waitReadable(this.#fd, limitMs)
  }

  /** Only when no {@link wait} is under way. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    closeFd(this.#fd)
  }
}
