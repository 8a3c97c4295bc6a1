import { showName } from './names.ts'

/** More are counted as "100 and more": a bad disk has as many as files. */
const problemsMax = 100
const shownMax = 10

/** What can't be replicated, or not now, and why. */
export class Problems {
  readonly #byPath = new Map<string, string>()
  readonly #note: (sentence: string) => void

  constructor(note: (sentence: string) => void) {
    this.#note = note
  }

  get size(): number {
    return this.#byPath.size
  }

  /** `null`: it is none any more. */
  set(path: string, why: string | null): void {
    if (why === null) {
      this.#byPath.delete(path)
      return
    }
    const isNew = !this.#byPath.has(path)
    if (isNew && this.#byPath.size >= problemsMax) return
    if (isNew) this.#note(`${showName(path)} is not replicated: ${why}`)
    this.#byPath.set(path, why)
  }

  shown(): string[] {
    return [...this.#byPath].slice(0, shownMax).map(([path, why]) => `${showName(path)}: ${why}`)
  }
}
