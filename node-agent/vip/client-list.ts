/**
 * The clients of the virtual addresses, listed anew only where the kernel has counted a connection more or less since. So
 * that one which the count was ahead of is not missed, they are listed once more at the next look, and now and then anyway.
 */
export interface ClientListOptions<Client> {
  list: () => readonly Client[]
  /** Changes with each connection that comes or goes; null: not known, and so they are listed each time. */
  count: () => string | null
}

const anywayEveryMs = 5000
/** Looks in which the count has to be the same before the list is taken for it. */
const sameLooks = 2

export class ClientList<Client> {
  readonly #options: ClientListOptions<Client>
  #clients: readonly Client[] = []
  #count: string | null = null
  #same = 0
  #listedAt = Number.NEGATIVE_INFINITY

  constructor(options: ClientListOptions<Client>) {
    this.#options = options
  }

  /** The same array as before where nothing is new. @param now of any monotonic clock, ms */
  look(now: number): readonly Client[] {
    const count = this.#options.count()
    this.#same = count !== null && count === this.#count ? this.#same + 1 : 0
    this.#count = count
    if (this.#same >= sameLooks && now - this.#listedAt < anywayEveryMs) return this.#clients
    this.#listedAt = now
    this.#clients = this.#options.list()
    return this.#clients
  }
}
