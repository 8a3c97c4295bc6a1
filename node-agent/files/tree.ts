import { closeFile, ESTALE, O_DIRECTORY, openBeneath, openDirectory, statFd, statPath } from '../kernel/file-calls.ts'
import { KernelError } from '../kernel/libc.ts'
import { fromText } from './names.ts'

/** Open directories kept at once by one tree: many more than are busy at a time, few beside the limit of 65 536. */
const openDirectoriesMax = 256

/**
 * The directories of a tree, opened without ever leaving it: each path is resolved by the kernel below the root, over
 * no symbolic link and into no other mount (openat2). Whoever can write in the tree can therefore not lead us out of it
 * by exchanging a directory for a link between a check and its use.
 */
export class Tree {
  readonly rootFd: number
  /** As configured. */
  readonly path: string
  /** Path → descriptor, in the order of use. */
  readonly #open = new Map<string, { fd: number; ino: number }>()

  /** @throws KernelError when the root can't be opened */
  constructor(path: string) {
    this.path = path
    this.rootFd = openDirectory(fromText(path))
    if (this.rootFd < 0) throw new KernelError(`opening the tree ${path}`, -this.rootFd)
  }

  /**
   * A descriptor to be used at once, and not closed; or minus the errno (ENOENT, ENOTDIR, ELOOP, EXDEV). With `ino` it
   * is that very directory, or ESTALE: others rename directories while we believe to know where they are.
   */
  directory(path: string, ino?: number): number {
    if (path === '') return this.rootFd
    const open = this.#open.get(path)
    if (open !== undefined) {
      this.#open.delete(path)
      if (ino === undefined || open.ino === ino) {
        this.#open.set(path, open)
        return open.fd
      }
      closeFile(open.fd)
    }
    const fd = openBeneath(this.rootFd, path, O_DIRECTORY)
    const stat = fd < 0 ? fd : statFd(fd)
    if (typeof stat === 'number') return stat
    if (ino !== undefined && stat.ino !== ino) {
      closeFile(fd)
      return -ESTALE
    }
    if (this.#open.size >= openDirectoriesMax) {
      const [oldest, { fd: oldestFd }] = this.#open.entries().next().value!
      this.#open.delete(oldest)
      closeFile(oldestFd)
    }
    this.#open.set(path, { fd, ino: stat.ino })
    return fd
  }

  /**
   * Whether the path of the configuration still leads to the directory that was opened. It does not when somebody moved
   * or removed it, mounted something over it or unmounted it: then what services write lies elsewhere.
   */
  get isInPlace(): boolean {
    const [own, there] = [statFd(this.rootFd), statPath(fromText(this.path))]
    return typeof own !== 'number' && typeof there !== 'number' && own.ino === there.ino && own.device === there.device
  }

  /** The directory that is at this path now, whatever was there before. */
  fresh(path: string): number {
    this.drop(path)
    return this.directory(path)
  }

  /** The next one to ask for this path has it opened anew: something may be mounted there by now. */
  drop(path: string): void {
    const open = this.#open.get(path)
    if (open === undefined) return
    this.#open.delete(path)
    closeFile(open.fd)
  }

  /** To be called when a directory was moved or removed, so that no path leads to where it was. */
  forget(): void {
    for (const { fd } of this.#open.values()) closeFile(fd)
    this.#open.clear()
  }

  close(): void {
    this.forget()
    closeFile(this.rootFd)
  }
}
