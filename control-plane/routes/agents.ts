import * as contract from '../../shared/contract/api/agents.ts'
import { brokerName } from '../../shared/contract/topics.ts'
import { asHost } from '../auth/caller.ts'
import { inOrganisation } from '../db/transaction.ts'
import type { Api } from '../http/api.ts'
import { drainQuietly } from '../http/mutate.ts'
import { brokerCertificate } from '../services/host/certificates.ts'
import { takeHostKeys } from '../services/host/host-keys.ts'
import { documentsFor } from '../services/host/pull-desired.ts'
import { takeAck } from '../services/ingest/acks.ts'
import { storeHostEvents } from '../services/ingest/host-events.ts'
import { lookAtPairsOf } from '../services/ingest/look-at-pairs.ts'
import { storeInventory } from '../services/ingest/store-inventory.ts'
import { storeReports } from '../services/ingest/store-reports.ts'

/** The second way between agents and control plane, which works without any broker. */
export function agentRoutes(api: Api): void {
  api.implement(contract.pullDesired, async call => {
    const { organisation, host } = asHost(call.caller)
    const { etag, body } = await inOrganisation(call.deps.database, organisation, tx =>
      documentsFor(tx, call.deps, { host, held: call.request.headers.get('if-none-match') }),
    )
    return body === null ? { status: 304, headers: { etag } } : { body, headers: { etag } }
  })

  api.implement(contract.pushReport, async call => {
    const { organisation, host } = asHost(call.caller)
    const stored = await storeReports(call.deps, [{ organisation, host, body: call.body }])
    await lookAtPairsOf(call.deps, stored)
    return { body: { stored: stored.length > 0 } }
  })

  api.implement(contract.pushInventory, async call => {
    const { organisation, host } = asHost(call.caller)
    return { body: { stored: await storeInventory(call.deps, { organisation, host, body: call.body }) } }
  })

  api.implement(contract.pushEvents, async call => {
    const { organisation, host } = asHost(call.caller)
    return { body: { stored: await storeHostEvents(call.deps, { organisation, host, events: call.body.events }) } }
  })

  api.implement(contract.pushAck, async call => {
    asHost(call.caller)
    return { body: { known: await takeAck(call.deps, call.body.ack) } }
  })

  api.implement(contract.renewCertificate, async call => {
    const { organisation, host } = asHost(call.caller)
    const name = brokerName.host({ organisation, host })
    const part = { name, publicKey: call.body.publicKey, now: call.deps.now() }
    return { body: await brokerCertificate(call.deps.authority, part) }
  })

  api.implement(contract.presentKeys, async call => {
    const { organisation, host } = asHost(call.caller)
    const { deps, body } = call
    await inOrganisation(deps.database, organisation, tx =>
      takeHostKeys(tx, deps, { organisation, host, presented: body }),
    )
    deps.later(drainQuietly(deps))
    return { body: { publicKey: body.publicKey } }
  })

  api.implement(contract.getTime, async call => ({ body: { now: call.deps.now().toISOString() } }))
}
