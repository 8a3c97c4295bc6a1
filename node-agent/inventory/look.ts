import { RouteEvents } from '../kernel/route-events.ts'
import { Looker } from './looker.ts'
import type { InventoryNews, InventorySettings } from './settings.ts'

/**
 * Looks at this host's networks and storage: a process for each look, since they are rare, and one that stayed would
 * double what an idle agent takes. The kernel tells of links, addresses and routes; of disks and of Open vSwitch nobody
 * does, so there is a look now and then too, and one whenever this product has changed something. While it changes
 * something there are more of them: whoever looks takes back what was left half-way.
 */
const settleMs = 500
const atMostEveryMs = 5_000
const anywayEveryMs = 300_000
/** An agent that starts has its pair to look after first, and nobody waits for this. */
const firstAfterMs = 5_000

export interface HostLookOptions {
  settings: InventorySettings
  heard: (news: InventoryNews) => void
  /** Why nothing was heard; '' when something was. */
  failed: (why: string) => void
  note: (why: string) => void
}

export class HostLook {
  readonly #options: HostLookOptions
  readonly #looker: Looker
  readonly #events = new RouteEvents()
  #dueAt: number
  #lookedAt = Number.NEGATIVE_INFINITY
  #looking = false
  #wanted = false

  constructor(options: HostLookOptions, now: number) {
    this.#options = options
    this.#looker = new Looker(options)
    this.#dueAt = now + firstAfterMs
  }

  /** Something was changed here, or is about to be. */
  wanted(): void {
    this.#wanted = true
  }

  /** For the agent's housekeeping. */
  tick(now: number): void {
    if (this.#events.changed() || this.#wanted) this.#dueAt = Math.min(this.#dueAt, now + settleMs)
    this.#wanted = false
    if (this.#looking || now < this.#dueAt || now - this.#lookedAt < atMostEveryMs) return
    this.#lookedAt = now
    this.#dueAt = now + anywayEveryMs
    this.#looking = true
    void this.#look().then(() => {
      this.#looking = false
    })
  }

  close(): void {
    this.#events.close()
  }

  async #look(): Promise<void> {
    const { heard, failed, note } = this.#options
    try {
      const { news, change } = await this.#looker.news()
      failed(change.state === 'stuck' ? change.why : '')
      if (change.state === 'taken back') note(change.why)
      if (change.state === 'under way') this.#wanted = true
      heard(news)
    } catch (error) {
      failed(error instanceof Error ? error.message : String(error))
    }
  }
}
