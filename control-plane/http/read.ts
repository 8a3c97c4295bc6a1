import type { Route } from '../../shared/contract/api/route.ts'
import { asMember, type Member } from '../auth/caller.ts'
import type { Transaction } from '../db/client.ts'
import { inOrganisation } from '../db/transaction.ts'
import type { Call } from './call.ts'

/** Reads in a transaction that sees the caller's organisation alone. */
export function reading<R extends Route, Found>(
  { caller, deps }: Call<R>,
  look: (tx: Transaction, member: Member) => Promise<Found>,
  seen: { atOneInstant?: boolean } = {},
): Promise<Found> {
  const member = asMember(caller)
  return inOrganisation(deps.database, member.organisation, tx => look(tx, member), seen)
}
