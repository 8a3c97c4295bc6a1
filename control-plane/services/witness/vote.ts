import { sql } from 'drizzle-orm'
import type { VoteReply, VoteStanding } from '../../../shared/contract/witness.ts'
import type { Accepted, RegisterReply, RegisterRequest, Value } from '../../../shared/protocol/types.ts'
import type { Transaction } from '../../db/client.ts'
import { witnessVote } from '../../db/schema/index.ts'
import { isNamed } from './naming.ts'
import { currentPlace, currentTimeline } from './timeline.ts'

/**
 * The acceptor of shared/protocol/acceptor.ts as one statement, so that a stateless function is a correct one: it is
 * idempotent, READ COMMITTED is enough, and what it returns decides the answer. A test compares the two on random
 * sequences.
 */
interface VoteRow extends Record<string, unknown> {
  promised: string
  acc_b: string
  acc_v: Value | null
}

/** null: no vote on this request. The transaction commits with synchronous_commit on. */
export async function voteOnce(
  tx: Transaction,
  part: { organisation: string; pair: string; request: RegisterRequest },
): Promise<RegisterReply | null> {
  const { organisation, pair, request } = part
  const [row] = await (request.kind === 'read'
    ? tx.execute<VoteRow>(sql`
        select promised, acc_b, acc_v from witness_vote
        where ${isNamed({ organisation, pair, inc: request.inc })} and inc = ${request.inc} and retired_at is null
          and tl = ${currentTimeline} and admitted_in = ${currentPlace} and acc_b > 0`)
    : tx.execute<VoteRow>(statement({ ...part, request })))
  if (row === undefined) return null
  const state = { promised: Number(row.promised), ballot: Number(row.acc_b), value: row.acc_v }
  return replyOf(request, state)
}

function statement(part: { organisation: string; pair: string; request: Exclude<RegisterRequest, { kind: 'read' }> }) {
  const { organisation, pair, request } = part
  const { kind, inc, ballot } = request
  const value = 'value' in request ? JSON.stringify(request.value) : null
  const expect = 'expect' in request ? request.expect : 0
  const takes = sql`(
    (${kind}::text = 'accept' and ${ballot}::bigint >= promised and ${ballot}::bigint > acc_b)
    or (${kind}::text = 'cas' and ${ballot}::bigint > promised and acc_b = ${expect}::bigint))`
  return sql`
    update witness_vote set
      acc_b = case when ${takes} then ${ballot}::bigint else acc_b end,
      acc_v = case when ${takes} then ${value}::jsonb else acc_v end,
      promised = greatest(promised, ${ballot}::bigint)
    where ${isNamed({ organisation, pair, inc })} and inc = ${inc} and retired_at is null
      and tl = ${currentTimeline} and admitted_in = ${currentPlace}
      and (acc_b > 0 or (${kind}::text = 'accept' and ${value}::jsonb->'voters'->>'w' = ${inc}))
    returning promised, acc_b, acc_v`
}

function replyOf(
  request: RegisterRequest,
  state: { promised: number; ballot: number; value: Value | null },
): RegisterReply {
  const { req, inc } = request
  const acc: Accepted | null = state.value === null ? null : { ballot: state.ballot, value: state.value }
  if (request.kind === 'read') return { kind: 'state', req, inc, promised: state.promised, acc }
  const { ballot } = request
  const accepted = state.ballot === ballot && (request.kind === 'cas' || state.promised === ballot)
  if (request.kind !== 'prepare' && accepted) return { kind: 'accepted', req, inc, ballot }
  if (request.kind !== 'accept' && state.promised === ballot) return { kind: 'promise', req, inc, ballot, acc }
  return { kind: 'nack', req, inc, ballot, promised: state.promised }
}

/** Why there was no vote, for people: the protocol takes it as silence. */
export async function whySilent(
  tx: Transaction,
  part: { organisation: string; pair: string; inc: string },
): Promise<VoteReply> {
  const [row] = await tx
    .select({
      inc: witnessVote.inc,
      retiredAt: witnessVote.retiredAt,
      timeline: witnessVote.timeline,
      present: sql<string>`${currentTimeline}`,
      isHere: sql<boolean>`${witnessVote.admittedIn} = ${currentPlace}`,
    })
    .from(witnessVote)
    .where(isNamed(part))
    .orderBy(sql`${witnessVote.inc} = ${part.inc} desc`)
    .limit(1)
  const none = (why: string, standing: VoteStanding = 'void'): VoteReply => ({ kind: 'none', why, standing })
  if (row === undefined) return none(`this witness does not know pair ${part.pair}: it was never admitted`)
  if (row.inc !== part.inc) return none(`incarnation ${part.inc} is not this witness' ${row.inc} of pair ${part.pair}`)
  if (row.retiredAt !== null)
    return none(`incarnation ${row.inc} of pair ${part.pair} was retired at ${row.retiredAt.toISOString()}`)
  if (Number(row.present) !== row.timeline)
    return none(
      `the witness' database was restored or promoted (timeline ${row.present}, admitted on ${row.timeline}): incarnation ${row.inc} has no vote any more and must be replaced`,
    )
  if (!row.isHere)
    return none(
      `the witness' database was restored from a dump, or is a copy: incarnation ${row.inc} was admitted in another one, has no vote here and must be replaced`,
    )
  return none(`pair ${part.pair} was admitted, but its members have not added this witness yet`, 'empty')
}
