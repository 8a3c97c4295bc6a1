import type { FaultKind } from '../faults/fault.ts'
import type { Pair } from '../pair.ts'
import { Violation } from './check.ts'

/** What befalls the witness alone. */
const witnessAlone: ReadonlySet<FaultKind> = new Set([
  'witnessDown',
  'witnessFlap',
  'witnessSlow',
  'witnessAmnesia',
  'witnessReplace',
  'cutWitness',
])

/** L3: the loss of the witness alone stops nothing: the primary stays, and its gate stays open. */
export function demandWitnessNotNeeded(
  pair: Pair,
  kind: FaultKind,
  seen: { primaryBefore: string | null; shutMs: number },
): void {
  if (!witnessAlone.has(kind)) return
  pair.count('L3: the witness alone')
  if (pair.named !== seen.primaryBefore)
    throw new Violation('L3', `${kind} made ${pair.named} primary instead of ${seen.primaryBefore}`)
  if (seen.shutMs > 0)
    throw new Violation('L3', `${kind} shut the gate of the primary for ${seen.shutMs.toFixed(0)} ms`)
}
