import { z } from 'zod'
import { hostSummary } from '../../shared/contract/host-summary.ts'

/** What the core answers to the verb `hosts`: both hosts of the pair as far as it knows them. */
export const comparedSchema = z.object({
  node: z.enum(['a', 'b']),
  own: hostSummary.nullable(),
  theirs: hostSummary.nullable(),
})
export type Compared = z.output<typeof comparedSchema>

/** null: not known. */
export function theirInitiatorName(answer: unknown): string | null {
  const parsed = comparedSchema.safeParse(answer)
  return parsed.success ? (parsed.data.theirs?.initiatorName ?? null) : null
}
