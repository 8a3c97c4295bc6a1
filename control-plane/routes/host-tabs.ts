import * as contract from '../../shared/contract/api/host-tabs.ts'
import { asMember } from '../auth/caller.ts'
import type { Transaction } from '../db/client.ts'
import { inOrganisation } from '../db/transaction.ts'
import type { Api } from '../http/api.ts'
import type { Call } from '../http/call.ts'
import { mutate } from '../http/mutate.ts'
import { type HostWish, inventoryOf, operateHost } from '../services/host/host-tabs.ts'
import { operationView } from '../services/operation/operation-view.ts'
import { operationResult } from '../services/operation/wait.ts'

type OfHost = Call & { params: { host: string } }

export function hostTabRoutes(api: Api): void {
  api.implement(contract.getNetwork, async call => ({ body: await shown(call, 'network') }))
  api.implement(contract.getStorage, async call => ({ body: await shown(call, 'storage') }))
  api.implement(contract.takeInventory, async call =>
    operationResult(call, await mutate(call, begin(call, { kind: 'inventory' }))),
  )
  api.implement(contract.scanStorage, async call =>
    operationResult(call, await mutate(call, begin(call, { kind: 'storageScan', ...call.body }))),
  )
  api.implement(contract.discoverTargets, async call =>
    operationResult(call, await mutate(call, begin(call, { kind: 'storageDiscovery', ...call.body }))),
  )
  api.implement(contract.changeInitiatorName, async call =>
    operationResult(call, await mutate(call, begin(call, { kind: 'initiatorName', ...call.body }))),
  )
  api.implement(contract.putVswitch, async call =>
    operationResult(call, await mutate(call, begin(call, { kind: 'vswitch', wish: call.body }))),
  )
  api.implement(contract.deleteVswitch, async call =>
    operationResult(call, await mutate(call, begin(call, { kind: 'vswitchDelete', name: call.params.vswitch }))),
  )
}

function shown(call: OfHost, of: 'network' | 'storage') {
  const member = asMember(call.caller)
  return inOrganisation(call.deps.database, member.organisation, tx =>
    inventoryOf(tx, { id: call.params.host, member, of }),
  )
}

const begin = (call: OfHost, wanted: HostWish) => async (tx: Transaction) => {
  const row = await operateHost(tx, call.deps, { id: call.params.host, member: asMember(call.caller), wanted })
  return {
    body: operationView(row),
    headers: { location: `/v1/operations/${row.id}` },
    resource: `host ${call.params.host}, operation ${row.id}`,
    details: { ...wanted },
  }
}
