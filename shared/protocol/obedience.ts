import { closeGate, killDatabase } from './effects.ts'
import type { Turn } from './turn.ts'
import { say } from './turn.ts'
import type { Value } from './types.ts'

/**
 * What accepting a value demands in the same step, before the answer leaves: a value that names the other host shuts
 * the gate and kills a primary database here. The *accepted* value is enough, it need not be known to be committed.
 */
export function enforceAccepted(turn: Turn, value: Value): void {
  const { s } = turn
  if (value.primary === s.node) return
  closeGate(turn, `the register names ${value.primary} as primary of epoch ${value.epoch}`)
  const { process } = s.database.view
  const op = s.database.op?.op.op
  if (process === 'primary' || process === 'dead' || op === 'startPrimary' || op === 'promote') {
    say(turn, `kills the database: ${value.primary} is named as primary of epoch ${value.epoch}`)
    killDatabase(turn)
  }
}
