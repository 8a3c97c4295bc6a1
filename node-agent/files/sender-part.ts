import type { Filter } from './filter.ts'
import type { Tree } from './tree.ts'

export interface SenderPart {
  tree: Tree
  filter: Filter
  /** Monotonic, ms. */
  now: () => number
  /** See {@link Proof.mayBeSent}. */
  mayBeSent: (changedMs: number) => boolean
  /** Bytes a second for seed and repair; 0 = no limit. */
  bulkBytesPerS: number
  /** Bytes a second for comparing contents. */
  contentBytesPerS: number
  /** A sentence for the log and the events. */
  note: (why: string) => void
}
