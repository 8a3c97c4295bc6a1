/**
 * The clients of the virtual addresses, listed anew only where the kernel has counted a connection more or less since. So
 * that one which the count was ahead of is not missed, they are listed once more at the next look, and now and then anyway.
 * With ten thousand connections a list takes tens of milliseconds of the thread that keeps the lease: it gets a small part of
 * the time there, and those of before stand meanwhile.
 */
export interface ClientListOptions<Client> {
  list: () => readonly Client[]
  /** Changes with each connection that comes or goes; null: not known, and so they are listed each time. */
  count: () => string | null
  /** Milliseconds, to measure a list by. */
  stopwatch?: () => number
}

const anywayEveryMs = 5000
/** Looks in which the count has to be the same before the list is taken for it. */
const sameLooks = 2
/** After a list no other one for so many times what it took: 2 % of the time. */
const restFactor = 50

export class ClientList<Client> {
  readonly #options: ClientListOptions<Client>
  #clients: readonly Client[] = []
  #count: string | null = null
  #same = 0
  #listedAt = Number.NEGATIVE_INFINITY
  #tookMs = 0

  constructor(options: ClientListOptions<Client>) {
    this.#options = options
  }

  /** Those of the last list. */
  get known(): readonly Client[] {
    return this.#clients
  }

  /** The same array as before where nothing is new. @param now of any monotonic clock, ms */
  look(now: number): readonly Client[] {
    const count = this.#options.count()
    this.#same = count !== null && count === this.#count ? this.#same + 1 : 0
    this.#count = count
    const agoMs = now - this.#listedAt
    if ((this.#same >= sameLooks && agoMs < anywayEveryMs) || agoMs < this.#tookMs * restFactor) return this.#clients
    this.#listedAt = now
    const { list, stopwatch = () => performance.now() } = this.#options
    const beganMs = stopwatch()
    this.#clients = list()
    this.#tookMs = stopwatch() - beganMs
    return this.#clients
  }
}
