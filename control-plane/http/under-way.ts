/**
 * How much of one kind each owner has under way in this process. It is about this process's time and memory, so every
 * instance counts its own, and a new one begins with none.
 */
export class UnderWay {
  readonly #max: number
  readonly #of = new Map<string, number>()

  constructor(max: number) {
    this.#max = max
  }

  /** @returns what gives the place back; null: the owner has as many as there may be */
  take(owner: string): (() => void) | null {
    const others = this.#of.get(owner) ?? 0
    if (others >= this.#max) return null
    this.#of.set(owner, others + 1)
    let taken = true
    return () => {
      if (!taken) return
      taken = false
      const left = (this.#of.get(owner) ?? 1) - 1
      if (left > 0) this.#of.set(owner, left)
      else this.#of.delete(owner)
    }
  }
}
