import { setTimeout as sleep } from 'node:timers/promises'
import { NoRoom, type RoleFile } from './role-file.ts'
import type { Sender } from './sender.ts'

/** How long ago something must have been acknowledged to count as proven: more than a clock's grain. */
const provenMarginMs = 1000
const provenEveryMs = 1000
/** The clock was set: from then on times prove nothing in this epoch. Nor do they after the tree was elsewhere for a while. */
const clockStepMs = 500

export interface ProofPart {
  file: RoleFile
  epoch: number
  /** Of the tree. */
  name: string
  note: (why: string) => void
}

/**
 * Until when the other host's copy is known to have everything, on this host's disk. At a return, what was last changed
 * before is let go where the new primary has something else; all the rest is kept.
 */
export class Proof {
  readonly #part: ProofPart
  readonly #offsetMs = Date.now() - performance.now()
  #timer: NodeJS.Timeout | null = null
  /** The other host's copy, as that host names it; '' while none is known. */
  copy = ''
  /** The latest that may be on the disk. */
  #writtenMs = 0
  #isWriting = false
  #isTrusted = true
  #said = ''

  /** Nothing is proven yet, and the role file says so. */
  constructor(part: ProofPart) {
    this.#part = part
  }

  /** Writes it down now and then. */
  begin(sender: Sender): void {
    this.#timer = setInterval(() => this.look(sender), provenEveryMs)
  }

  end(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
  }

  /**
   * Whether a file may be sent that the backup has not, by the time of its last change. One that is older than what is
   * proven (in a directory that was moved into the tree, or missing in a copy that somebody else changed) would be let go
   * at a return as if the backup had had it, once other parts of its directory are there: nothing may count as proven
   * before it goes. False until that is durable.
   */
  mayBeSent(changedMs: number): boolean {
    if (changedMs >= this.#writtenMs) return true
    if (!this.#isWriting) void this.#write(0)
    return false
  }

  look(sender: Pick<Sender, 'isInPlace' | 'isAttached' | 'provenUntilMs'>): void {
    this.#isTrusted &&= sender.isInPlace && Math.abs(Date.now() - performance.now() - this.#offsetMs) < clockStepMs
    if (this.#isWriting) return
    if (!this.#isTrusted) {
      if (this.#writtenMs !== 0) void this.#write(0)
      return
    }
    const untilMs = sender.isAttached ? sender.provenUntilMs(Date.now()) - provenMarginMs : 0
    const { ownChanges } = this.#part.file.record
    const presentMs = ownChanges?.copy === this.copy ? ownChanges.provenUntilMs : 0
    if (untilMs > presentMs + provenEveryMs / 2) void this.#write(untilMs)
  }

  async #write(provenUntilMs: number): Promise<void> {
    const { file, epoch, name, note } = this.#part
    this.#isWriting = true
    this.#writtenMs = Math.max(this.#writtenMs, provenUntilMs)
    try {
      const ownChanges = { epoch, provenUntilMs, copy: this.copy }
      await file.write({ ...file.record, epoch, role: 'primary', ownChanges })
      this.#writtenMs = provenUntilMs
      this.#said = ''
    } catch (error) {
      if (!(error instanceof NoRoom)) throw error
      // What is proven then is less than what is so: at a return more is kept, and nothing is lost.
      if (error.message !== this.#said) note(`${name}: ${error.message}`)
      this.#said = error.message
      await sleep(provenEveryMs)
    }
    this.#isWriting = false
  }
}
