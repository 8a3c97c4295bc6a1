import * as contract from '../../shared/contract/api/operations.ts'
import { asMember } from '../auth/caller.ts'
import { inOrganisation } from '../db/transaction.ts'
import type { Api } from '../http/api.ts'
import { mutate } from '../http/mutate.ts'
import { hasEnded } from '../operations/advance.ts'
import { cancelOperation, listOperations, resumeOperation } from '../services/operation/change-operation.ts'
import { operationView } from '../services/operation/operation-view.ts'
import { operationResult, waitForEnd } from '../services/operation/wait.ts'

/** Seconds until it makes sense to look again. */
const retryAfter = '1'

export function operationRoutes(api: Api): void {
  api.implement(contract.listOperations, async call => {
    const member = asMember(call.caller)
    const { limit, cursor, pair, state } = call.query
    const part = { member, limit, cursor, pair, state }
    return { body: await inOrganisation(call.deps.database, member.organisation, tx => listOperations(tx, part)) }
  })

  api.implement(contract.getOperation, async call => {
    const row = await waitForEnd(call, call.params.operation)
    return { body: operationView(row), headers: hasEnded(row.state) ? {} : { 'retry-after': retryAfter } }
  })

  api.implement(contract.cancelOperation, async call =>
    operationResult(
      call,
      await mutate(call, async tx => {
        const row = await cancelOperation(tx, call.deps, { id: call.params.operation, member: asMember(call.caller) })
        return { body: operationView(row), resource: `operation ${row.id}` }
      }),
    ),
  )

  api.implement(contract.resumeOperation, async call =>
    operationResult(
      call,
      await mutate(call, async tx => {
        const row = await resumeOperation(tx, call.deps, { id: call.params.operation, member: asMember(call.caller) })
        return { body: operationView(row), resource: `operation ${row.id}` }
      }),
    ),
  )
}
