import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { durableSchema } from '../../shared/contract/protocol.ts'
import type { Durable } from '../../shared/protocol/types.ts'
import { openFolderWriter, temporarySuffix } from './atomic-write.ts'
import { checkLocation } from './location.ts'
import { type FolderLock, lockFolder } from './lock.ts'
import { decodeRecord, encodeRecord, type RecordFormat } from './record.ts'
import { startWriter, type WriterCommand, type WriterProcess } from './writer-process.ts'

/**
 * The durable state of this host: one file, never silently made anew.
 *
 * A member that lost its store has lost its promises, and with them its vote; a file that is merely damaged must
 * therefore look like a loss, not like a fresh start. Only `createStateFile`, an operator's explicit act, makes one.
 */
export const stateFormat: RecordFormat<Durable> = { kind: 'host-state', version: 1, schema: durableSchema }
export const stateName = 'state'

export type Refusal =
  /** No file: this host was never set up, or lost its store. */
  | { ok: false; code: 'missing'; why: string }
  /** A file that can't be read back as it was written. */
  | { ok: false; code: 'damaged'; why: string }
  /** `create` where something is already. */
  | { ok: false; code: 'exists'; why: string }
  /** Another process has it. */
  | { ok: false; code: 'locked'; why: string }
  /** A file system that forgets. */
  | { ok: false; code: 'location'; why: string }
  /** The folder can't be used: permissions, I/O error, no such folder. */
  | { ok: false; code: 'unusable'; why: string }

export interface StateFileOptions {
  /** An existing folder, for this purpose alone. */
  folder: string
  /** Monotonic milliseconds. */
  now: () => number
  /** `seq` and everything before it is on disk; called once for each seq, in order. */
  onPersisted: (seq: number) => void
  /** The last call: nothing after the previous `onPersisted` is known to be on disk. The agent must stop. */
  onFailed: (seq: number, why: string) => void
  /** How to start the writer; the default runs the one beside this file. */
  writer?: WriterCommand
}

export type OpenResult = { ok: true; file: StateFile; durable: Durable } | Refusal

export async function openStateFile(options: StateFileOptions): Promise<OpenResult> {
  const locked = lockAndCheck(options.folder)
  if (!locked.ok) return locked
  const read = readState(options.folder)
  if (!read.ok) {
    locked.lock.release()
    return read
  }
  return start(options, locked.lock, read.durable)
}

/** Makes the file, and refuses where one is. */
export async function createStateFile(options: StateFileOptions, durable: Durable): Promise<OpenResult> {
  const locked = lockAndCheck(options.folder)
  if (!locked.ok) return locked
  const path = join(options.folder, stateName)
  if (existsSync(path)) {
    locked.lock.release()
    const why = `${path} exists already, and with it the promises of this host. Set up again only after removing this host from its pair.`
    return { ok: false, code: 'exists', why }
  }
  try {
    // In this process and without a deadline: nothing runs yet that could suffer.
    const writer = await openFolderWriter(options.folder)
    await writer.write(stateName, encodeRecord(stateFormat, durable))
    await writer.close()
  } catch (fault) {
    locked.lock.release()
    return unusable(options.folder, fault)
  }
  return start(options, locked.lock, durable)
}

async function start(options: StateFileOptions, lock: FolderLock, durable: Durable): Promise<OpenResult> {
  const started = await startWriter({
    folder: options.folder,
    name: stateName,
    lock: lock.descriptor,
    command: options.writer,
  })
  if (!started.ok) {
    lock.release()
    return { ok: false, code: 'unusable', why: started.why }
  }
  return { ok: true, file: new StateFile(options, lock, started.writer), durable }
}

/** Looks at the file without taking the lock: for the CLI, next to a running agent. */
export function readState(folder: string): { ok: true; durable: Durable } | Refusal {
  const path = join(folder, stateName)
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (fault) {
    if ((fault as NodeJS.ErrnoException).code !== 'ENOENT') return unusable(folder, fault)
    const why = `${path} does not exist: this host has no state and so no vote. Set it up with \`understudy pair init\` or \`understudy pair join\`; if it lost its disk, replace it from the other host.`
    return { ok: false, code: 'missing', why }
  }
  const decoded = decodeRecord(stateFormat, bytes)
  if (decoded.ok) return { ok: true, durable: decoded.value }
  const why = `${path} is damaged: ${decoded.why}. It is kept as it is; this host has no vote until it is removed from its pair and added again with a new state.`
  return { ok: false, code: 'damaged', why }
}

function lockAndCheck(folder: string): { ok: true; lock: FolderLock } | Refusal {
  try {
    const location = checkLocation(folder)
    if (!location.ok) return { ...location, code: 'location' }
    const locked = lockFolder(folder)
    if (!locked.ok) return { ...locked, code: 'locked' }
    rmSync(join(folder, stateName + temporarySuffix), { force: true })
    return locked
  } catch (fault) {
    return unusable(folder, fault)
  }
}

const unusable = (folder: string, fault: unknown): Refusal => ({
  ok: false,
  code: 'unusable',
  why: `${folder} can't be used for the state of this host: ${fault instanceof Error ? fault.message : String(fault)}.`,
})

/**
 * Writes run in a child, one at a time; what arrives meanwhile is merged, the latest wins. A seq counts as persisted
 * when its own or a later state is on disk: each state contains everything that the earlier ones promised.
 */
export class StateFile {
  readonly #options: StateFileOptions
  readonly #lock: FolderLock
  readonly #writer: WriterProcess
  /** Not yet on disk, oldest first. */
  #pending: { seq: number; sinceMs: number }[] = []
  #writing: number | null = null
  #next: { seq: number; durable: Durable } | null = null
  #ended = false
  #idle: (() => void) | null = null
  #closed: Promise<void> | null = null

  constructor(options: StateFileOptions, lock: FolderLock, writer: WriterProcess) {
    this.#options = options
    this.#lock = lock
    this.#writer = writer
    writer.onDone = seq => this.#done(seq)
    writer.onFailed = why => this.#failed(why)
  }

  /** Never blocks. `seq` grows with each call. */
  persist(seq: number, durable: Durable): void {
    // The agent is on its way out after a failure; nothing may look as if it had been written.
    if (this.#ended) return
    this.#pending.push({ seq, sinceMs: this.#options.now() })
    this.#next = { seq, durable }
    if (this.#writing === null) this.#write()
  }

  /** For how long the oldest unfinished write has been waiting, in ms; 0 = none is. */
  pendingMs(): number {
    const oldest = this.#pending[0]
    return oldest === undefined ? 0 : this.#options.now() - oldest.sinceMs
  }

  /** Waits for what is pending, at most this long, then lets go of the folder. */
  close(limitMs: number): Promise<void> {
    this.#closed ??= this.#close(limitMs)
    return this.#closed
  }

  async #close(limitMs: number): Promise<void> {
    if (!this.#ended && this.#pending.length > 0) {
      const finished = new Promise<void>(resolve => {
        this.#idle = resolve
      })
      let timer: NodeJS.Timeout | undefined
      await Promise.race([
        finished,
        new Promise<void>(resolve => {
          timer = setTimeout(resolve, limitMs)
        }),
      ])
      clearTimeout(timer)
    }
    this.#ended = true
    await this.#writer.stop({ isIdle: this.#writing === null })
    this.#lock.release()
  }

  #write(): void {
    if (this.#next === null) return
    this.#writing = this.#next.seq
    const bytes = encodeRecord(stateFormat, this.#next.durable)
    this.#next = null
    this.#writer.write(this.#writing, bytes)
  }

  #done(seq: number): void {
    if (this.#ended) return
    this.#writing = null
    const finished = this.#pending.filter(entry => entry.seq <= seq)
    this.#pending = this.#pending.filter(entry => entry.seq > seq)
    this.#write()
    for (const entry of finished) this.#options.onPersisted(entry.seq)
    if (this.#pending.length === 0) this.#idle?.()
  }

  #failed(why: string): void {
    if (this.#ended) return
    this.#ended = true
    this.#idle?.()
    const path = join(this.#options.folder, stateName)
    this.#options.onFailed(this.#pending[0]?.seq ?? 0, `${path} can't be written: ${why}`)
  }
}
