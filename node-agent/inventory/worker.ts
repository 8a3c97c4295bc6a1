import { summaryOf } from '../../shared/hosts/summary.ts'
import type { Core, WorkerProgram } from '../workers/worker-process.ts'
import { NetworkMonitor } from './monitor.ts'
import { digestOf, readHost } from './read-host.ts'
import {
  type InventoryNews,
  type InventorySettings,
  inventoryNewsTopic,
  inventorySettingsSchema,
  inventorySettingsTopic,
} from './settings.ts'

/** A change is several messages of the kernel; a link that flaps is no reason to look all the time. */
const settleMs = 300
const lookAtMostEveryMs = 2_000
/** Disks and paths tell nobody that asks as cheaply; Open vSwitch's own settings neither. */
const lookAnywayMs = 15_000

/** Looks at this host's networks and storage when they change, and tells the core what is new. */
export class InventoryWorker implements WorkerProgram {
  #core: Core | null = null
  #settings: InventorySettings | null = null
  #monitor: NetworkMonitor | null = null
  #due: NodeJS.Timeout | null = null
  #looking = false
  #lookedAtMs = -Infinity
  #told = ''

  start(core: Core): void {
    this.#core = core
  }

  told(topic: string, body: unknown): void {
    if (topic !== inventorySettingsTopic || this.#settings !== null) return
    this.#settings = inventorySettingsSchema.parse(body)
    this.#monitor = new NetworkMonitor(() => this.#lookIn(settleMs))
    setInterval(() => this.#lookIn(0), lookAnywayMs)
    this.#lookIn(0)
  }

  stop(): void {
    this.#monitor?.close()
  }

  #lookIn(ms: number): void {
    const since = performance.now() - this.#lookedAtMs
    this.#due ??= setTimeout(() => void this.#look(), Math.max(ms, lookAtMostEveryMs - since))
  }

  async #look(): Promise<void> {
    this.#due = null
    // A driver that hangs holds up this look, and the next ones wait for it.
    if (this.#looking || this.#settings === null) return
    this.#looking = true
    this.#lookedAtMs = performance.now()
    try {
      const inventory = await readHost(this.#settings)
      const summary = summaryOf({ ...inventory, vips: this.#settings.vips })
      const news: InventoryNews = { sha256: digestOf(inventory), summary }
      const text = JSON.stringify(news)
      if (text !== this.#told && this.#core?.tell(inventoryNewsTopic, news) === true) this.#told = text
      this.#core?.report({ why: inventory.network.unknown.join('; ') })
    } catch (error) {
      this.#core?.report({ why: error instanceof Error ? error.message : String(error) })
    } finally {
      this.#looking = false
    }
  }
}
