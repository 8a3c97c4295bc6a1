import { HostEvents } from '../kernel/host-events.ts'
import { OvsEvents } from '../network/ovs-events.ts'
import { Looker } from './looker.ts'
import type { InventoryNews, InventorySettings } from './settings.ts'

/**
 * Looks at this host's networks and storage: a process for each look, since they are rare, and one that stayed would
 * double what an idle agent takes. The kernel tells of links, addresses, routes, adapters and disks, and Open vSwitch's
 * database of bridges and ports; what neither tells, such as the state of a path, is seen by a look now and then, and by one
 * whenever this product has changed something. While it changes something there are more of them: whoever looks takes
 * back what was left half-way.
 */
const settleMs = 500
const atMostEveryMs = 5_000
/** Where something changes all the time (containers), looks take a twentieth of one processor at most, ... */
const restOfLook = 20
/** ... and none of them waits longer for it. */
const restMaxMs = 60_000
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
  readonly #events = new HostEvents()
  readonly #ovs: OvsEvents
  #dueAt: number
  #lookedAt: number
  #restMs = atMostEveryMs
  #looking = false
  /** By somebody who waits for it; by whatever has happened. */
  #wanted = false
  #happened = false

  constructor(options: HostLookOptions, now: number) {
    this.#options = options
    this.#looker = new Looker(options)
    this.#ovs = new OvsEvents({
      changed: () => {
        this.#happened = true
      },
    })
    this.#lookedAt = now
    this.#dueAt = now + firstAfterMs
  }

  /** Something was changed here, or is about to be. */
  wanted(): void {
    this.#wanted = true
  }

  /** For the agent's housekeeping. */
  tick(now: number): void {
    if (this.#events.changed() || this.#happened) this.#due(now, this.#restMs)
    if (this.#wanted) this.#due(now, atMostEveryMs)
    this.#wanted = false
    this.#happened = false
    if (this.#looking || now < this.#dueAt) return
    this.#lookedAt = now
    this.#dueAt = now + anywayEveryMs
    this.#looking = true
    // Before it: what changes during the look is heard of, and is looked at next time.
    this.#ovs.attend()
    const beganMs = performance.now()
    void this.#look().then(() => {
      this.#looking = false
      const rest = restOfLook * (performance.now() - beganMs)
      this.#restMs = Math.min(Math.max(rest, atMostEveryMs), restMaxMs)
    })
  }

  close(): void {
    this.#events.close()
    this.#ovs.close()
  }

  /** Soon, but so long after the last look. */
  #due(now: number, restMs: number): void {
    this.#dueAt = Math.min(this.#dueAt, Math.max(now + settleMs, this.#lookedAt + restMs))
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
