import type { NackCode } from './messages.ts'

/** After the backup could not write (a full disk) nothing is sent for so long; the primary's services go on. */
const retryMs = 1000
/** No such answer for so long: what was tried again meanwhile was taken. */
const overMs = 3 * retryMs

const hints: { [code: string]: string } = {
  ESTALE: ': its tree was moved, removed or unmounted, and is opened anew',
}

/** Whether the backup's disk takes what is sent. */
export class Blockage {
  readonly #now: () => number
  readonly #note: (why: string) => void
  #why: string | null = null
  #heardMs = Number.NEGATIVE_INFINITY

  constructor(part: { now: () => number; note: (why: string) => void }) {
    this.#now = part.now
    this.#note = part.note
  }

  /** For people; null while nothing is in the way. */
  get why(): string | null {
    return this.#now() - this.#heardMs < overMs ? this.#why : null
  }

  /** When something may be sent again, monotonic ms. */
  get untilMs(): number {
    return this.#heardMs + retryMs
  }

  /** An answer that concerns the disk, and not one file alone. Said once, however long it lasts. */
  heard(code: NackCode): void {
    const why = `the backup can't write: ${code}${hints[code] ?? ''}`
    if (this.why !== why) this.#note(`${why}; tried again each second`)
    this.#why = why
    this.#heardMs = this.#now()
  }

  /** The backup has everything. */
  over(): void {
    if (this.why !== null) this.#note('the backup can write again, and has everything')
    this.#why = null
  }
}
