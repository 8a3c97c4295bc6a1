import { restsUntil } from '../../shared/protocol/rest.ts'
import type { HostState } from '../../shared/protocol/state.ts'

/** What the agent's loop knows of rests: asked for after each step, one lasts until the next step or its end. */
export class Rests {
  /** The newest step that no rest was asked for yet; null: the rest is known. */
  private stepped: { state: HostState; at: number } | null = null
  private until = 0

  forget(): void {
    this.stepped = null
    this.until = 0
  }

  /** `at`: on the clock of the host. */
  steppedTo(state: HostState, at: number): void {
    this.stepped = { state, at }
  }

  lasts(now: number): boolean {
    if (this.stepped !== null) {
      this.until = restsUntil(this.stepped.state, this.stepped.at)
      this.stepped = null
    }
    return now < this.until
  }
}
