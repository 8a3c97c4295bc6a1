import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { makeFolder } from '../folders.ts'
import { type FolderWriter, openFolderWriter, temporarySuffix } from '../state-file/atomic-write.ts'
import { checkLocation } from '../state-file/location.ts'
import { type FolderLock, lockFolder } from '../state-file/lock.ts'
import { decodeRecord, encodeRecord } from '../state-file/record.ts'
import { type Decision, type PairRow, rowFormat } from './row.ts'

/** One file for a pair; a witness for more pairs than this wants the control plane's database. */
const pairsMax = 10_000
/** Requests of one pair that wait for their turn; two hosts have a handful each. */
const waitingMax = 64
const suffix = '.pair'

export type StoreResult = { ok: true; store: WitnessStore } | { ok: false; why: string }
export type UpdateResult<Reply> =
  | { ok: true; body: Reply }
  | { ok: false; code: 'refused' | 'busy' | 'full' | 'failed'; why: string; present?: string }

/**
 * The rows of all pairs, in memory and each in a file. Nothing is answered before it is on disk, and requests of one
 * pair take turns; pairs don't wait for each other.
 */
export class WitnessStore {
  readonly #rows: Map<string, PairRow>
  readonly #writer: FolderWriter
  readonly #lock: FolderLock
  readonly #turns = new Map<string, { last: Promise<void>; waiting: number }>()
  /** After a failed write what the disk holds is unknown: no vote any more until a restart reads it. */
  #failure: string | null = null
  readonly #onFailure: (why: string) => void

  constructor(part: {
    rows: Map<string, PairRow>
    writer: FolderWriter
    lock: FolderLock
    onFailure: (why: string) => void
  }) {
    this.#rows = part.rows
    this.#writer = part.writer
    this.#lock = part.lock
    this.#onFailure = part.onFailure
  }

  /** `onFailure`: the store can't be written; the process should end. */
  static async open(folder: string, onFailure: (why: string) => void): Promise<StoreResult> {
    const pairs = join(folder, 'pairs')
    makeFolder(pairs, 0o700)
    const location = checkLocation(pairs)
    if (!location.ok) return location
    const locked = lockFolder(folder)
    if (!locked.ok) return locked
    const read = readRows(pairs)
    if (!read.ok) {
      locked.lock.release()
      return read
    }
    // The folder itself may be new: its name must survive as well.
    const parent = await openFolderWriter(folder)
    await parent.sync()
    await parent.close()
    const writer = await openFolderWriter(pairs)
    return { ok: true, store: new WitnessStore({ rows: read.rows, writer, lock: locked.lock, onFailure }) }
  }

  row(pair: string): PairRow | null {
    return this.#rows.get(pair) ?? null
  }

  rows(): PairRow[] {
    return [...this.#rows.values()]
  }

  /** Decides on the row as it is when this request has its turn; resolves when the outcome is on disk. */
  async update<Reply>(pair: string, decide: (row: PairRow | null) => Decision<Reply>): Promise<UpdateResult<Reply>> {
    const turn = this.#turns.get(pair) ?? { last: Promise.resolve(), waiting: 0 }
    if (turn.waiting >= waitingMax) {
      return { ok: false, code: 'busy', why: `${waitingMax} requests of pair ${pair} are waiting already` }
    }
    this.#turns.set(pair, turn)
    turn.waiting++
    const result = turn.last.then(() => this.#decideAndWrite(pair, decide))
    turn.last = result.then(
      () => {},
      () => {},
    )
    try {
      return await result
    } finally {
      turn.waiting--
      if (turn.waiting === 0) this.#turns.delete(pair)
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.#turns.values()].map(turn => turn.last))
    await this.#writer.close()
    this.#lock.release()
  }

  async #decideAndWrite<Reply>(
    pair: string,
    decide: (row: PairRow | null) => Decision<Reply>,
  ): Promise<UpdateResult<Reply>> {
    if (this.#failure !== null) return { ok: false, code: 'failed', why: this.#failure }
    const before = this.row(pair)
    const { row, reply } = decide(before)
    if (row !== null && row !== before) {
      if (before === null && this.#rows.size >= pairsMax) {
        return { ok: false, code: 'full', why: `this witness holds ${pairsMax} pairs already` }
      }
      try {
        await this.#writer.write(pair + suffix, encodeRecord(rowFormat, row))
      } catch (fault) {
        this.#failure ??= `the witness can't write its store: ${fault instanceof Error ? fault.message : String(fault)}`
        this.#onFailure(this.#failure)
        return { ok: false, code: 'failed', why: this.#failure }
      }
      this.#rows.set(pair, row)
    }
    return reply.ok ? reply : { ...reply, code: 'refused' }
  }
}

function readRows(folder: string): { ok: true; rows: Map<string, PairRow> } | { ok: false; why: string } {
  const rows = new Map<string, PairRow>()
  for (const name of readdirSync(folder)) {
    const path = join(folder, name)
    if (name.endsWith(temporarySuffix)) {
      rmSync(path)
      continue
    }
    const decoded = decodeRecord(rowFormat, readFileSync(path))
    const remedy = `Move it out of the folder to go on without it: that pair then has no vote here until it is admitted again. Never put back an older copy`
    if (!decoded.ok) return { ok: false, why: `${path} is damaged: ${decoded.why}. ${remedy}.` }
    if (decoded.value.pair + suffix !== name) {
      return { ok: false, why: `${path} holds the row of pair ${decoded.value.pair}: the name was changed. ${remedy}.` }
    }
    rows.set(decoded.value.pair, decoded.value)
  }
  return { ok: true, rows }
}
