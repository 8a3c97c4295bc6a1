import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { RouteEvents } from '../kernel/route-events.ts'
import { bundledChild } from '../self.ts'
import { lookVerb } from './look-process.ts'
import { type InventoryNews, type InventorySettings, inventoryNewsSchema } from './settings.ts'

/**
 * Looks at this host's networks and storage: a process for each look, since they are rare, and one that stayed would
 * double what an idle agent takes. The kernel tells of links, addresses and routes; of disks and of Open vSwitch nobody
 * does, so there is a look now and then too, and one whenever this product has changed something.
 */
const settleMs = 500
const atMostEveryMs = 5_000
const anywayEveryMs = 300_000
/** An agent that starts has its pair to look after first, and nobody waits for this. */
const firstAfterMs = 5_000
/** A driver that hangs is given up, and asked again with the next look. */
const limitMs = 60_000

export interface HostLookOptions {
  settings: InventorySettings
  heard: (news: InventoryNews) => void
  /** Why nothing was heard; '' when something was. */
  failed: (why: string) => void
}

export class HostLook {
  readonly #options: HostLookOptions
  readonly #events = new RouteEvents()
  #dueAt: number
  #lookedAt = Number.NEGATIVE_INFINITY
  #looking = false
  #wanted = false

  constructor(options: HostLookOptions, now: number) {
    this.#options = options
    this.#dueAt = now + firstAfterMs
  }

  /** Something was changed here. */
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
    void look(this.#options.settings).then(news => {
      this.#looking = false
      this.#options.failed(news.ok ? '' : news.why)
      if (news.ok) this.#options.heard(news.news)
    })
  }

  close(): void {
    this.#events.close()
  }
}

type Looked = { ok: true; news: InventoryNews } | { ok: false; why: string }

async function look(settings: InventorySettings): Promise<Looked> {
  const bundled = bundledChild(lookVerb)
  const source = fileURLToPath(new URL('../cli/main.ts', import.meta.url))
  const args = bundled?.args ?? ['--disable-warning=ExperimentalWarning', source, lookVerb]
  const child = spawn(bundled?.command ?? process.execPath, args, {
    stdio: ['pipe', 'pipe', 'ignore'],
    timeout: limitMs,
    killSignal: 'SIGKILL',
  })
  const failed = new Promise<string>(resolve => child.once('error', error => resolve(error.message)))
  child.stdin.on('error', () => {})
  child.stdin.end(JSON.stringify(settings))
  const said = await Promise.race([text(child.stdout).catch(() => ''), failed])
  try {
    return { ok: true, news: inventoryNewsSchema.parse(JSON.parse(said)) }
  } catch {
    return {
      ok: false,
      why: `networks and storage of this host could not be looked at: ${said.slice(0, 200) || 'the process said nothing'}`,
    }
  }
}
