/** Whoever reaches the port can be refused as often as he likes, and must not fill log and events with it. */
const saidEveryMs = 60_000

/** Connections that are not the other host's: the first is said, and then how many they were. */
export class Strangers {
  readonly #note: (why: string) => void
  #unsaid = 0
  #saidMs = Number.NEGATIVE_INFINITY

  constructor(note: (why: string) => void) {
    this.#note = note
  }

  refused(why: string): void {
    this.#unsaid += 1
    const nowMs = performance.now()
    if (nowMs - this.#saidMs < saidEveryMs) return
    const more = this.#unsaid === 1 ? '' : `, as were ${this.#unsaid - 1} others since the last word of it`
    this.#note(`a connection for files was refused: ${why}${more}`)
    this.#unsaid = 0
    this.#saidMs = nowMs
  }
}
