import type { Known } from './big-file.ts'
import type { DirectoryNode } from './local-tree.ts'
import { type Entry, isQuestion } from './work-queue.ts'

export interface Sent {
  entry: Entry
  bytes: number
  /** Where a renamed directory was on the backup before. */
  remoteBefore: { parent: DirectoryNode | null; name: string } | null
  known: { ino: number; known: Known } | null
}

/** What was sent and is not acknowledged, by its number. */
export class SentLog {
  readonly #sent = new Map<number, Sent>()
  #seq = 0
  #acknowledged = 0
  #bytes = 0
  #questions = 0

  get seq(): number {
    return this.#seq
  }
  get acknowledged(): number {
    return this.#acknowledged
  }
  get bytes(): number {
    return this.#bytes
  }
  get size(): number {
    return this.#sent.size
  }
  /** Without what only asks. */
  get changes(): number {
    return this.#sent.size - this.#questions
  }

  nextSeq(): number {
    this.#seq += 1
    return this.#seq
  }

  add(seq: number, part: Omit<Sent, 'remoteBefore'>): void {
    const node = part.entry.kind === 'rename' ? part.entry.node : null
    const remoteBefore = node === null ? null : { parent: node.remoteParent, name: node.remoteName }
    this.#sent.set(seq, { ...part, remoteBefore })
    this.#bytes += part.bytes
    if (isQuestion(part.entry)) this.#questions += 1
  }

  get(seq: number): Sent | undefined {
    return this.#sent.get(seq)
  }

  *after(seq: number): Generator<Sent> {
    for (const [number, sent] of this.#sent) if (number > seq) yield sent
  }

  /** All up to `seq` is durable on the backup. */
  acknowledge(seq: number, each: (seq: number, entry: Entry) => void): void {
    this.#acknowledged = Math.max(this.#acknowledged, seq)
    for (const [number, { bytes, entry }] of this.#sent) {
      if (number > seq) break
      this.#sent.delete(number)
      this.#bytes -= bytes
      if (isQuestion(entry)) this.#questions -= 1
      each(number, entry)
    }
  }

  /** What has to be sent again, in order; directories are where they were on the backup before. */
  takeBack(): Entry[] {
    const sent = [...this.#sent.values()]
    for (const { entry, remoteBefore } of sent.toReversed()) {
      if (entry.kind !== 'rename' || entry.node === null || remoteBefore === null) continue
      entry.node.remoteParent = remoteBefore.parent
      entry.node.remoteName = remoteBefore.name
    }
    this.clear()
    return [...new Set(sent.map(one => one.entry))]
  }

  clear(): void {
    this.#sent.clear()
    this.#bytes = 0
    this.#questions = 0
  }

  hasUpTo(mark: number): boolean {
    for (const { entry } of this.#sent.values()) if (entry.since <= mark) return true
    return false
  }

  oldestSince(): number {
    let oldest = Number.POSITIVE_INFINITY
    for (const { entry } of this.#sent.values()) if (entry.since < oldest) oldest = entry.since
    return oldest
  }
}

/** Questions for the hashes of files, by the number of the operation that asks. */
export class HashQuestions {
  readonly #open = new Map<number, (known: Known | null) => void>()

  ask(seq: number): Promise<Known | null> {
    return new Promise(resolve => this.#open.set(seq, resolve))
  }

  answer(seq: number, known: Known | null): void {
    this.#open.get(seq)?.(known)
    this.#open.delete(seq)
  }

  /** The connection was cut. */
  cancel(): void {
    for (const resolve of this.#open.values()) resolve(null)
    this.#open.clear()
  }
}

interface Barrier {
  mark: number
  done: () => void
}

/** Waiters for everything up to a mark. */
export class Barriers {
  #open: Barrier[] = []

  get size(): number {
    return this.#open.length
  }

  add(mark: number, done: () => void): void {
    this.#open.push({ mark, done })
  }

  /** Resolves when all up to the mark is durable; never, once the signal says that nobody waits. `over`: either happened. */
  wait(mark: number, { signal, over }: { signal: AbortSignal; over: () => void }): Promise<void> {
    return new Promise(resolve => {
      if (signal.aborted) return over()
      const done = (): void => {
        signal.removeEventListener('abort', drop)
        over()
        resolve()
      }
      const drop = (): void => {
        this.#open = this.#open.filter(barrier => barrier.done !== done)
        over()
      }
      this.add(mark, done)
      signal.addEventListener('abort', drop, { once: true })
    })
  }

  /** `isOpen`: whether anything up to a mark is not durable on the backup. */
  check(isOpen: (mark: number) => boolean): void {
    for (;;) {
      // The least first: as long as it waits all do, and one thing that is found to be older answers for all.
      const next = this.#open.reduce<Barrier | null>(
        (least, one) => (least !== null && least.mark <= one.mark ? least : one),
        null,
      )
      if (next === null || isOpen(next.mark)) return
      this.#open = this.#open.filter(one => one !== next)
      next.done()
    }
  }
}
