import * as contract from '../../shared/contract/api/observation.ts'
import { asMember } from '../auth/caller.ts'
import { inOrganisation } from '../db/transaction.ts'
import type { Api } from '../http/api.ts'
import { mutate } from '../http/mutate.ts'
import { acknowledgeAlarm, alarmView, listAlarms } from '../services/alarm/alarms.ts'
import { auditHead, listAudit, verifyAudit } from '../services/record/read-audit.ts'
import { listEvents } from '../services/record/read-events.ts'
import { eventStream } from '../services/record/stream-events.ts'

export function observationRoutes(api: Api): void {
  api.implement(contract.listEvents, async call => {
    const member = asMember(call.caller)
    const part = { member, ...call.query }
    return { body: await inOrganisation(call.deps.database, member.organisation, tx => listEvents(tx, part)) }
  })

  api.implementRaw(contract.streamEvents, call => eventStream(call))

  api.implement(contract.listAlarms, async call => {
    const member = asMember(call.caller)
    const part = { member, ...call.query }
    return { body: await inOrganisation(call.deps.database, member.organisation, tx => listAlarms(tx, part)) }
  })

  api.implement(contract.acknowledgeAlarm, call =>
    mutate(call, async tx => {
      const row = await acknowledgeAlarm(tx, {
        id: call.params.alarm,
        member: asMember(call.caller),
        now: call.deps.now(),
      })
      return { body: alarmView(row), resource: `alarm ${row.id}` }
    }),
  )

  api.implement(contract.listAudit, async call => {
    const { organisation } = asMember(call.caller)
    const part = { organisation, ...call.query }
    return { body: await inOrganisation(call.deps.database, organisation, tx => listAudit(tx, part)) }
  })

  api.implement(contract.getAuditHead, async call => {
    const { organisation } = asMember(call.caller)
    return {
      body: await inOrganisation(call.deps.database, organisation, tx => auditHead(tx, call.deps, organisation)),
    }
  })

  api.implement(contract.verifyAudit, async call => {
    const { organisation } = asMember(call.caller)
    return {
      body: await inOrganisation(call.deps.database, organisation, tx => verifyAudit(tx, organisation, call.query)),
    }
  })
}
