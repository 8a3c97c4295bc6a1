import type { Mutant } from '../list.ts'

/** F1 to F13: each was a violation once, found by search or simulation, and led to a rule. */
export const found: readonly Mutant[] = [
  {
    id: 'f13-grow-in-doubt-forgotten',
    breaks:
      'A grow was sent, a shrink accepted locally, a crash: the host looks pinned while the grow can still be chosen.',
    edits: [
      {
        file: 'shared/protocol/step.ts',
        before: 's.openGrow = inDoubt(s) ? s.durable.lastOwn : 0',
        after: 's.openGrow = 0',
      },
    ],
  },
]
