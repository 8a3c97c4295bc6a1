import type { TreeWatcher } from './watcher.ts'

/** The kernel is asked anew so often; only a thread of Node's pool waits. */
const eventsLimitMs = 500

/** Until something is to be done: an event, a word from elsewhere, or a time. */
export class Idle {
  #wake: () => void = () => {}
  #events: Promise<unknown> | null = null

  wake(): void {
    this.#wake()
  }

  async rest(ms: number, watcher: TreeWatcher): Promise<void> {
    // A call into the kernel can't be taken back, so the one that runs serves the next rest too.
    this.#events ??= watcher.wait(eventsLimitMs).finally(() => {
      this.#events = null
    })
    const woken = new Promise<void>(resolve => {
      this.#wake = resolve
    })
    const due = setTimeout(this.#wake, Math.max(1, ms))
    await Promise.race([this.#events, woken])
    clearTimeout(due)
    this.#wake = () => {}
  }

  /** No thread waits any more. */
  async ended(): Promise<void> {
    await this.#events
  }
}
