import { accept } from '../../shared/protocol/acceptor.ts'
import type { AcceptorState, Incarnation, NodeId, RegisterReply, RegisterRequest } from '../../shared/protocol/types.ts'
import type { Random } from './random.ts'
import type { World } from './world.ts'

export interface WitnessParts {
  world: World
  random: Random
  answer: (to: NodeId, reply: RegisterReply) => void
  stored: (state: AcceptorState) => void
}

/** How many of its earlier states a restore can bring back. */
const historyMax = 12

/**
 * W: one row in a database, changed by one statement. It can be down, slow, lose its row, be restored, or be replaced: by a
 * new row, or by another one beside which the old one lives on, and may be named again.
 */
export class Witness {
  private readonly parts: WitnessParts
  state: AcceptorState
  down = 0
  slowMs = 0
  /** Restored onto another timeline: the row is there, but has no vote. */
  otherTimeline = false
  /** No row: no vote. */
  lost = false
  /** The one before, as it was left, with all that it promised; null: it is gone. */
  former: AcceptorState | null = null
  private made = 0
  private history: AcceptorState[] = []

  constructor(parts: WitnessParts) {
    this.parts = parts
    this.state = this.freshRow()
  }

  get inc(): Incarnation {
    return this.state.inc
  }

  receive(from: NodeId, request: RegisterRequest): void {
    if (this.down > 0) return
    const { world, random } = this.parts
    world.after(random.between(0.2, 1.5) + this.slowMs * random.between(0.5, 1.5), () => {
      const { former } = this
      const isFormer = request.inc === former?.inc
      if (isFormer ? this.down > 0 : !this.votes) return
      const result = accept(isFormer ? former : this.state, request)
      if (result.changed) {
        if (isFormer) this.former = result.state
        else {
          this.history = [...this.history.slice(1 - historyMax), this.state]
          this.state = result.state
        }
        this.parts.stored(result.state)
      }
      if (result.reply !== null) this.parts.answer(from, result.reply)
    })
  }

  get votes(): boolean {
    return this.down === 0 && !this.otherTimeline && !this.lost
  }

  backUp(): void {
    if (this.down > 0) this.down--
  }

  loseRow(): void {
    this.lost = true
  }

  /** A new row with a new incarnation: after an amnesia, or as an alternate. */
  replace(): void {
    this.former = null
    this.become(this.freshRow())
  }

  /** Another one takes its place, and it lives on. */
  replaceBeside(): void {
    this.former = this.lost || this.otherTimeline ? null : this.state
    this.become(this.freshRow())
  }

  /** The one before is named again, as it was left, and this one lives on beside it. False: it is gone. */
  goBack(): boolean {
    const { former } = this
    if (former === null) return false
    this.former = this.lost || this.otherTimeline ? null : this.state
    this.become(former)
    return true
  }

  /** Whether a member with this incarnation still is there. */
  has(inc: Incarnation | undefined): boolean {
    return inc !== undefined && (inc === this.inc || inc === this.former?.inc)
  }

  private become(state: AcceptorState): void {
    this.state = state
    this.history = []
    this.otherTimeline = false
    this.lost = false
  }

  /** The volume is set back to an earlier moment, and the database cannot tell. Returns false if there is no such moment. */
  rollBack(isSafe: (state: AcceptorState) => boolean): boolean {
    const earlier = this.history.find(state => isSafe(state) && state.inc === this.state.inc)
    if (earlier === undefined) return false
    this.state = earlier
    return true
  }

  private freshRow(): AcceptorState {
    return { inc: `w${++this.made}`, promised: 0, acc: null }
  }
}
