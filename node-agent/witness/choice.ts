import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { isPrimary, knownValue, witnessVoter } from '../../shared/protocol/facts.ts'
import type { HostState } from '../../shared/protocol/state.ts'
import type { EventBody, Incarnation } from '../../shared/protocol/types.ts'
import type { WitnessConfig } from '../config.ts'
import { writeWhole } from '../pair/setup-file.ts'
import type { WitnessLinkPort } from '../ports.ts'

/**
 * Which witness this host wants in the register. The core changes members one at a time and only while nobody may succeed;
 * here it is told what is wanted: the first one, or the alternate once the first was away for both hosts for long. It stays
 * so then: the first one's incarnation is ended when it is back, and only an operator's change brings it in again.
 */
export interface Witnesses {
  first: Incarnation
  alternate: Incarnation | null
  former: Incarnation | null
  awayMs: number
}

/** null: the pair has none, or its witness has admitted it under no incarnation that is known here. */
export function witnessesOf(witness: WitnessConfig | null, setUpInc: Incarnation | null): Witnesses | null {
  const first = witness === null ? null : (witness.inc ?? setUpInc)
  if (witness === null || first === null) return null
  const { alternate, former, awayS } = witness
  return { first, alternate: alternate?.inc ?? null, former: former?.inc ?? null, awayMs: awayS * 1000 }
}

/**
 * At a start: an alternate that has taken the place of this very first one stays. One that merely is the witness still, as
 * a change has made it the alternate, goes.
 */
export function wantedAtStart(
  witnesses: Witnesses | null,
  { voter, taken }: { voter: Incarnation | undefined; taken: Taken | null },
): Incarnation | null {
  if (witnesses === null) return null
  const { first, alternate } = witnesses
  const stays = voter !== undefined && voter === alternate && taken?.first === first && taken.alternate === alternate
  return stays ? voter : first
}

/** On disk: that an alternate has taken the place of a first one. */
const takenSchema = z.object({ v: z.literal(1), first: z.string(), alternate: z.string() })
export type Taken = z.output<typeof takenSchema>
const takenFile = (stateDir: string): string => join(stateDir, 'alternate-witness.json')

/** null: none has, or it is not known any more; then the first one is wanted, and the alternate once more if that is away. */
export function readTaken(stateDir: string): Taken | null {
  try {
    return takenSchema.parse(JSON.parse(readFileSync(takenFile(stateDir), 'utf8')))
  } catch {
    return null
  }
}
export const writeTaken = (stateDir: string, taken: Taken): Promise<void> =>
  writeWhole(takenFile(stateDir), `${JSON.stringify(taken)}\n`)

/** The alternate is told from one that is away as well by its newest sign of life. */
const answeredMs = 20_000
/** A change that is taken back wants the one before again, within minutes. */
const endAfterMs = 600_000
const endEveryMs = 60_000

export class WitnessChoice {
  readonly #witnesses: Witnesses
  readonly #port: Pick<WitnessLinkPort, 'answeredAgoMs' | 'retire'>
  readonly #post: (event: EventBody) => void
  readonly #note: (why: string) => void
  readonly #remember: (taken: Taken) => void
  readonly #ended = new Set<Incarnation>()
  #settledAt: number | null = null
  #voter: Incarnation | null = null
  #triedAt = 0

  constructor(part: {
    witnesses: Witnesses
    port: Pick<WitnessLinkPort, 'answeredAgoMs' | 'retire'>
    post: (event: EventBody) => void
    note: (why: string) => void
    remember: (taken: Taken) => void
  }) {
    this.#witnesses = part.witnesses
    this.#port = part.port
    this.#post = part.post
    this.#note = part.note
    this.#remember = part.remember
  }

  /** Once a second or so. @param now CLOCK_BOOTTIME in ms */
  tick(state: HostState, now: number): void {
    const { alternate } = this.#witnesses
    if (alternate !== null) this.#choose(state, { alternate, now })
    void this.#endOthers(state, now)
  }

  #choose(state: HostState, { alternate, now }: { alternate: Incarnation; now: number }): void {
    const { wanted } = state.witness
    const voter = witnessVoter(state)
    // The other host chose, and this one may be the next primary.
    if (!isPrimary(state)) {
      if (voter !== wanted && (voter === alternate || voter === this.#witnesses.first)) this.#want(voter)
      return
    }
    if (wanted === alternate || voter !== wanted || !this.#isAway(state, now)) return
    const answered = this.#port.answeredAgoMs(alternate)
    if (answered === null || answered > answeredMs) return
    const awayS = Math.round((now - state.witness.unansweredAt) / 1000)
    this.#note(`the witness has been away for both hosts for ${awayS} s: its alternate takes its place`)
    this.#want(alternate)
  }

  /** Not by the word of this host alone: the other one may reach it. */
  #isAway({ witness, lease }: HostState, now: number): boolean {
    return (
      witness.unansweredAt > 0 && now - witness.unansweredAt >= this.#witnesses.awayMs && lease.ack?.witness !== 'yes'
    )
  }

  #want(inc: Incarnation): void {
    const { first, alternate } = this.#witnesses
    if (inc === alternate) this.#remember({ v: 1, first, alternate })
    this.#post({ event: 'witness', inc })
  }

  /** An incarnation that was let go could still be given back its place by an old configuration; once ended it can't vote. */
  async #endOthers(state: HostState, now: number): Promise<void> {
    const voter = witnessVoter(state)
    const { first, alternate, former } = this.#witnesses
    if (voter !== this.#voter || voter === null || knownValue(state)?.successor !== true) {
      this.#voter = voter
      this.#settledAt = now
    }
    if (!isPrimary(state) || voter !== state.witness.wanted) return
    if (now - (this.#settledAt ?? now) < endAfterMs || now - this.#triedAt < endEveryMs) return
    this.#triedAt = now
    // An alternate that was never a member has nothing to end.
    const replaced = voter === alternate ? [first, former] : [former]
    for (const inc of replaced) {
      if (inc === null || inc === voter || this.#ended.has(inc)) continue
      if (!(await this.#port.retire(inc))) continue
      this.#ended.add(inc)
      this.#note(`the witness that was replaced is back: its incarnation ${inc} is ended and has no vote any more`)
    }
  }
}
