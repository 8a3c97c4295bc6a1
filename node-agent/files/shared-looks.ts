/**
 * Comparisons that barriers wait for where not everything is watched. Each barrier needs one that begins after it was asked
 * for, and one that is begun anew before its end never ends: so those that come while others are waited for share the next,
 * which begins when all of these are answered. They could not be answered before them anyway.
 */
export class SharedLooks {
  readonly #look: () => void
  readonly #waiting = new Set<() => void>()
  /** Of the present comparison. */
  #unanswered = 0

  constructor(look: () => void) {
    this.#look = look
  }

  /**
   * Resolves when a comparison has begun that covers everything before the call, with what is to be called when the barrier
   * was answered or is not waited for any more; never, once the signal says that nobody waits.
   */
  next(signal: AbortSignal): Promise<() => void> {
    return new Promise(resolve => {
      const begun = (): void => {
        signal.removeEventListener('abort', forget)
        resolve(() => this.#answered())
      }
      const forget = (): void => void this.#waiting.delete(begun)
      if (signal.aborted) return
      signal.addEventListener('abort', forget, { once: true })
      this.#waiting.add(begun)
      if (this.#unanswered === 0) this.#begin()
    })
  }

  #answered(): void {
    this.#unanswered -= 1
    if (this.#unanswered === 0) this.#begin()
  }

  #begin(): void {
    const group = [...this.#waiting]
    this.#waiting.clear()
    this.#unanswered = group.length
    if (group.length > 0) this.#look()
    for (const begun of group) begun()
  }
}
