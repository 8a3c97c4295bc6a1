import { z } from 'zod'
import { hostSummary } from '../host-summary.ts'
import { eventBatch, hostReport, reportOrder } from '../report.ts'
import { publicKey } from '../witness.ts'
import { id, time } from './common.ts'
import { signaturePattern } from './hosts.ts'
import { route } from './route.ts'

/** What agents call over HTTPS: the second way beside the broker, with the same documents. */

const text = (bytesMax: number) => z.string().max(bytesMax)

export const pullDesired = route({
  id: 'pullDesired',
  method: 'get',
  path: '/agent/v1/desired',
  tag: 'agents',
  summary: 'The signed documents of the calling host; 304 when the ETag is the present one',
  access: 'host',
  reply: z.object({
    trust: z.string(),
    desired: z.string().nullable(),
    fresh: z.string(),
    /** Commands that wait for this host; each is delivered on every way until it is answered or expires. */
    commands: z.array(z.string()),
    pollAfterSeconds: z.int(),
    /** By which this host's heartbeats over the broker are known (`heartbeat-mac.ts`), sealed to the key it enrolled with. */
    sealedHeartbeatKey: z.string(),
  }),
})

export const pushReport = route({
  id: 'pushReport',
  method: 'post',
  path: '/agent/v1/report',
  tag: 'agents',
  summary: 'A whole report; an older one than the last is accepted and changes nothing',
  access: 'host',
  body: hostReport,
  reply: z.object({ stored: z.boolean() }),
})

/** A host with 4 096 disks, which is the most that one tells of, has 1.5 MB of them. */
export const inventoryBytesMax = 2 * 1024 * 1024

export const pushInventory = route({
  id: 'pushInventory',
  method: 'post',
  path: '/agent/v1/inventory',
  tag: 'agents',
  summary: 'Networks and storage of the calling host, whole, after each change of them',
  access: 'host',
  body: z.object({
    v: z.literal(1),
    ...reportOrder,
    summary: hostSummary,
    network: z.record(z.string(), z.unknown()),
    storage: z.record(z.string(), z.unknown()),
  }),
  bodyBytesMax: inventoryBytesMax,
  reply: z.object({ stored: z.boolean() }),
})

export const pushEvents = route({
  id: 'pushEvents',
  method: 'post',
  path: '/agent/v1/events',
  tag: 'agents',
  summary: 'Events from the spool; each id counts once',
  access: 'host',
  body: eventBatch,
  reply: z.object({ stored: z.int() }),
})

export const pushAck = route({
  id: 'pushAck',
  method: 'post',
  path: '/agent/v1/acks',
  tag: 'agents',
  summary: 'What became of a command, as a document signed by the host',
  access: 'host',
  body: z.strictObject({ ack: text(96 * 1024) }),
  reply: z.object({ known: z.boolean() }),
})

export const renewCertificate = route({
  id: 'renewCertificate',
  method: 'post',
  path: '/agent/v1/certificate',
  tag: 'agents',
  summary: 'A certificate for the broker, the first or the next: by the key the host enrolled with, which does not end',
  access: 'host',
  body: z.strictObject({ publicKey: text(200).describe('P-256, SubjectPublicKeyInfo, DER, base64url') }),
  reply: z.object({ certificate: z.string(), authority: z.string(), endsAt: time }),
})

export const presentKeys = route({
  id: 'presentKeys',
  method: 'post',
  path: '/agent/v1/keys',
  tag: 'agents',
  summary:
    'New keys of the calling host, for a change that an operation asks of it; signed by the key before. Again with the same keys it changes nothing',
  access: 'host',
  body: z.strictObject({
    operation: id,
    publicKey: publicKey.describe('Ed25519, raw, base64url'),
    sealingKey: publicKey.describe('X25519, raw, base64url'),
    proof: z.string().regex(signaturePattern).describe('By the new key, over the text of `hostKeysProof`'),
  }),
  reply: z.object({ publicKey }),
})

export const getTime = route({
  id: 'getTime',
  method: 'get',
  path: '/agent/v1/time',
  tag: 'agents',
  summary: 'The time here',
  access: 'public',
  reply: z.object({ now: time }),
})
