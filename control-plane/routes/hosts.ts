import { and } from 'drizzle-orm'
import * as contract from '../../shared/contract/api/hosts.ts'
import { asMember } from '../auth/caller.ts'
import { acrossOrganisations, inOrganisation } from '../db/transaction.ts'
import type { Api } from '../http/api.ts'
import { type Call, etagOf } from '../http/call.ts'
import { mutate } from '../http/mutate.ts'
import { keyOfCursor, pageOfRows } from '../http/pages.ts'
import { reading } from '../http/read.ts'
import { renameHost, retireHost } from '../services/host/change-host.ts'
import { enrolHost, makeEnrolmentToken } from '../services/host/enrolment.ts'
import { enrolmentTokenView, listEnrolmentTokens, withdrawEnrolmentToken } from '../services/host/enrolment-tokens.ts'
import { changeHostKeys } from '../services/host/host-keys.ts'
import { type HostRows, hostView } from '../services/host/host-view.ts'
import { hostsAfter, hostsSeenBy, readHost, readHosts } from '../services/host/read-hosts.ts'
import { operationView } from '../services/operation/operation-view.ts'
import { operationResult } from '../services/operation/wait.ts'

export function hostRoutes(api: Api): void {
  api.implement(contract.createEnrolmentToken, call =>
    mutate(call, async tx => {
      const made = await makeEnrolmentToken(tx, { deps: call.deps, by: asMember(call.caller), wanted: call.body })
      return { body: made, secret: true, resource: `enrolment token ${made.id}`, details: { name: made.name } }
    }),
  )

  api.implement(contract.listEnrolmentTokens, async call => ({
    body: await reading(call, (tx, member) =>
      listEnrolmentTokens(tx, { member, limit: call.query.limit, cursor: call.query.cursor }),
    ),
  }))

  api.implement(contract.withdrawEnrolmentToken, call =>
    mutate(call, async tx => {
      const row = await withdrawEnrolmentToken(tx, { id: call.params.enrolmentToken, member: asMember(call.caller) })
      return { body: enrolmentTokenView(row), resource: `enrolment token ${row.id}`, details: { name: row.name } }
    }),
  )

  api.implement(contract.enrolHost, async call => ({
    body: await acrossOrganisations(call.deps.database, tx => enrolHost(tx, { deps: call.deps, presented: call.body })),
  }))

  api.implement(contract.listHosts, async call => {
    const member = asMember(call.caller)
    const { limit, cursor, state } = call.query
    const where = and(hostsSeenBy(member), hostsAfter(keyOfCursor(cursor), state))
    const rows = await inOrganisation(call.deps.database, member.organisation, tx =>
      readHosts(tx, { where, limit: limit + 1 }),
    )
    const now = call.deps.now()
    return { body: pageOfRows(rows, { limit, key: row => row.host.id, view: row => hostView(row, now) }) }
  })

  api.implement(contract.getHost, async call => {
    const rows = await readOne(call)
    return { body: hostView(rows, call.deps.now()), headers: { etag: etagOf(rows.host.version) } }
  })

  api.implement(contract.renameHost, call =>
    mutate(call, async tx => {
      const rows = await renameHost(tx, { ...changePart(call), name: call.body.name })
      return { ...seen(call, rows), details: call.body }
    }),
  )

  api.implement(contract.retireHost, call =>
    mutate(call, async tx => {
      const rows = await retireHost(tx, { ...changePart(call), reason: call.body.reason })
      return { ...seen(call, rows), details: call.body }
    }),
  )

  api.implement(contract.changeHostKeys, async call => {
    const { host } = call.params
    const result = await mutate(call, async tx => {
      const { reason } = call.body
      const row = await changeHostKeys(tx, call.deps, { id: host, member: asMember(call.caller), reason })
      const headers = { location: `/v1/operations/${row.id}` }
      return { body: operationView(row), headers, resource: `host ${host}, operation ${row.id}`, details: call.body }
    })
    return operationResult(call, result)
  })
}

type OfHost = Call & { params: { host: string } }

function readOne(call: OfHost): Promise<HostRows> {
  const member = asMember(call.caller)
  return inOrganisation(call.deps.database, member.organisation, tx => readHost(tx, { id: call.params.host, member }))
}

const changePart = (call: OfHost) => ({
  id: call.params.host,
  member: asMember(call.caller),
  version: call.ifMatch!,
  now: call.deps.now(),
})

const seen = (call: OfHost, rows: HostRows) => ({
  body: hostView(rows, call.deps.now()),
  headers: { etag: etagOf(rows.host.version) },
  resource: `host ${rows.host.id}`,
})
