import { sql } from 'drizzle-orm'
import * as contract from '../../shared/contract/api/witness.ts'
import { voteReply } from '../../shared/contract/witness.ts'
import { limitByAddress } from '../auth/bearer.ts'
import type { Transaction } from '../db/client.ts'
import { inOrganisation } from '../db/transaction.ts'
import type { Api } from '../http/api.ts'
import type { Call } from '../http/call.ts'
import { Refusal } from '../http/problem.ts'
import {
  admitWitness,
  changeWitnessKeys,
  refuseUnsigned,
  registeredKeys,
  retireWitness,
  witnessRow,
} from '../services/witness/members.ts'
import { voteOnce, whySilent } from '../services/witness/vote.ts'

type OfPair = Call & { params: { organisation: string; pair: string } }

export function witnessRoutes(api: Api): void {
  api.implement(contract.witnessHealth, async () => ({ body: { ok: true as const } }))

  api.implement(contract.witnessVote, async call => {
    const { params, body: request } = call
    const body = await durably(call, async tx => {
      await refuseForeign(tx, { call, verb: 'vote' })
      return (await voteOnce(tx, { ...params, request })) ?? whySilent(tx, { ...params, inc: request.inc })
    })
    return { body: voteReply.parse(body) }
  })

  api.implement(contract.witnessAdmit, async call => ({
    body: await durably(call, async tx => {
      const keys = (await witnessRow(tx, call.params))?.keys ?? (await registeredKeys(tx, call.params))
      await refuseUnsigned(keys, { request: call.request, verb: 'admit', pair: call.params.pair, bytes: call.bytes })
      return admitWitness(tx, { ...call.params, request: call.body, now: call.deps.now() })
    }),
  }))

  api.implement(contract.witnessKeys, async call => ({
    body: await durably(call, async tx => {
      await refuseForeign(tx, { call, verb: 'keys' })
      return changeWitnessKeys(tx, { ...call.params, request: call.body })
    }),
  }))

  api.implement(contract.witnessRetire, async call => ({
    body: await durably(call, async tx => {
      await refuseForeign(tx, { call, verb: 'retire' })
      return retireWitness(tx, { ...call.params, request: call.body, now: call.deps.now() })
    }),
  }))
}

/** What is answered is on disk, whatever the database's default is. */
function durably<T>(call: OfPair, work: (tx: Transaction) => Promise<T>): Promise<T> {
  const done = inOrganisation(call.deps.database, call.params.organisation, async tx => {
    await tx.execute(sql`set local synchronous_commit = on`)
    return work(tx)
  })
  return done.catch(async (error: unknown) => {
    // Whoever signs for no pair is somebody who guesses, until he shows otherwise.
    if (error instanceof Refusal && error.code === 'unauthenticated') await limitByAddress(call.deps, call.request)
    throw error
  })
}

async function refuseForeign(
  tx: Transaction,
  { call, verb }: { call: OfPair & { body: { inc: string } }; verb: 'vote' | 'keys' | 'retire' },
): Promise<void> {
  const { pair } = call.params
  const row = await witnessRow(tx, { ...call.params, inc: call.body.inc })
  if (row === null) throw new Refusal('not_found', `this witness does not know pair ${pair}: it was never admitted`)
  await refuseUnsigned(row.keys, { request: call.request, verb, pair, bytes: call.bytes })
}
