import { z } from 'zod'
import type { RegisterReply } from '../protocol/types.ts'
import { incarnation, registerReplyOptions, registerRequestSchema } from './protocol.ts'

/**
 * HTTP between the hosts of a pair and a witness, be it the small process on a third box or the control plane.
 *
 * Every request is signed by one host (shared/signing.ts) over method, path, body and host, without a time stamp:
 * whoever repeats a recorded one gains nothing.
 * - A vote names its ballot and the incarnation it is meant for. The acceptor gives the same answer to the same ballot
 *   and changes nothing, or a refusal once it promised more; a vote held back and delivered late is a slow network.
 * - An admission makes a row only over the incarnation it names as the present one (`replaces`), which no later row
 *   has again; the same nonce gets the same answer.
 * - A change of keys names its generation, which only grows; a question for the present ones changes nothing. A retirement names an incarnation that ends with it.
 */
export const pairName = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/)

/** Paths below the base address of the witness, as they are signed. */
export const witnessPath = {
  admit: (pair: string): string => `/pairs/${pair}/admit`,
  vote: (pair: string): string => `/pairs/${pair}/vote`,
  keys: (pair: string): string => `/pairs/${pair}/keys`,
  retire: (pair: string): string => `/pairs/${pair}/retire`,
  list: '/pairs',
  /** Answers anybody, and says nothing: to open a connection beforehand. */
  health: '/health',
} as const

/** The greatest request is an admission of 700 bytes. */
export const witnessBodyBytesMax = 16 * 1024

export const headerHost = 'understudy-host'
export const headerSignature = 'understudy-signature'

/** A raw Ed25519 public key, base64url. */
export const publicKey = z
  .string()
  .regex(/^[A-Za-z0-9_-]{43}$/, 'must be a raw key of 32 bytes in base64url: 43 letters')
const hostKeys = z
  .object({ a: z.exactOptional(publicKey), b: z.exactOptional(publicKey) })
  .refine(keys => keys.a !== undefined || keys.b !== undefined, 'at least one host needs a key')
export type HostKeys = z.infer<typeof hostKeys>

export const admitRequest = z.object({
  /** Random, made once for each admission that is wanted. */
  nonce: z.string().regex(/^[A-Za-z0-9_-]{22,64}$/),
  /** The incarnation to be replaced; null = the witness has no row of this pair. */
  replaces: incarnation.nullable(),
  /** Taken at the first admission; later ones keep what is registered. */
  keys: hostKeys,
})
export type AdmitRequest = z.infer<typeof admitRequest>

export const admitReply = z.object({ inc: incarnation, keysGeneration: z.int().min(1), keys: hostKeys })
export type AdmitReply = z.infer<typeof admitReply>

export const keysRequest = z.object({
  inc: incarnation,
  /** One more than the present one. */
  generation: z.int().min(2),
  keys: hostKeys,
})
export type KeysRequest = z.infer<typeof keysRequest>

/** To the same path, from a host that has to know where its own change of keys stands; a hosted witness does not take it. */
export const keysQuestion = z.strictObject({ ask: z.literal('present') })
export type KeysQuestion = z.infer<typeof keysQuestion>

export const retireRequest = z.object({ inc: incarnation })
export type RetireRequest = z.infer<typeof retireRequest>
export const retireReply = z.object({ retired: incarnation })

export const voteRequest = registerRequestSchema
/** No vote, and why: for people, the protocol takes it as silence. */
export interface NoVote {
  kind: 'none'
  why: string
  /** Of the incarnation that was asked: its members have not added it yet, or it will never vote again. */
  standing?: VoteStanding
}
export type VoteStanding = 'empty' | 'void'
export type VoteReply = RegisterReply | NoVote
const noVote = z.object({
  kind: z.literal('none'),
  why: z.string().max(500),
  standing: z.exactOptional(z.enum(['empty', 'void'])),
})
export const voteReply = z.discriminatedUnion('kind', [...registerReplyOptions, noVote]) satisfies z.ZodType<VoteReply>

/** Every refusal of the other verbs; of an admission over another incarnation than the present one, with the present one. */
export const refusalReply = z.object({ why: z.string().max(500), present: z.exactOptional(incarnation) })

export const listReply = z.object({
  pairs: z.array(
    z.object({
      pair: pairName,
      inc: incarnation,
      keysGeneration: z.int(),
      /** Wall time, for people. */
      admittedAt: z.string(),
      retiredAt: z.string().nullable(),
      promised: z.int(),
      accepted: z.int(),
      primary: z.enum(['a', 'b']).nullable(),
    }),
  ),
})
export type ListReply = z.infer<typeof listReply>
