import { z } from 'zod'
import { toolVerbs } from '../documents.ts'
import { publicKey } from '../witness.ts'
import { id, page, pageOf, time } from './common.ts'
import { noBody, route } from './route.ts'

/** Keys of an organisation's own fleet tooling: commands that they sign are obeyed by its hosts, within bounds. */
export const toolKey = z
  .object({
    id,
    kid: z.string().describe('What the header of a command that this key signed names'),
    name: z.string(),
    publicKey,
    verbs: z.array(z.enum(toolVerbs)),
    pairs: z.array(id).nullable().describe('null: every pair of the organisation'),
    createdAt: time,
    revokedAt: time.nullable(),
  })
  .meta({ id: 'ToolKey' })

const toolKeyParams = z.strictObject({ toolKey: id })

export const createToolKey = route({
  id: 'createToolKey',
  method: 'post',
  path: '/v1/tool-keys',
  tag: 'tool keys',
  summary: 'Registers a key of fleet tooling; every host of its pairs learns of it with its next desired document',
  access: 'token:manage',
  body: z.strictObject({
    name: z.string().trim().min(1).max(80),
    publicKey: publicKey.describe('Ed25519, raw, base64url; the private part never leaves the tooling'),
    verbs: z
      .array(z.enum(toolVerbs))
      .min(1)
      .max(toolVerbs.length)
      .describe('What can lose data, or take a pair apart, is no tooling’s to command'),
    pairs: z.array(id).min(1).max(100).nullable().default(null),
  }),
  reply: toolKey,
  status: 201,
  acts: true,
})

export const listToolKeys = route({
  id: 'listToolKeys',
  method: 'get',
  path: '/v1/tool-keys',
  tag: 'tool keys',
  summary: 'The keys of fleet tooling, revoked ones too',
  access: 'token:manage',
  query: z.strictObject(page),
  reply: pageOf(toolKey),
})

export const revokeToolKey = route({
  id: 'revokeToolKey',
  method: 'delete',
  path: '/v1/tool-keys/{toolKey}',
  tag: 'tool keys',
  summary: 'Revokes a key; a host obeys it no more once it has its next desired document',
  access: 'token:manage',
  params: toolKeyParams,
  body: noBody,
  reply: toolKey,
})

export const toolCertificate = route({
  id: 'toolCertificate',
  method: 'post',
  path: '/v1/tool-certificates',
  tag: 'tool keys',
  summary:
    'A client certificate for the broker: with it tooling publishes on the command topics of the organisation’s hosts and reads their answers, and nothing else',
  access: 'token:manage',
  body: z.strictObject({
    publicKey: z.string().max(200).describe('P-256, SubjectPublicKeyInfo, DER, base64url'),
  }),
  reply: z.object({
    certificate: z.string(),
    authority: z.string(),
    endsAt: time,
    broker: z.string().nullable().describe('Its address; null: hosts are reached over HTTPS alone'),
  }),
  status: 201,
  acts: true,
})
