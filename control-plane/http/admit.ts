import type { Route } from '../../shared/contract/api/route.ts'
import { spend } from '../auth/bearer.ts'
import { type Caller, seesPair } from '../auth/caller.ts'
import { inOrganisation } from '../db/transaction.ts'
import type { Deps } from '../deps.ts'
import { recordAudit } from '../services/record/audit.ts'
import { notFound, Refusal } from './problem.ts'

/** Each is an entry of the audit, which keeps them for good: the first ones tell of somebody who tries, and some each hour that he still does. */
const refusedChanges = { perSecond: 0.01, burst: 100 }

/** Whether the caller may call the route at all; a refused change is told to the audit. @throws Refusal */
export async function admit(
  route: Route,
  part: { caller: Caller; params: unknown; deps: Deps; requestId: string },
): Promise<void> {
  const { caller, deps } = part
  const { access } = route
  if (access === 'public' || access === 'host' || access === 'pair host' || access === 'authenticated') return
  if (access === 'instance') {
    if (caller.kind === 'instance') return
    throw new Refusal('forbidden', 'this is the affair of whoever runs this control plane')
  }
  if (caller.kind !== 'member')
    throw new Refusal('forbidden', 'this credential belongs to no organisation; use a token of the organisation')
  const { pair } = part.params as { pair?: string }
  // A pair that the token may not see is, for it, not there.
  if (pair !== undefined && !seesPair(caller, pair)) throw notFound('pair', pair)
  if (caller.permissions.has(access)) return
  const detail = `this needs the permission ${access}; the role ${caller.role} of this credential does not have it, or its scopes leave it out`
  if (route.method !== 'get') {
    await spend(deps, {
      key: `refused:${caller.credential}`,
      rate: refusedChanges,
      what: 'refused changes of this credential',
    })
    await inOrganisation(deps.database, caller.organisation, tx =>
      recordAudit(tx, caller.organisation, {
        at: deps.now(),
        actor: caller.subject,
        action: route.id,
        resource:
          Object.entries(part.params as object)
            .map(([kind, id]) => `${kind} ${id}`)
            .join(', ') || 'organisation',
        outcome: 'refused',
        details: { missing: access, request: part.requestId },
      }),
    )
  }
  throw new Refusal('forbidden', detail)
}
