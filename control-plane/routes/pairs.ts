import { and, gt } from 'drizzle-orm'
import type { z } from 'zod'
import type { operation } from '../../shared/contract/api/operations.ts'
import * as contract from '../../shared/contract/api/pairs.ts'
import type { Route } from '../../shared/contract/api/route.ts'
import { asMember } from '../auth/caller.ts'
import type { Transaction } from '../db/client.ts'
import { pair } from '../db/schema/index.ts'
import { inOrganisation } from '../db/transaction.ts'
import type { Api } from '../http/api.ts'
import { type Call, etagOf } from '../http/call.ts'
import { mutate } from '../http/mutate.ts'
import { keyOfCursor, pageOfRows } from '../http/pages.ts'
import { type OperationRow, operationView } from '../services/operation/operation-view.ts'
import { operationResult } from '../services/operation/wait.ts'
import { unpair } from '../services/pair/end.ts'
import { forcedTakeover, maintenance, prechecks, switchover } from '../services/pair/operate.ts'
import { pairView } from '../services/pair/pair-view.ts'
import { knownPrechecks, passes } from '../services/pair/prechecks.ts'
import { type PairRows, pairsSeenBy, readPair, readPairs } from '../services/pair/read-pairs.ts'
import { readinessOf } from '../services/pair/readiness.ts'
import { joinReplacement } from '../services/pair/replace.ts'
import { setUp } from '../services/pair/set-up.ts'
import { admitWitness, changeKeys, changeSettings } from '../services/pair/settings.ts'

export function pairRoutes(api: Api): void {
  api.implement(contract.setUpPair, async call =>
    mutate(call, async tx => {
      const { pairId, operation } = await setUp(tx, call.deps, { wanted: call.body, by: asMember(call.caller) })
      return {
        body: { pair: pairId, operation: operationView(operation) },
        headers: { location: `/v1/operations/${operation.id}` },
        resource: `pair ${pairId}`,
        details: call.body,
      }
    }),
  )

  api.implement(contract.listPairs, async call => {
    const member = asMember(call.caller)
    const { limit, cursor } = call.query
    const after = keyOfCursor(cursor)
    const where = and(pairsSeenBy(member), after === null ? undefined : gt(pair.id, after))
    const rows = await inOrganisation(call.deps.database, member.organisation, tx =>
      readPairs(tx, { where, limit: limit + 1 }),
    )
    const now = call.deps.now()
    return { body: pageOfRows(rows, { limit, key: row => row.pair.id, view: row => pairView(row, now) }) }
  })

  api.implement(contract.getPair, async call => {
    const rows = await readOne(call)
    return { body: pairView(rows, call.deps.now()), headers: { etag: etagOf(rows.pair.version) } }
  })

  api.implement(contract.changeSettings, call =>
    mutate(call, async tx => {
      const { rows, operation } = await changeSettings(tx, call.deps, {
        id: call.params.pair,
        member: asMember(call.caller),
        version: call.ifMatch!,
        patch: call.body,
      })
      return {
        body: pairView(rows, call.deps.now()),
        headers: {
          etag: etagOf(rows.pair.version),
          ...(operation !== null && { location: `/v1/operations/${operation.id}` }),
        },
        resource: `pair ${rows.pair.id}`,
        details: call.body,
      }
    }),
  )

  api.implement(contract.getPrechecks, async call => {
    const rows = await readOne(call)
    const now = call.deps.now()
    const results = knownPrechecks({
      settings: rows.pair.settings,
      hosts: rows.hosts,
      pair: rows.pair.id,
      hostedWitness: call.deps.witness,
      now,
    })
    return { body: { asOf: now.toISOString(), passed: passes(results), results } }
  })

  api.implement(contract.getReadiness, async call => ({ body: readinessOf(await readOne(call), call.deps.now()) }))

  api.implement(contract.getPairReports, async call => {
    const { hosts } = await readOne(call)
    const data = (['a', 'b'] as const).flatMap(slot => {
      const { host, reported } = hosts[slot]
      if (reported === null) return []
      return [{ host: host.id, slot, receivedAt: reported.receivedAt.toISOString(), report: reported.body }]
    })
    return { body: { data } }
  })

  operationRoutesOfPairs(api)
}

function operationRoutesOfPairs(api: Api): void {
  api.implement(contract.switchOver, async call => {
    const result = await mutate(call, async tx => {
      const answer = await switchover(tx, call.deps, { ...part(call), wanted: call.body })
      if (!answer.dryRun) return begun(call, answer.operation)
      return { status: 200, body: answer, resource: null }
    })
    return operationResult(call, result)
  })
  begins(api, contract.startPrechecks, (tx, call) => prechecks(tx, call.deps, { ...part(call), wanted: null }))
  begins(api, contract.takeOver, (tx, call) => forcedTakeover(tx, call.deps, { ...part(call), wanted: call.body }))
  begins(api, contract.beginMaintenance, (tx, call) =>
    maintenance(tx, call.deps, { ...part(call), version: call.ifMatch, wanted: call.body }),
  )
  begins(api, contract.endMaintenance, (tx, call) =>
    maintenance(tx, call.deps, { ...part(call), version: call.ifMatch, wanted: null }),
  )
  begins(api, contract.replaceMember, (tx, call) =>
    joinReplacement(tx, call.deps, { ...part(call), wanted: call.body }),
  )
  begins(api, contract.admitWitness, (tx, call) =>
    admitWitness(tx, call.deps, { ...part(call), reason: call.body.reason }),
  )
  begins(api, contract.changeKeys, (tx, call) => changeKeys(tx, call.deps, { ...part(call), reason: call.body.reason }))
  begins(api, contract.unpair, (tx, call) =>
    unpair(tx, call.deps, { ...part(call), version: call.ifMatch, wanted: call.body }),
  )
}

type Begins<Params extends z.ZodType, Query extends z.ZodType, Body extends z.ZodType> = Route<
  Params,
  Query,
  Body,
  typeof operation
>

/** A route that begins an operation of a pair, and answers with it. */
function begins<Params extends z.ZodType<{ pair: string }>, Query extends z.ZodType, Body extends z.ZodType>(
  api: Api,
  route: Begins<Params, Query, Body>,
  begin: (tx: Transaction, call: Call<Begins<Params, Query, Body>>) => Promise<OperationRow>,
): void {
  api.implement(route, async call =>
    operationResult(call, await mutate(call, async tx => begun(call, await begin(tx, call)))),
  )
}

type OfPair = Call & { params: { pair: string } }

const part = (call: OfPair) => ({ id: call.params.pair, member: asMember(call.caller) })

function readOne(call: OfPair): Promise<PairRows> {
  const member = asMember(call.caller)
  return inOrganisation(call.deps.database, member.organisation, tx => readPair(tx, { id: call.params.pair, member }))
}

const begun = (call: OfPair, row: OperationRow) => ({
  body: operationView(row),
  headers: { location: `/v1/operations/${row.id}` },
  resource: `pair ${call.params.pair}, operation ${row.id}`,
  details: (call.body ?? {}) as Record<string, unknown>,
})
