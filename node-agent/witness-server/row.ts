import { z } from 'zod'
import { acceptorStateSchema } from '../../shared/contract/protocol.ts'
import {
  type AdmitReply,
  type AdmitRequest,
  admitReply,
  type KeysRequest,
  pairName,
  type RetireRequest,
  type VoteReply,
  type VoteStanding,
} from '../../shared/contract/witness.ts'
import { accept } from '../../shared/protocol/acceptor.ts'
import type { RegisterRequest } from '../../shared/protocol/types.ts'
import type { RecordFormat } from '../state-file/record.ts'

/**
 * What a witness keeps of one pair, and every decision about it. Pure: the store makes it durable before anything is
 * answered.
 */
export const rowSchema = z.object({
  pair: pairName,
  acceptor: acceptorStateSchema,
  /** Of the admission that made this incarnation. */
  nonce: z.string(),
  keys: admitReply.shape.keys,
  keysGeneration: z.int().min(1),
  admittedAt: z.string(),
  /** A retired row has no vote any more; it stays, so that its admission can't be repeated. */
  retiredAt: z.string().nullable(),
})
export type PairRow = z.infer<typeof rowSchema>
export const rowFormat: RecordFormat<PairRow> = { kind: 'witness-pair', version: 1, schema: rowSchema }

export interface Decision<Reply> {
  /** The row as it is to be; the same object when nothing changes. */
  row: PairRow | null
  reply: { ok: true; body: Reply } | { ok: false; why: string; present?: string }
}

export function vote(row: PairRow, request: RegisterRequest): Decision<VoteReply> {
  const none = (standing: VoteStanding, why: string): Decision<VoteReply> => ({
    row,
    reply: { ok: true, body: { kind: 'none', why, standing } },
  })
  const { inc } = row.acceptor
  if (request.inc !== inc)
    return none('void', `incarnation ${request.inc} is not this witness' ${inc} of pair ${row.pair}`)
  if (row.retiredAt !== null)
    return none('void', `incarnation ${inc} of pair ${row.pair} was retired at ${row.retiredAt}`)
  const result = accept(row.acceptor, request)
  if (result.reply === null)
    return none('empty', `pair ${row.pair} was admitted, but its members have not added this witness yet`)
  return {
    row: result.changed ? { ...row, acceptor: result.state } : row,
    reply: { ok: true, body: result.reply },
  }
}

/** Made once by whoever asks first; `fresh` is used when a row is made. */
export function admit(
  row: PairRow | null,
  part: { pair: string; request: AdmitRequest; fresh: { inc: string; at: string } },
): Decision<AdmitReply> {
  const { pair, request, fresh } = part
  if (row !== null && row.nonce === request.nonce) return { row, reply: { ok: true, body: admitted(row) } }
  const present = row?.acceptor.inc ?? null
  if (request.replaces !== present) {
    const why = `the present incarnation of pair ${pair} is ${present ?? 'none'}, and not ${request.replaces ?? 'none'}, which this admission would replace`
    return { row, reply: { ok: false, why, ...(present !== null && { present }) } }
  }
  const made: PairRow = {
    pair,
    acceptor: { inc: fresh.inc, promised: 0, acc: null },
    nonce: request.nonce,
    keys: row?.keys ?? request.keys,
    keysGeneration: row?.keysGeneration ?? 1,
    admittedAt: fresh.at,
    retiredAt: null,
  }
  return { row: made, reply: { ok: true, body: admitted(made) } }
}

export function changeKeys(row: PairRow, request: KeysRequest): Decision<AdmitReply> {
  const refuse = (why: string): Decision<AdmitReply> => ({ row, reply: { ok: false, why } })
  if (request.inc !== row.acceptor.inc)
    return refuse(`the present incarnation is ${row.acceptor.inc}, not ${request.inc}`)
  const repeated = request.generation === row.keysGeneration && sameKeys(row.keys, request.keys)
  if (repeated) return { row, reply: { ok: true, body: admitted(row) } }
  if (request.generation !== row.keysGeneration + 1) {
    return refuse(
      `the keys of pair ${row.pair} are at generation ${row.keysGeneration}; the next is not ${request.generation}`,
    )
  }
  const changed = { ...row, keys: request.keys, keysGeneration: request.generation }
  return { row: changed, reply: { ok: true, body: admitted(changed) } }
}

export function retire(row: PairRow, part: { request: RetireRequest; at: string }): Decision<{ retired: string }> {
  const { inc } = part.request
  if (inc !== row.acceptor.inc) {
    return {
      row,
      reply: { ok: false, why: `the present incarnation of pair ${row.pair} is ${row.acceptor.inc}, not ${inc}` },
    }
  }
  const reply = { ok: true, body: { retired: inc } } as const
  return row.retiredAt === null ? { row: { ...row, retiredAt: part.at }, reply } : { row, reply }
}

export const admitted = (row: PairRow): AdmitReply => ({
  inc: row.acceptor.inc,
  keysGeneration: row.keysGeneration,
  keys: row.keys,
})

export const sameKeys = (one: PairRow['keys'], other: PairRow['keys']): boolean =>
  one.a === other.a && one.b === other.b
