import { z } from 'zod'
import { precheckResult } from '../../shared/contract/api/pairs.ts'

/**
 * What a host answered to `prechecks`. A machine that may have been broken into wrote it, so its form is looked at before
 * anything is made of it, and each word is bounded.
 */
const result = z.object({
  ...precheckResult.omit({ host: true, severity: true }).shape,
  code: z.string().max(64),
  measured: z.string().max(2000),
  limit: z.string().max(2000),
  remedy: z.string().max(2000),
  severity: precheckResult.shape.severity,
})
type MeasuredResult = z.output<typeof result>
/** An agent measures some twenty things, and each virtual address. */
const resultsMax = 128
const answer = z.object({ results: z.array(result).max(resultsMax).default([]) })

/** null: of a form that is not known here. No answer at all has no results. */
export function measuredIn(note: unknown): MeasuredResult[] | null {
  const parsed = answer.safeParse(note ?? {})
  return parsed.success ? parsed.data.results : null
}

/** Shown in the place of results that cannot be read: unknown, never good. */
export const unreadable: MeasuredResult = {
  code: 'answer',
  severity: 'unknown',
  measured: 'the host answered in a form that this control plane does not know',
  limit: 'a list of results',
  remedy: 'bring the agent there to the version of this control plane',
}
