import type { Known } from './big-file.ts'

/** 16 bytes for a quarter of a mebibyte: hashes of a tebibyte. */
const knownBytesMax = 64 * 2 ** 20

/** What the backup has of large files, by inode, as of what was sent. The oldest are forgotten first. */
export class KnownHashes {
  readonly #known = new Map<number, Known>()
  #bytes = 0

  get(ino: number): Known | undefined {
    return this.#known.get(ino)
  }

  remember(ino: number, known: Known): void {
    this.forget(ino)
    this.#known.set(ino, known)
    this.#bytes += known.hashes.length
    for (const [oldest] of this.#known) {
      if (this.#bytes <= knownBytesMax) return
      this.forget(oldest)
    }
  }

  forget(ino: number): void {
    this.#bytes -= this.#known.get(ino)?.hashes.length ?? 0
    this.#known.delete(ino)
  }

  clear(): void {
    this.#known.clear()
    this.#bytes = 0
  }
}
