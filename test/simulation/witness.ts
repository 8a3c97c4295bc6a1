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

/** W: one row in a database, changed by one statement. It can be down, slow, lose its row, be restored, or be replaced. */
export class Witness {
  private readonly parts: WitnessParts
  state: AcceptorState
  down = 0
  slowMs = 0
  /** Restored onto another timeline: the row is there, but has no vote. */
  otherTimeline = false
  /** No row: no vote. */
  lost = false
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
      if (!this.votes) return
      const result = accept(this.state, request)
      if (result.changed) {
        this.history = [...this.history.slice(1 - historyMax), this.state]
        this.state = result.state
        this.parts.stored(this.state)
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
    this.state = this.freshRow()
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
