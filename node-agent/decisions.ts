import { open, rename, stat } from 'node:fs/promises'
import { join } from 'node:path'

/** One sentence of why, with what it takes to place it: shown by `why` and `events`, and to the other host. */
export interface Decision {
  /** Grows by one with each decision of this host, over restarts as well. */
  id: number
  wallMs: number
  /** CLOCK_BOOTTIME: exact distances within one boot. */
  bootMs: number
  epoch: number
  why: string
}

export interface DecisionsOptions {
  stateDir: string
  maxBytes: number
  now: () => { wallMs: number; bootMs: number }
}

/** What is kept in memory: an incident has some dozens. */
const ringMax = 2000
/** Waiting for the disk; more are dropped and counted, since a hanging disk must not eat the memory. */
const unwrittenMax = 1000
/** Sentences are for people; a driver's output may be endless. */
const whyCharsMax = 500
const fileName = 'decisions.jsonl'

/**
 * The decisions of this host. In memory first; the file is written off the hot path, one write at a time, and rotated
 * once, so that it takes `maxBytes` at most.
 */
export class Decisions {
  readonly #options: DecisionsOptions
  #own: Decision[] = []
  #nextId = 1
  #unwritten: Decision[] = []
  #dropped = 0
  #writing = false
  #fileBytes = 0
  #endsTorn = false
  #followers = new Set<(decision: Decision) => void>()

  constructor(options: DecisionsOptions) {
    this.#options = options
  }

  /** Reads what an agent before this one wrote; lines that can't be read are left out. */
  async load(): Promise<void> {
    for (const name of [`${fileName}.1`, fileName]) {
      const lines = await readLines(join(this.#options.stateDir, name), this.#options.maxBytes)
      for (const line of lines) {
        const decision = parseDecision(line)
        if (decision === null) continue
        this.#own.push(decision)
        this.#nextId = Math.max(this.#nextId, decision.id + 1)
      }
      // A loss of power ended it in the middle of a line, which must not swallow the next one.
      this.#endsTorn = (lines.at(-1) ?? '') !== ''
    }
    this.#own = this.#own.slice(-ringMax)
    this.#fileBytes = await stat(join(this.#options.stateDir, fileName)).then(
      found => found.size,
      () => 0,
    )
  }

  add(epoch: number, why: string): void {
    const text = why.length > whyCharsMax ? `${why.slice(0, whyCharsMax)}…` : why
    const decision = { id: this.#nextId++, ...this.#options.now(), epoch, why: text }
    push(this.#own, decision)
    if (this.#unwritten.length < unwrittenMax) this.#unwritten.push(decision)
    else this.#dropped++
    for (const follower of this.#followers) follower(decision)
    void this.#write()
  }

  /** Lines that never reached the disk because it hung. */
  get dropped(): number {
    return this.#dropped
  }

  /** The newest ones, oldest first. */
  newest(count: number): Decision[] {
    return count === 0 ? [] : this.#own.slice(-count)
  }

  /** The newest one of a kind. */
  last(is: (decision: Decision) => boolean): Decision | null {
    return this.#own.findLast(is) ?? null
  }

  follow(tell: (decision: Decision) => void): () => void {
    this.#followers.add(tell)
    return () => this.#followers.delete(tell)
  }

  /** Resolves when all is on disk, or after `limitMs`. */
  async flush(limitMs: number): Promise<void> {
    const until = performance.now() + limitMs
    while ((this.#writing || this.#unwritten.length > 0) && performance.now() < until)
      await new Promise(resolve => setTimeout(resolve, 5))
  }

  async #write(): Promise<void> {
    if (this.#writing) return
    this.#writing = true
    while (this.#unwritten.length > 0) {
      const batch = this.#unwritten
      this.#unwritten = []
      try {
        await this.#append(batch.map(decision => `${JSON.stringify(decision)}\n`).join(''))
      } catch {
        // A full or broken disk: the ring in memory still has them, and the count says that the file does not.
        this.#dropped += batch.length
      }
    }
    this.#writing = false
  }

  async #append(text: string): Promise<void> {
    const path = join(this.#options.stateDir, fileName)
    if (this.#fileBytes > this.#options.maxBytes / 2) {
      // Somebody may have removed it.
      await rename(path, `${path}.1`).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error
      })
      this.#fileBytes = 0
    }
    const file = await open(path, 'a', 0o600)
    try {
      const bytes = Buffer.from(this.#endsTorn ? `\n${text}` : text)
      // Until it is all there: of what a full disk has room for, the last line is half a line.
      this.#endsTorn = true
      const { bytesWritten } = await file.write(bytes)
      this.#fileBytes += bytesWritten
      if (bytesWritten < bytes.length) throw new Error(`${bytesWritten} of ${bytes.length} bytes were written`)
      this.#endsTorn = false
    } finally {
      await file.close()
    }
  }
}

function push<T>(ring: T[], item: T): void {
  ring.push(item)
  if (ring.length > ringMax) ring.shift()
}

async function readLines(path: string, maxBytes: number): Promise<string[]> {
  const file = await open(path, 'r').catch(() => null)
  if (file === null) return []
  try {
    const { size } = await file.stat()
    const from = Math.max(0, size - maxBytes)
    const { buffer, bytesRead } = await file.read(Buffer.alloc(size - from), 0, size - from, from)
    return buffer.subarray(0, bytesRead).toString('utf8').split('\n')
  } finally {
    await file.close()
  }
}

function parseDecision(line: string): Decision | null {
  try {
    const value: unknown = JSON.parse(line)
    return isDecision(value) ? value : null
  } catch {
    return null
  }
}

function isDecision(value: unknown): value is Decision {
  if (typeof value !== 'object' || value === null) return false
  const numbers = ['id', 'wallMs', 'bootMs', 'epoch'].every(key => typeof Reflect.get(value, key) === 'number')
  return numbers && typeof Reflect.get(value, 'why') === 'string'
}
