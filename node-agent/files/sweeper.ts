import { statAt } from '../kernel/file-calls.ts'
import { removeSome, someFiles, type WorkFolder } from './work-folder.ts'

/** What was put aside is removed at this pace when nothing else is to be done. */
const sweepEveryMs = 20

/** Removes from the disk what was put aside, a little at a time, so that a large directory holds up nothing. */
export class Sweeper {
  readonly #folder: WorkFolder
  readonly #isIdle: () => boolean
  /** Another mount is below it, or the disk fails. */
  readonly #unremovable = new Set<string>()
  #timer: NodeJS.Timeout | null = null
  #closed = false

  constructor(folder: WorkFolder, isIdle: () => boolean) {
    this.#folder = folder
    this.#isIdle = isIdle
  }

  look(): void {
    if (this.#timer !== null || this.#closed) return
    const gone = this.#gone()
    if (gone.length === 0) return
    this.#timer = setTimeout(() => {
      this.#timer = null
      if (this.#isIdle()) this.#remove(gone)
      this.look()
    }, sweepEveryMs)
  }

  #gone(): string[] {
    try {
      return this.#folder.someGone(name => !this.#unremovable.has(name))
    } catch {
      // The disk does not say; the next start looks again.
      return []
    }
  }

  #remove(names: readonly string[]): void {
    const { fd } = this.#folder
    const budget = someFiles()
    for (const name of names) {
      if (budget.left <= 0) return
      const isDone = removeSome({ dirFd: fd, name }, budget)
      if (isDone && typeof statAt(fd, name) !== 'number') this.#unremovable.add(name)
    }
  }

  close(): void {
    this.#closed = true
    if (this.#timer !== null) clearTimeout(this.#timer)
  }
}
