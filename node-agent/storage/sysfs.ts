import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync, realpathSync } from 'node:fs'
import { basename, join } from 'node:path'

/**
 * Reads of sysfs below a root that tests can choose. A read of sysfs can hang as long as its driver does, so this is
 * for a worker process, whose hang costs nobody a heartbeat; there the synchronous calls are the fastest there are.
 */
export class Sysfs {
  readonly root: string
  /** An attribute is one page at most (Documentation/filesystems/sysfs.rst). */
  readonly #page = Buffer.alloc(4096)

  readonly #realRoot: string
  /** With the slash: paths are put together some ten thousand times for a large host. */
  readonly #base: string

  constructor(root = '/') {
    this.root = root
    this.#base = root.endsWith('/') ? root : `${root}/`
    this.#realRoot = root === '/' ? '' : realpathSync.native(root)
  }

  /** An attribute's text, trimmed; null where it is missing, unreadable or says that it is nothing. */
  text(path: string): string | null {
    let file: number
    try {
      file = openSync(`${this.#base}${path}`, 'r')
    } catch {
      return null
    }
    try {
      const length = readSync(file, this.#page, 0, this.#page.length, 0)
      const text = this.#page.toString('utf8', 0, length).trim()
      // What drivers print for a null pointer: software iSCSI's initiatorname, for one.
      return text === '' || text === '(null)' || text === '<NULL>' ? null : text
    } catch {
      return null
    } finally {
      closeSync(file)
    }
  }

  /** A file of /proc, which is longer than a page; null where it is missing. */
  file(path: string): string | null {
    try {
      return readFileSync(join(this.root, path), 'utf8')
    } catch {
      return null
    }
  }

  /** null where it is no decimal number. */
  number(path: string): number | null {
    const text = this.text(path)
    return text !== null && /^\d+$/.test(text) ? Number(text) : null
  }

  /** Names in a folder, in order; none where there is no such folder. */
  list(path: string): string[] {
    try {
      return readdirSync(join(this.root, path)).sort(byNumber)
    } catch {
      return []
    }
  }

  has(path: string): boolean {
    return this.target(path) !== null
  }

  /** What a path is when every link in it is followed, below the root; null where it is missing. */
  target(path: string): string | null {
    try {
      return realpathSync.native(join(this.root, path)).slice(this.#realRoot.length)
    } catch {
      return null
    }
  }

  /** Where one link leads, as it stands in it; null where it is none. */
  link(path: string): string | null {
    try {
      return readlinkSync(`${this.#base}${path}`)
    } catch {
      return null
    }
  }

  /** The name at the end of a link ("driver" → "ahci"). */
  targetName(path: string): string | null {
    const target = this.target(path)
    return target === null ? null : basename(target)
  }
}

/** host2 before host10. */
const byNumber = new Intl.Collator('en', { numeric: true }).compare
