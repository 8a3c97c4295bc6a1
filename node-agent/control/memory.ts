import { basename, dirname } from 'node:path'
import { z } from 'zod'
import { readSecret } from '../keys/secret-file.ts'
import { type FolderWriter, openFolderWriter } from '../state-file/atomic-write.ts'

/**
 * What the link to the control plane must not forget over a crash: which commands it has seen and what became of them,
 * the newest documents, and how often it was started. One small file, written whole; the commands are few.
 */
const memorySchema = z.object({
  v: z.literal(1),
  /** One more with each start: a report of an earlier start never replaces a later one's. */
  boot: z.int().min(0),
  trustVersion: z.int().min(0),
  trust: z.string().nullable(),
  /** Of the newest wish that was taken; an older one is a replay. */
  generation: z.int().min(0),
  desired: z.string().nullable(),
  freshAt: z.iso.datetime().nullable(),
  seen: z.array(
    z.object({
      jti: z.string(),
      expiresAt: z.int(),
      /** The last signed answer; it is said again when the command comes again. '' once it was told and the command has ended. */
      ack: z.string(),
      /** Whether it was told to the control plane. */
      told: z.boolean(),
    }),
  ),
})
export type Memory = z.output<typeof memorySchema>
export type SeenCommand = Memory['seen'][number]

/** As many as a host gets in weeks; what has not ended yet is always kept. */
const seenMax = 1024
const empty: Memory = {
  v: 1,
  boot: 0,
  trustVersion: 0,
  trust: null,
  generation: 0,
  desired: null,
  freshAt: null,
  seen: [],
}

export class ControlMemory {
  readonly #folder: FolderWriter
  readonly #name: string
  #present: Memory
  /** Writes take turns: each is a whole file. */
  #turn: Promise<void> = Promise.resolve()
  #closed = false

  private constructor(part: { folder: FolderWriter; name: string; present: Memory }) {
    this.#folder = part.folder
    this.#name = part.name
    this.#present = part.present
  }

  /** Counts the start, durably. @throws with a sentence when the file is damaged: forgetting would let commands run twice */
  static async open(path: string): Promise<ControlMemory> {
    const bytes = readSecret(path)
    const parsed = bytes === null ? null : memorySchema.safeParse(jsonOf(bytes.toString()))
    if (parsed !== null && !parsed.success)
      throw new Error(`${path} is damaged; move it away when no command of the last five minutes can come again`)
    const present = parsed?.data ?? empty
    const memory = new ControlMemory({ folder: await openFolderWriter(dirname(path)), name: basename(path), present })
    try {
      await memory.change({ boot: present.boot + 1 })
    } catch (error) {
      await memory.close()
      throw error
    }
    return memory
  }

  get present(): Memory {
    return this.#present
  }

  seen(jti: string): SeenCommand | null {
    return this.#present.seen.find(one => one.jti === jti) ?? null
  }

  /**
   * Durable when it resolves. Once closed it never does: whoever still waits, such as for the answer to a request, goes on
   * no further, and the file is the next link's.
   */
  change(change: Partial<Memory>): Promise<void> {
    if (this.#closed) return new Promise(() => {})
    this.#present = { ...this.#present, ...change }
    const bytes = Buffer.from(JSON.stringify(this.#present))
    const write = this.#turn.then(() => this.#folder.write(this.#name, bytes))
    this.#turn = write.catch(() => {})
    return write
  }

  remember(command: SeenCommand, nowSeconds: number): Promise<void> {
    const others = this.#present.seen.filter(one => one.jti !== command.jti)
    const open = others.filter(one => one.expiresAt >= nowSeconds)
    const ended = others
      .filter(one => one.expiresAt < nowSeconds)
      .slice(-Math.max(1, seenMax - open.length))
      .map(one => (one.told ? { ...one, ack: '' } : one))
    return this.change({ seen: [...ended, ...open, command] })
  }

  /** Written with the next change: after a crash it is told once more, which changes nothing. */
  told(jti: string): void {
    const seen = this.#present.seen.map(one => (one.jti === jti ? { ...one, told: true } : one))
    this.#present = { ...this.#present, seen }
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#turn
    await this.#folder.close()
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}
