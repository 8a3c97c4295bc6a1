import { z } from 'zod'
import {
  admitReply,
  admitRequest,
  keysRequest,
  pairName,
  retireReply,
  retireRequest,
  voteReply,
  voteRequest,
} from '../witness.ts'
import { id } from './common.ts'
import { route } from './route.ts'

/**
 * The hosted witness: the contract of shared/contract/witness.ts below the base address `/witness/v1/{organisation}`, so
 * that a host sees no difference to a witness of its own. Each request is signed by a host of the pair, and refusals
 * have that contract's shape. The pair is named as its hosts name it.
 */
const params = z.strictObject({ organisation: id, pair: pairName })
const base = '/witness/v1/{organisation}'

export const witnessHealth = route({
  id: 'witnessHealth',
  method: 'get',
  path: `${base}/health`,
  tag: 'hosted witness',
  summary: 'Opens a connection beforehand',
  access: 'public',
  params: z.strictObject({ organisation: id }),
  reply: z.object({ ok: z.literal(true) }),
})

export const witnessAdmit = route({
  id: 'witnessAdmit',
  method: 'post',
  path: `${base}/pairs/{pair}/admit`,
  tag: 'hosted witness',
  summary: 'Makes the acceptor of a pair, or a new one after the old is void; by an enrolled host of the pair',
  access: 'pair host',
  params,
  body: admitRequest,
  reply: admitReply,
})

export const witnessVote = route({
  id: 'witnessVote',
  method: 'post',
  path: `${base}/pairs/{pair}/vote`,
  tag: 'hosted witness',
  summary: 'One message to the acceptor: one SQL statement',
  access: 'pair host',
  params,
  body: voteRequest,
  reply: voteReply,
})

export const witnessKeys = route({
  id: 'witnessKeys',
  method: 'post',
  path: `${base}/pairs/{pair}/keys`,
  tag: 'hosted witness',
  summary: 'Changes the hosts’ keys, one generation up',
  access: 'pair host',
  params,
  body: keysRequest,
  reply: admitReply,
})

export const witnessRetire = route({
  id: 'witnessRetire',
  method: 'post',
  path: `${base}/pairs/{pair}/retire`,
  tag: 'hosted witness',
  summary: 'Ends an incarnation: it has no vote any more',
  access: 'pair host',
  params,
  body: retireRequest,
  reply: retireReply,
})
