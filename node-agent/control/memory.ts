import { basename, dirname } from 'node:path'
import { z } from 'zod'
import { readSecret } from '../keys/secret-file.ts'
import { type FolderWriter, openFolderWriter } from '../state-file/atomic-write.ts'
import { Journal, readJournal } from '../state-file/journal.ts'
import type { RecordFormat } from '../state-file/record.ts'

const seenCommand = z.object({
  jti: z.string(),
  expiresAt: z.int(),
  /** The last signed answer; it is said again when the command comes again. '' once it was told and the command has ended. */
  ack: z.string(),
  /** Whether it was told to the control plane. */
  told: z.boolean(),
})
export type SeenCommand = z.output<typeof seenCommand>

/**
 * What the link to the control plane must not forget over a crash: which commands it has seen and what became of them,
 * the newest documents, and how often it was started. One small file, written whole; and beside it a journal of commands,
 * since a person waits for each while it is remembered twice: before it begins, and with its answer.
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
  seen: z.array(seenCommand),
  /** The round of the journal that goes on from here. */
  round: z.int().min(0).default(0),
})
export type Memory = Omit<z.output<typeof memorySchema>, 'round'>

/** `told`: earlier ones that were told to the control plane since the last entry. */
const entrySchema = z.object({ seen: seenCommand, told: z.array(z.string()) })
type Entry = z.output<typeof entrySchema>
const entryFormat: RecordFormat<Entry> = { kind: 'control-command', version: 1, schema: entrySchema }
/** Some hundred commands; the greatest answer fits. Then the file is written whole, and the journal begins anew. */
const journalBytes = 256 * 1024
export const journalOf = (path: string): string => `${path}.journal`

/** The commands that were remembered since the file was written whole, twice each. */
const rememberedSince = (path: string, round: number): Entry[] =>
  readJournal(journalOf(path), { round, format: entryFormat })

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
  readonly #journal: Journal<Entry>
  #present: Memory
  #round: number
  /** Not after a failed write, which may have left anything: the next one is whole. */
  #goesOn = true
  #told: string[] = []
  /** Writes take turns. */
  #turn: Promise<void> = Promise.resolve()
  #closed = false

  private constructor(part: {
    folder: FolderWriter
    name: string
    journal: Journal<Entry>
    present: Memory
    round: number
  }) {
    this.#folder = part.folder
    this.#name = part.name
    this.#journal = part.journal
    this.#present = part.present
    this.#round = part.round
  }

  /** Counts the start, durably. @throws with a sentence when the file is damaged: forgetting would let commands run twice */
  static async open(path: string): Promise<ControlMemory> {
    const bytes = readSecret(path)
    const parsed = bytes === null ? null : memorySchema.safeParse(jsonOf(bytes.toString()))
    if (parsed !== null && !parsed.success)
      throw new Error(`${path} is damaged; move it away when no command of the last five minutes can come again`)
    // Without the file there may still be a journal of an earlier one, whose rounds were counted: none of them is used again.
    const { round, ...held } = parsed?.data ?? { ...empty, round: Date.now() }
    const entries = parsed === null ? [] : rememberedSince(path, round)
    const present = { ...held, boot: held.boot + 1, seen: entries.reduce(withEntry, held.seen) }
    const part = { folder: await openFolderWriter(dirname(path)), name: basename(path), present, round: round + 1 }
    try {
      // What the journal holds is in the file before the journal is touched.
      await part.folder.write(part.name, fileOf(part))
      const journal = await Journal.open(journalOf(path), { size: journalBytes, format: entryFormat })
      journal.begin(part.round)
      return new ControlMemory({ ...part, journal })
    } catch (error) {
      await part.folder.close()
      throw error
    }
  }

  get present(): Memory {
    return this.#present
  }

  seen(jti: string): SeenCommand | null {
    return this.#present.seen.find(one => one.jti === jti) ?? null
  }

  /**
   * Durable when it resolves, and not held where it rejects, as on a full disk. Once closed it does neither: whoever still
   * waits, such as for the answer to a request, goes on no further, and the file is the next link's.
   */
  change(change: Partial<Memory>): Promise<void> {
    if (this.#closed) return new Promise(() => {})
    const before = this.#present
    this.#present = { ...before, ...change }
    return this.#inTurn(() => this.#writeWhole()).catch((error: unknown) => {
      const names = Object.keys(change) as (keyof Memory)[]
      const unkept = names.filter(name => this.#present[name] === change[name])
      this.#present = { ...this.#present, ...Object.fromEntries(unkept.map(name => [name, before[name]])) }
      throw error
    })
  }

  /** Durable when it resolves, as a change. A command that could not be remembered was not seen: it may come again. */
  remember(command: SeenCommand, nowSeconds: number): Promise<void> {
    if (this.#closed) return new Promise(() => {})
    const isNew = this.seen(command.jti) === null
    const others = this.#present.seen.filter(one => one.jti !== command.jti)
    const open = others.filter(one => one.expiresAt >= nowSeconds)
    const ended = others
      .filter(one => one.expiresAt < nowSeconds)
      .slice(-Math.max(1, seenMax - open.length))
      .map(one => (one.told ? { ...one, ack: '' } : one))
    this.#present = { ...this.#present, seen: [...ended, ...open, command] }
    return this.#inTurn(() => this.#append(command)).catch((error: unknown) => {
      if (isNew) this.#present = { ...this.#present, seen: this.#present.seen.filter(one => one !== command) }
      throw error
    })
  }

  /** Written with the next change: after a crash it is told once more, which changes nothing. */
  told(jti: string): void {
    const seen = this.#present.seen.map(one => (one.jti === jti ? { ...one, told: true } : one))
    this.#present = { ...this.#present, seen }
    this.#told.push(jti)
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#turn
    await this.#journal.close()
    await this.#folder.close()
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const write = this.#turn.then(work)
    this.#turn = write.catch(() => {})
    return write
  }

  async #append(seen: SeenCommand): Promise<void> {
    if (!this.#goesOn) return this.#writeWhole()
    const told = this.#told.splice(0)
    this.#goesOn = false
    if (!(await this.#journal.append({ seen, told }))) return this.#writeWhole()
    this.#goesOn = true
  }

  /** The journal up to here is in it, and void once it is there. */
  async #writeWhole(): Promise<void> {
    this.#goesOn = false
    this.#round++
    this.#told = []
    await this.#folder.write(this.#name, fileOf({ present: this.#present, round: this.#round }))
    this.#journal.begin(this.#round)
    this.#goesOn = true
  }
}

const fileOf = ({ present, round }: { present: Memory; round: number }): Buffer =>
  Buffer.from(JSON.stringify({ ...present, round }))

function withEntry(before: SeenCommand[], { seen, told }: Entry): SeenCommand[] {
  const others = before.filter(one => one.jti !== seen.jti)
  return [...others.map(one => (told.includes(one.jti) ? { ...one, told: true } : one)), seen]
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}
