import { asMember } from '../../auth/caller.ts'
import { inOrganisation } from '../../db/transaction.ts'
import type { Call, Result } from '../../http/call.ts'
import { UnderWay } from '../../http/under-way.ts'
import { hasEnded } from '../../operations/advance.ts'
import { readOperation } from './change-operation.ts'
import { listenFor } from './news.ts'
import { type OperationRow, operationView } from './operation-view.ts'

/**
 * News in this process wakes whoever waits; other instances it does not hear, so the row is looked at besides. Often at
 * first, since most commands are carried out within some tens of milliseconds, and then ever less often: who waits for
 * seconds does not notice a tenth of one.
 */
const lookEveryMs = { least: 20, shareOfWaited: 0.15, most: 100 }

/** Each looks some times a second. More than so many of an organisation are answered at once: to wait is a preference. */
export const waitersMax = 100
export const waiters = new UnderWay(waitersMax)

/** `Prefer: wait`: an operation that ends in time is answered with 200, else the 202 that it would have been. */
export async function operationResult<R extends Result>(call: Call, result: R): Promise<R> {
  const { id } = (result.body ?? {}) as { id?: string }
  if (call.waitSeconds === 0 || id === undefined) return result
  const row = await waitForEnd(call, id)
  return hasEnded(row.state) ? { ...result, status: 200, body: operationView(row) } : result
}

export async function waitForEnd(call: Call, id: string): Promise<OperationRow> {
  const member = asMember(call.caller)
  const leave = call.waitSeconds === 0 ? null : waiters.take(member.organisation)
  const waitMs = leave === null ? 0 : call.waitSeconds * 1000
  const began = Date.now()
  const { least, shareOfWaited, most } = lookEveryMs
  const heard = listenFor(id)
  try {
    for (;;) {
      const row = await inOrganisation(call.deps.database, member.organisation, tx => readOperation(tx, { id, member }))
      const waitedMs = Date.now() - began
      if (hasEnded(row.state) || waitedMs >= waitMs || call.request.signal.aborted) return row
      const pauseMs = Math.min(most, Math.max(least, waitedMs * shareOfWaited))
      await Promise.race([heard.news(), new Promise(resolve => setTimeout(resolve, pauseMs))])
    }
  } finally {
    heard.end()
    leave?.()
  }
}
