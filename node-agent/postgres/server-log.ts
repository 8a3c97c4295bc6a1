import { open, stat } from 'node:fs/promises'
import { type ClusterSpec, logFile } from './cluster.ts'

/**
 * What only the server's log tells: commits whose wait for the standby was cancelled (they return success with a
 * warning, manual 20.6.1), and errors of the volume. Read on from where the last look ended.
 */
const readBytesMax = 1024 * 1024

export class ServerLog {
  readonly #spec: ClusterSpec
  #offset: number | null = null
  #reading: Promise<void> | null = null
  cancelledWaits = 0
  /** The volume failed: nothing is started on it again. */
  ioError = false
  /** The server ended for want of space. */
  full = false

  constructor(spec: ClusterSpec) {
    this.#spec = spec
  }

  /** One read at a time; resolves when the log has been read to its end as of now. Never rejects. */
  read(): Promise<void> {
    this.#reading ??= this.#readOn()
      .catch(() => {})
      .finally(() => {
        this.#reading = null
      })
    return this.#reading
  }

  async #readOn(): Promise<void> {
    const { size } = await stat(logFile(this.#spec))
    // The first look begins at the end: an error of an earlier life was dealt with then.
    if (this.#offset === null || this.#offset > size) this.#offset = this.#offset === null ? size : 0
    const length = Math.min(size - this.#offset, readBytesMax)
    if (length === 0) return
    const file = await open(logFile(this.#spec), 'r')
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, this.#offset)
      this.#offset += bytesRead
      this.#take(buffer.subarray(0, bytesRead).toString('latin1'))
    } finally {
      await file.close()
    }
  }

  #take(text: string): void {
    this.cancelledWaits += text.split('canceling wait for synchronous replication').length - 1
    for (const line of text.split('\n')) {
      const { ioError, full } = faultOf(line)
      this.ioError ||= ioError
      this.full ||= full
    }
  }
}

/** A volume without space is whole; one that returned an error, or went read-only after one, is not. */
export function faultOf(line: string): { ioError: boolean; full: boolean } {
  const fatal = /(PANIC|FATAL): /.test(line)
  const full = fatal && /No space left on device|Disk quota exceeded/.test(line)
  const broken = fatal && /Input\/output error|Read-only file system|Structure needs cleaning/.test(line)
  // A failed fsync ends the server whatever the reason was (data_sync_retry off): the page cache is not to be trusted.
  const unsynced = /PANIC: .*could not fsync/.test(line) && !full
  return { ioError: broken || unsynced, full }
}
