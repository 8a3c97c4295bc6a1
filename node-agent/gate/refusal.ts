/** Why the gate did not open, as words and as one code. */
import { GUARD_MS } from '../../shared/protocol/grants.ts'
import { EEXIST, ENOENT, EPERM } from '../kernel/libc.ts'
import type { OpenResult } from './gate.ts'
import type { BatchResult } from './nft.ts'

/** The lease leaves no room for a grant. */
export function tooShort(untilBootMs: number, nowMs: number): OpenResult {
  const leftMs = (untilBootMs - nowMs).toFixed(1)
  return { ok: false, code: 'too-short', why: `The lease has ${leftMs} ms left, too little for a grant.` }
}

/** Why a transaction that was to open the gate was refused, by what the kernel answered to its steps. */
export function refusal(result: Extract<BatchResult, { ok: false }>): OpenResult {
  const failed = (step: string, errno: number) => result.errors.some(e => e.step === step && e.errno === errno)
  const said = result.errors.map(error => `${error.step}: errno ${error.errno}`).join(', ') || 'steps unanswered'
  if (failed('guard', ENOENT) && !failed('grant', ENOENT)) {
    return {
      ok: false,
      code: 'late',
      why: `The grant came more than ${GUARD_MS} ms after its guard and was not applied.`,
    }
  }
  if (failed('token', ENOENT) && !failed('grant', ENOENT)) {
    return { ok: false, code: 'replaced', why: 'Another process has taken the gate over; this one may not open it.' }
  }
  if (result.errors.some(error => error.errno === ENOENT || error.errno === EPERM)) {
    return { ok: false, code: 'lost', why: `The gate's tables are gone or belong to another (${said}).` }
  }
  if (result.errors.some(error => error.errno === EEXIST)) {
    return { ok: false, code: 'refused', why: `Somebody else wrote to the gate at the same instant (${said}).` }
  }
  return { ok: false, code: 'refused', why: `The kernel refused the grant (${said}).` }
}
