import { basename, dirname } from 'node:path'
import { z } from 'zod'
import { type HostEvent, hostEvent } from '../../shared/contract/report.ts'
import { ulid } from '../../shared/ids.ts'
import type { Standing } from '../agent.ts'
import { readSecret } from '../keys/secret-file.ts'
import { type FolderWriter, openFolderWriter } from '../state-file/atomic-write.ts'

/**
 * Events that wait for the control plane, on disk: they are told when it is back, each counts once by its id. Bounded:
 * a host that was cut off for a month tells the newest, and how many are missing.
 */
const eventsMax = 500
/** Many changes come together. */
const writeAfterMs = 200

const missing = 'events_missing'

const spoolSchema = z.object({ v: z.literal(1), dropped: z.int().min(0), events: z.array(hostEvent) })

type Change = Pick<HostEvent, 'kind' | 'severity' | 'message'>

/** What the core's word of where this host stands is news of. */
export function changesOf(before: Standing, now: Standing): Change[] {
  const changes: Change[] = []
  if (before.role !== now.role || before.epoch !== now.epoch) {
    const message = `${now.role} in gen ${now.gen}, epoch ${now.epoch}; before: ${before.role}, epoch ${before.epoch}`
    changes.push({ kind: 'role_changed', severity: 'info', message })
  }
  if (before.protection !== now.protection) {
    const severity = now.protection === 'protected' ? 'info' : 'warning'
    changes.push({ kind: 'protection_changed', severity, message: `${now.protection}, before: ${before.protection}` })
  }
  return changes
}

export class Spool {
  readonly #folder: FolderWriter
  readonly #name: string
  #events: HostEvent[]
  #dropped: number
  #timer: NodeJS.Timeout | null = null
  #turn: Promise<void> = Promise.resolve()
  #closed = false

  private constructor(part: { folder: FolderWriter; name: string; events: HostEvent[]; dropped: number }) {
    this.#folder = part.folder
    this.#name = part.name
    this.#events = part.events
    this.#dropped = part.dropped
  }

  /** A damaged file is begun anew: events are news, not state. */
  static async open(path: string): Promise<Spool> {
    const parsed = spoolSchema.safeParse(jsonOf(readSecret(path)?.toString() ?? ''))
    const { events, dropped } = parsed.success ? parsed.data : { events: [], dropped: 0 }
    return new Spool({ folder: await openFolderWriter(dirname(path)), name: basename(path), events, dropped })
  }

  add(event: Change, nowMs: number): HostEvent {
    const made = { id: ulid(nowMs), at: new Date(nowMs).toISOString(), ...event, message: event.message.slice(0, 500) }
    this.#events.push(made)
    if (this.#events.length > eventsMax) this.#makeRoom(nowMs)
    this.#writeSoon()
    return made
  }

  /** The oldest ones that wait. */
  next(count: number): readonly HostEvent[] {
    return this.#events.slice(0, count)
  }

  told(events: readonly HostEvent[]): void {
    const ids = new Set(events.map(event => event.id))
    if (this.#events.some(event => event.kind === missing && ids.has(event.id))) this.#dropped = 0
    this.#events = this.#events.filter(event => !ids.has(event.id))
    this.#writeSoon()
  }

  async close(): Promise<void> {
    this.#closed = true
    if (this.#timer !== null) {
      clearTimeout(this.#timer)
      this.#write()
    }
    await this.#turn
    await this.#folder.close()
  }

  /** The oldest go, and in their place stands how many have gone since that was told last. */
  #makeRoom(nowMs: number): void {
    const kept = this.#events.filter(event => event.kind !== missing)
    const gone = kept.length - (eventsMax - 1)
    this.#dropped += gone
    const message = `${this.#dropped} events before these were not kept: this host keeps the newest ${eventsMax} for a control plane that is away`
    const at = new Date(nowMs).toISOString()
    this.#events = [{ id: ulid(nowMs), at, kind: missing, severity: 'warning', message }, ...kept.slice(gone)]
  }

  /** Once it is closed the file is the next link's: what is told afterwards is told once more by that one, under its id. */
  #writeSoon(): void {
    if (this.#closed) return
    this.#timer ??= setTimeout(() => this.#write(), writeAfterMs)
  }

  /** A disk that takes no write costs the events of a crash, nothing else. */
  #write(): void {
    this.#timer = null
    const text = JSON.stringify({ v: 1, dropped: this.#dropped, events: this.#events })
    this.#turn = this.#turn.then(() => this.#folder.write(this.#name, Buffer.from(text))).catch(() => {})
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}
