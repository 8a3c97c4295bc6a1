import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { type ClusterSpec, logFile } from './cluster.ts'

/**
 * What only the server's log tells: commits whose wait for the standby was cancelled (they return success with a
 * warning, manual 20.6.1), and errors of the volume. Read on from where the last look ended.
 */
const readBytesMax = 1024 * 1024

export class ServerLog {
  readonly #spec: ClusterSpec
  #offset: number | null = null
  cancelledWaits = 0
  ioError = false

  constructor(spec: ClusterSpec) {
    this.#spec = spec
  }

  read(): void {
    let file: number
    try {
      file = openSync(logFile(this.#spec), 'r')
    } catch {
      return
    }
    try {
      const { size } = fstatSync(file)
      // The first look begins at the end: an error of an earlier life was dealt with then.
      if (this.#offset === null || this.#offset > size) this.#offset = this.#offset === null ? size : 0
      const length = Math.min(size - this.#offset, readBytesMax)
      if (length === 0) return
      const buffer = Buffer.alloc(length)
      readSync(file, buffer, 0, length, this.#offset)
      this.#offset += length
      this.#take(buffer.toString('latin1'))
    } finally {
      closeSync(file)
    }
  }

  #take(text: string): void {
    this.cancelledWaits += text.split('canceling wait for synchronous replication').length - 1
    if (/PANIC: .*(could not (fsync|write)|Input\/output error)/.test(text)) this.ioError = true
  }
}
