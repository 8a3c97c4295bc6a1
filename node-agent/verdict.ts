import type { Protection } from '../shared/protocol/status.ts'
import type { Decisions } from './decisions.ts'

/** Since when, by wall time, and why the verdict is what it is. */
export interface Verdict {
  protection: Protection
  sinceMs: number
  why: string
}

export const verdictMark = 'verdict: '
const protections: readonly Protection[] = ['protected', 'serving but unprotected', 'not serving']

/** "Since when" outlives the agent: it stands in the decisions of the one before. */
export function lastVerdict(decisions: Decisions): Verdict | null {
  const last = decisions.last(decision => decision.why.startsWith(verdictMark))
  if (last === null) return null
  const text = last.why.slice(verdictMark.length)
  const protection = protections.find(one => text.startsWith(`${one}:`))
  return protection === undefined ? null : { protection, sinceMs: last.wallMs, why: text.slice(protection.length + 2) }
}
