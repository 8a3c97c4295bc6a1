/**
 * A client's end of a stream socket in the file system (unix(7)) that nobody waits for: what was sent and what came is
 * looked at whenever the process is awake anyway. A socket of Node's would wake it for each.
 */
import {
  AF_UNIX,
  closeFd,
  connectUnix,
  EAGAIN,
  KernelError,
  openSocket,
  SOCK_STREAM,
  tryReceive,
  trySend,
} from './libc.ts'

/** More is not read: here an answer is a byte. */
const ROOM_BYTES = 64

export class UnixSocket {
  readonly #into = Buffer.alloc(ROOM_BYTES)
  #fd: number | null = null

  /**
   * 'full': whoever listens takes no more connections (listen(2)), so does not accept; 'refused': nobody listens; 'none': the
   * kernel gives this process no socket, for want of memory or descriptors.
   */
  open(path: string): 'open' | 'full' | 'refused' | 'none' {
    this.close()
    let fd: number
    try {
      fd = openSocket({ domain: AF_UNIX, type: SOCK_STREAM, protocol: 0 })
    } catch (error) {
      if (error instanceof KernelError) return 'none'
      throw error
    }
    const errno = connectUnix(fd, path)
    if (errno === 0) {
      this.#fd = fd
      return 'open'
    }
    closeFd(fd)
    return errno === EAGAIN ? 'full' : 'refused'
  }

  get isOpen(): boolean {
    return this.#fd !== null
  }

  /** Returns 0 or the errno. */
  send(bytes: Buffer): number {
    return this.#fd === null ? 0 : trySend(this.#fd, bytes)
  }

  /** What came since the last call: nothing, bytes, or the end of the connection, by a failure too. */
  heard(): 'nothing' | 'bytes' | 'end' {
    if (this.#fd === null) return 'end'
    const length = tryReceive(this.#fd, this.#into)
    if (length > 0) return 'bytes'
    return length === -EAGAIN ? 'nothing' : 'end'
  }

  close(): void {
    if (this.#fd !== null) closeFd(this.#fd)
    this.#fd = null
  }
}
