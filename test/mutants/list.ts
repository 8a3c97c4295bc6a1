import type { Edit } from './defect.ts'
import { drivers } from './list/drivers.ts'
import { foundBefore } from './list/found-before.ts'
import { gate } from './list/gate.ts'
import { lease } from './list/lease.ts'
import { reasoned } from './list/reasoned.ts'
import { register } from './list/register.ts'
import { replication } from './list/replication.ts'

/** A defect that somebody could have written, and what has to notice it. */
export interface Mutant {
  /** `f5-candidacy-forgotten`: the rule it breaks, where that has a number, and what it is. */
  id: string
  /** What it does to a pair, as a sentence. */
  breaks: string
  edits: readonly Edit[]
  /** What may notice it, in this order; the first that does has killed it. */
  checks: readonly Check[]
}

/**
 * - sim: runs of the simulation from seed 1 on, or from a kept one that meets what is too rare otherwise; every checker watching.
 * - search: the exhaustive search, the same states from each start on every machine.
 * - interruptions: each plan ended after each of its effects, seed 1, until one fails.
 * - tests: test files by node's own runner; `lab` needs root, namespaces and the machine for itself.
 */
export type Check =
  | { by: 'sim'; first?: number }
  | { by: 'search' }
  | { by: 'interruptions' }
  | { by: 'tests'; files: readonly string[] }
  | { by: 'lab'; files: readonly string[] }

export const mutants: readonly Mutant[] = [
  ...foundBefore,
  ...register,
  ...lease,
  ...replication,
  ...gate,
  ...drivers,
  ...reasoned,
]

export function mutantOf(id: string): Mutant {
  const mutant = mutants.find(one => one.id === id)
  if (mutant === undefined) throw new Error(`There is no mutant "${id}". npm run mutants -- --list shows them.`)
  return mutant
}
