import { z } from 'zod'
import { genMax, roundMax } from '../protocol/ballot.ts'
import { longestLeaseMs } from '../protocol/timing.ts'
import type { Durable, Message, RegisterReply, RegisterRequest, Value } from '../protocol/types.ts'

/**
 * The protocol's plain data as it comes from a wire or a disk, where nothing may be taken on trust: the peer link, the
 * witness and the state file check with these before the core sees anything. Unknown fields are dropped, so that a
 * version that adds one is still understood.
 */

/** Random ids are 22 to 36 characters; the bound leaves room without letting a datagram grow. */
const incarnationMax = 64
/** Sentences inside messages; a datagram must hold the message whole. */
export const sentenceMax = 200
/** Witness incarnations in a host's store: the few in use and some replaced ones, see withSeen. Older files may hold more. */
const witnessesSeenMax = 1000

const count = z.int().min(0)
const incarnationPattern = /^[A-Za-z0-9][A-Za-z0-9._:-]*$/
export const incarnation = z.string().regex(incarnationPattern).max(incarnationMax)
export const isIncarnation = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= incarnationMax && incarnationPattern.test(value)
const ballot = z
  .int()
  .min(0)
  .max((genMax + 1) * 2 ** 40)
const gen = z.int().min(0).max(genMax)
const version = z.int().min(0).max(roundMax)
const position = z.object({ timeline: count, lsn: count })
const dataNode = z.enum(['a', 'b'])

const voters = z.object({
  a: z.exactOptional(incarnation),
  b: z.exactOptional(incarnation),
  w: z.exactOptional(incarnation),
})

export const valueSchema = z.object({
  gen,
  version,
  epoch: count,
  primary: dataNode,
  successor: z.boolean(),
  voters,
}) satisfies z.ZodType<Value>

const accepted = z.object({ ballot, value: valueSchema })

const toAcceptor = { req: count, inc: incarnation }
const prepare = z.object({ kind: z.literal('prepare'), ...toAcceptor, ballot })
const accept = z.object({ kind: z.literal('accept'), ...toAcceptor, ballot, value: valueSchema })
const cas = z.object({ kind: z.literal('cas'), ...toAcceptor, ballot, expect: ballot, value: valueSchema })
const read = z.object({ kind: z.literal('read'), ...toAcceptor })

export const registerRequestSchema = z.discriminatedUnion('kind', [
  prepare,
  accept,
  cas,
  read,
]) satisfies z.ZodType<RegisterRequest>

const promise = z.object({ kind: z.literal('promise'), ...toAcceptor, ballot, acc: accepted.nullable() })
const acceptedReply = z.object({ kind: z.literal('accepted'), ...toAcceptor, ballot })
const nack = z.object({ kind: z.literal('nack'), ...toAcceptor, ballot, promised: ballot })
const state = z.object({ kind: z.literal('state'), ...toAcceptor, promised: ballot, acc: accepted.nullable() })

export const registerReplyOptions = [promise, acceptedReply, nack, state] as const
export const registerReplySchema = z.discriminatedUnion('kind', [
  ...registerReplyOptions,
]) satisfies z.ZodType<RegisterReply>

const learn = z.object({ kind: z.literal('learn'), ballot, value: valueSchema })

const heartbeat = z.object({
  kind: z.literal('heartbeat'),
  gen,
  epoch: count,
  version,
  inc: incarnation,
  nonce: count,
  seq: count,
  timeline: count,
  databaseUp: z.boolean(),
  serving: z.boolean(),
  holdsLease: z.boolean(),
  leaseMs: count,
  note: z.enum(['steady', 'switching', 'stopping', 'maintenance']),
})

const ack = z.object({
  kind: z.literal('ack'),
  gen,
  epoch: count,
  version,
  inc: incarnation,
  nonce: count,
  seq: count,
  promise: z.boolean(),
  why: z.string().max(sentenceMax),
  flushed: position,
  streaming: z.boolean(),
  confirmed: z.boolean(),
  witness: z.enum(['yes', 'no', 'unknown']),
  uplink: z.boolean(),
  asks: z.enum(['nothing', 'switchover', 'leave', 'depart']),
})

const resign = z.object({ kind: z.literal('resign'), gen, epoch: count, version })

export const messageSchema = z.discriminatedUnion('kind', [
  prepare,
  accept,
  cas,
  read,
  promise,
  acceptedReply,
  nack,
  state,
  learn,
  heartbeat,
  ack,
  resign,
]) satisfies z.ZodType<Message>

export const acceptorStateSchema = z.object({ inc: incarnation, promised: ballot, acc: accepted.nullable() })

export const durableSchema = z.object({
  ...acceptorStateSchema.shape,
  known: accepted.nullable(),
  lastOwn: ballot,
  resigned: version,
  confirmedBoot: z.string().max(sentenceMax),
  wSeen: z
    .record(incarnation, ballot)
    .refine(seen => Object.keys(seen).length <= witnessesSeenMax, `more than ${witnessesSeenMax} witnesses`),
  // Absent from files of before there was such a thing: any profile may have been in force.
  leaseMs: count.default(longestLeaseMs),
  maxFlushed: position,
  dataGen: gen,
  gaveUpGen: gen,
  // Absent from files of before there was such a thing.
  overruled: z.object({ gen, voters }).nullable().default(null),
}) satisfies z.ZodType<Durable>
