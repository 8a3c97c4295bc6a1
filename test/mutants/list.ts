import type { Edit } from './defect.ts'
import { found } from './list/found.ts'

/** A defect that somebody could have written, and what has to notice it. */
export interface Mutant {
  /** `f5-candidacy-forgotten`: where it comes from, and what it is. */
  id: string
  /** What goes wrong for a user, as a sentence. */
  breaks: string
  edits: readonly Edit[]
}

export const mutants: readonly Mutant[] = [...found]

export function mutantOf(id: string): Mutant {
  const mutant = mutants.find(one => one.id === id)
  if (mutant === undefined) throw new Error(`There is no mutant "${id}". npm run mutants -- --list shows them.`)
  return mutant
}
