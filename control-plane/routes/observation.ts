import * as contract from '../../shared/contract/api/observation.ts'
import { asMember } from '../auth/caller.ts'
import type { Api } from '../http/api.ts'
import { mutate } from '../http/mutate.ts'
import { Refusal } from '../http/problem.ts'
import { reading } from '../http/read.ts'
import { UnderWay } from '../http/under-way.ts'
import { acknowledgeAlarm, alarmView, listAlarms } from '../services/alarm/alarms.ts'
import { auditHead, listAudit, verifyAudit } from '../services/record/read-audit.ts'
import { listEvents } from '../services/record/read-events.ts'
import { eventStream } from '../services/record/stream-events.ts'

/** It reads and computes the whole chain, which may be long: whoever asks ten times at once does not get it sooner. */
const verifications = new UnderWay(1)

export function observationRoutes(api: Api): void {
  api.implement(contract.listEvents, async call => ({
    body: await reading(call, (tx, member) => listEvents(tx, { member, ...call.query })),
  }))

  api.implementRaw(contract.streamEvents, call => eventStream(call))

  api.implement(contract.listAlarms, async call => ({
    body: await reading(call, (tx, member) => listAlarms(tx, { member, ...call.query })),
  }))

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

  api.implement(contract.listAudit, async call => ({
    body: await reading(call, (tx, { organisation }) => listAudit(tx, { organisation, ...call.query })),
  }))

  api.implement(contract.getAuditHead, async call => ({
    body: await reading(call, (tx, { organisation }) => auditHead(tx, call.deps, organisation)),
  }))

  api.implement(contract.verifyAudit, async call => {
    const leave = verifications.take(asMember(call.caller).organisation)
    if (leave === null)
      throw new Refusal('rate_limited', 'another request verifies this audit just now; ask again when it has ended', {
        headers: { 'retry-after': '5' },
      })
    try {
      const verified = await reading(call, (tx, { organisation }) => verifyAudit(tx, organisation, call.query), {
        // Entries that are written meanwhile are none of the head that it began with.
        atOneInstant: true,
      })
      return { body: verified }
    } finally {
      leave()
    }
  })
}
