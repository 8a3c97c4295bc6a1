import { z } from 'zod'
import { publicKey } from '../witness.ts'
import { hostParams, id, orNull, page, pageOf, reason, resourceName, sentence, slot, time, verdict } from './common.ts'
import { hostFacts } from './host-facts.ts'
import { operation } from './operations.ts'
import { noBody, route } from './route.ts'

/** Ed25519, base64url. */
export const signaturePattern = /^[A-Za-z0-9_-]{86}$/

export const condition = z
  .object({
    type: z.enum(['Connected', 'Applied', 'DesiredStale', 'ClockSkewed', 'CertificateExpiring', 'Ready']),
    status: z.enum(['True', 'False', 'Unknown']),
    reason: z.string(),
    message: sentence,
    observedGeneration: z.int().describe('A condition older than the generation says nothing about the present wish'),
  })
  .meta({ id: 'Condition' })

export const host = z
  .object({
    id,
    name: resourceName,
    state: z.enum(['active', 'retired']),
    pair: z.object({ id, slot }).nullable(),
    facts: orNull(hostFacts).describe('As the agent reported them at enrolment and since'),
    agentVersion: z.string().nullable(),
    publicKey,
    connected: verdict.describe('Heard within 30 s; unknown is not down'),
    lastSeenAt: time.nullable(),
    generation: z.int().describe('Of the desired document'),
    observedGeneration: z.int().describe('The generation that the host has applied'),
    conditions: z.array(condition),
    enrolledAt: time,
    retiredAt: time.nullable(),
    replaces: id.nullable(),
  })
  .meta({ id: 'Host' })

/** Long enough to walk to the machine, short enough to be worthless when found. */
const enrolmentMinutesMax = 60

export const createEnrolmentToken = route({
  id: 'createEnrolmentToken',
  method: 'post',
  path: '/v1/enrolment-tokens',
  tag: 'hosts',
  summary: 'Makes a token by which one host enrols once',
  access: 'host:enrol',
  body: z.strictObject({
    name: resourceName.describe('The name that the host will have'),
    expiresInMinutes: z.int().min(1).max(enrolmentMinutesMax).default(30),
    replaces: id.optional().describe('The host whose place in its pair the new one takes'),
  }),
  reply: z
    .object({
      id,
      name: resourceName,
      expiresAt: time,
      token: z
        .string()
        .describe('Shown this once. It carries the address of this API and the fingerprint of its trust root'),
    })
    .meta({ id: 'EnrolmentToken' }),
  status: 201,
  acts: true,
})

/** Without its secret. */
const pendingEnrolment = z
  .object({
    id,
    name: resourceName,
    replaces: id.nullable(),
    createdAt: time,
    expiresAt: time,
    usedAt: time.nullable().describe('A host enrolled with it'),
  })
  .meta({ id: 'PendingEnrolment' })

export const listEnrolmentTokens = route({
  id: 'listEnrolmentTokens',
  method: 'get',
  path: '/v1/enrolment-tokens',
  tag: 'hosts',
  summary: 'Tokens of enrolment of the last weeks, oldest first, without their secrets',
  access: 'host:enrol',
  query: z.strictObject(page),
  reply: pageOf(pendingEnrolment),
})

export const withdrawEnrolmentToken = route({
  id: 'withdrawEnrolmentToken',
  method: 'delete',
  path: '/v1/enrolment-tokens/{enrolmentToken}',
  tag: 'hosts',
  summary: 'Withdraws a token that no host has used: it opens nothing any more',
  access: 'host:enrol',
  params: z.strictObject({ enrolmentToken: id }),
  body: noBody,
  reply: pendingEnrolment,
})

export const listHosts = route({
  id: 'listHosts',
  method: 'get',
  path: '/v1/hosts',
  tag: 'hosts',
  summary: 'The hosts of the organisation, oldest first',
  access: 'host:read',
  query: z.strictObject({ ...page, state: z.enum(['active', 'retired']).optional() }),
  reply: pageOf(host),
})

export const getHost = route({
  id: 'getHost',
  method: 'get',
  path: '/v1/hosts/{host}',
  tag: 'hosts',
  summary: 'One host, with what it reported',
  access: 'host:read',
  params: hostParams,
  reply: host,
})

export const renameHost = route({
  id: 'renameHost',
  method: 'patch',
  path: '/v1/hosts/{host}',
  tag: 'hosts',
  summary: 'Changes the name under which the host is shown',
  access: 'host:manage',
  params: hostParams,
  body: z.strictObject({ name: resourceName }),
  reply: host,
  conditional: true,
})

export const retireHost = route({
  id: 'retireHost',
  method: 'post',
  path: '/v1/hosts/{host}/retire',
  tag: 'hosts',
  summary: 'Ends a host’s membership of the organisation: its key opens nothing any more',
  access: 'host:manage',
  params: hostParams,
  body: z.strictObject({ reason }),
  reply: host,
  acts: true,
  conditional: true,
})

export const changeHostKeys = route({
  id: 'changeHostKeys',
  method: 'post',
  path: '/v1/hosts/{host}/key-changes',
  tag: 'hosts',
  summary:
    'New keys in the place of those that the host enrolled with: made there, taken here while the old ones still count, kept as they were where that fails. Its pair serves on',
  access: 'host:manage',
  params: hostParams,
  body: z.strictObject({ reason }),
  reply: operation,
  status: 202,
  acts: true,
})

/** What a host sends to become one, and gets. */
export const enrolHost = route({
  id: 'enrolHost',
  method: 'post',
  path: '/agent/v1/enrol',
  tag: 'agents',
  summary: 'A host presents its one-time token and its key',
  access: 'public',
  body: z.strictObject({
    token: z.string().min(1).max(400),
    publicKey: publicKey.describe('The Ed25519 key of this host; it was made there and never leaves it'),
    sealingKey: publicKey.describe('The X25519 key to which secrets for this host are sealed'),
    proof: z.string().regex(signaturePattern).describe('Ed25519 signature over the text of `enrolmentProof`'),
    facts: hostFacts,
    agentVersion: z.string().max(64),
  }),
  reply: z.object({
    host: id,
    organisation: id,
    name: resourceName,
    trust: z.string().describe('The trust document, a JWS signed by the root whose fingerprint the token carried'),
    broker: z.object({ url: z.string() }).nullable(),
  }),
  status: 201,
})
