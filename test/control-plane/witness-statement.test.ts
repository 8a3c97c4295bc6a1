import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { sql } from 'drizzle-orm'
import { openDatabase } from '../../control-plane/db/client.ts'
import { migrateDatabase } from '../../control-plane/db/migrate.ts'
import { organisation, witnessVote } from '../../control-plane/db/schema/index.ts'
import { acrossOrganisations } from '../../control-plane/db/transaction.ts'
import { startLocalPostgres } from '../../control-plane/entry/local/postgres.ts'
import { currentPlace, currentTimeline } from '../../control-plane/services/witness/timeline.ts'
import { voteOnce } from '../../control-plane/services/witness/vote.ts'
import { accept } from '../../shared/protocol/acceptor.ts'
import { ballotOf } from '../../shared/protocol/ballot.ts'
import type { AcceptorState, RegisterRequest, Value } from '../../shared/protocol/types.ts'

/** Mulberry32: the same seed gives the same course. */
function randomOf(seed: number): (below: number) => number {
  let state = seed
  return below => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

const inc = 'inc-w'
const owner = '01j00000000000000000000000'

function randomRequest(random: (below: number) => number, req: number): RegisterRequest {
  // Few ballots and values, so that equal, lower and higher ones all come often.
  const ballot = ballotOf({ gen: 1 + random(2), n: 1 + random(4), node: random(2) === 0 ? 'a' : 'b' })
  const expect = ballotOf({ gen: 1 + random(2), n: 1 + random(4), node: random(2) === 0 ? 'a' : 'b' })
  const value: Value = {
    gen: 1,
    version: 1 + random(3),
    epoch: 1 + random(3),
    primary: random(2) === 0 ? 'a' : 'b',
    successor: random(2) === 0,
    voters: { a: 'inc-a', ...(random(4) > 0 && { w: inc }), ...(random(2) === 0 && { b: 'inc-b' }) },
  }
  const to = { req, inc: random(12) === 0 ? 'inc-other' : inc }
  switch (random(4)) {
    case 0:
      return { kind: 'read', ...to }
    case 1:
      return { kind: 'prepare', ...to, ballot }
    case 2:
      return { kind: 'accept', ...to, ballot, value }
    default:
      return { kind: 'cas', ...to, ballot, expect, value }
  }
}

const courses = 60
const steps = 40

test('the one SQL statement answers and keeps what the pure acceptor does, on random courses of requests', async context => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-cp-'))
  chmodSync(folder, 0o711)
  const local = await startLocalPostgres(folder)
  context.after(async () => {
    await local.close()
    rmSync(folder, { recursive: true, force: true })
  })
  await migrateDatabase(local.url)
  const { database, close } = openDatabase({ url: local.url, max: 2 })
  try {
    await database.insert(organisation).values({ id: owner, name: 'one', createdAt: new Date() })
    const kinds = new Map<string, number>()
    for (let seed = 1; seed <= courses; seed++) {
      const random = randomOf(seed)
      const pair = `p${seed}`
      let state: AcceptorState = { inc, promised: 0, acc: null }
      await acrossOrganisations(database, async tx => {
        await tx.insert(witnessVote).values({
          organisation: owner,
          pair,
          inc,
          timeline: sql<number>`${currentTimeline}`,
          admittedIn: sql<string>`${currentPlace}`,
          promised: 0,
          acceptedBallot: 0,
          acceptedValue: null,
          nonce: 'n',
          keys: {},
          keysGeneration: 1,
          admittedAt: new Date(),
        })
        for (let step = 0; step < steps; step++) {
          const request = randomRequest(random, step)
          const pure = accept(state, request)
          state = pure.state
          const answer = await voteOnce(tx, { organisation: owner, pair, request })
          const where = `seed ${seed}, step ${step}: ${JSON.stringify(request)}`
          assert.deepEqual(answer, pure.reply, where)
          const [row] = await tx.execute<{ promised: string; acc_b: string; acc_v: Value | null }>(
            sql`select promised, acc_b, acc_v from witness_vote where pair = ${pair}`,
          )
          const kept = { promised: Number(row!.promised), ballot: Number(row!.acc_b), value: row!.acc_v }
          assert.deepEqual(
            kept,
            { promised: state.promised, ballot: state.acc?.ballot ?? 0, value: state.acc?.value ?? null },
            where,
          )
          const kind = `${request.kind} ${answer?.kind ?? 'silent'}`
          kinds.set(kind, (kinds.get(kind) ?? 0) + 1)
        }
      })
    }
    for (const kind of [
      'read state',
      'prepare promise',
      'prepare nack',
      'accept accepted',
      'accept nack',
      'accept silent',
      'cas accepted',
      'cas promise',
      'cas nack',
    ])
      assert.ok((kinds.get(kind) ?? 0) >= 10, `${kind} came ${kinds.get(kind) ?? 0} times: the courses show too little`)
  } finally {
    await close()
  }
})
