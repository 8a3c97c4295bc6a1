import { z } from 'zod'
import { id, page, pageOf, sentence, time } from './common.ts'
import { route } from './route.ts'

export const severities = ['info', 'warning', 'critical'] as const

export const event = z
  .object({
    id: z.int().describe('Counts up within the organisation, without gaps'),
    at: time,
    kind: z.string(),
    severity: z.enum(severities),
    pair: id.nullable(),
    host: id.nullable(),
    message: sentence,
    data: z.record(z.string(), z.unknown()),
  })
  .meta({ id: 'Event' })
export type EventView = z.output<typeof event>

export const listEvents = route({
  id: 'listEvents',
  method: 'get',
  path: '/v1/events',
  tag: 'events',
  summary: 'What happened, oldest first from the cursor on',
  access: 'event:read',
  query: z.strictObject({
    ...page,
    after: z.coerce.number().int().min(0).optional().describe('Only events after this id'),
    pair: id.optional(),
    kind: z.string().max(64).optional(),
  }),
  reply: pageOf(event),
})

export const streamEvents = route({
  id: 'streamEvents',
  method: 'get',
  path: '/v1/events/stream',
  tag: 'events',
  summary:
    'Events as they happen (text/event-stream). Last-Event-ID resumes without gap or repetition; it ends after some minutes, and a client comes back',
  access: 'event:read',
  query: z.strictObject({ after: z.coerce.number().int().min(0).optional(), pair: id.optional() }),
  reply: z.string().describe('Each `data` is an Event'),
})

export const alarmKinds = [
  'protection_lost',
  'witness_lost',
  'witness_void',
  'maintenance_forgotten',
  'replication_lag',
  'certificate_expiring',
  'clock_skewed',
  'host_silent',
  'settings_not_applied',
  'desired_stale',
  'agent_alarm',
] as const

export const alarm = z
  .object({
    id,
    kind: z.enum(alarmKinds),
    severity: z.enum(severities),
    state: z.enum(['raised', 'acknowledged', 'cleared']),
    pair: id.nullable(),
    host: id.nullable(),
    message: sentence,
    raisedAt: time,
    acknowledgedAt: time.nullable(),
    acknowledgedBy: z.string().nullable(),
    clearedAt: time.nullable(),
  })
  .meta({ id: 'Alarm' })

export const listAlarms = route({
  id: 'listAlarms',
  method: 'get',
  path: '/v1/alarms',
  tag: 'alarms',
  summary: 'Alarms, newest first',
  access: 'event:read',
  query: z.strictObject({
    ...page,
    state: z.enum(['raised', 'acknowledged', 'cleared']).optional(),
    pair: id.optional(),
  }),
  reply: pageOf(alarm),
})

export const acknowledgeAlarm = route({
  id: 'acknowledgeAlarm',
  method: 'post',
  path: '/v1/alarms/{alarm}/acknowledge',
  tag: 'alarms',
  summary: 'Says that somebody looks after it; it is cleared by its cause going away, not by hand',
  access: 'alarm:operate',
  params: z.strictObject({ alarm: id }),
  reply: alarm,
  acts: true,
})

export const auditEntry = z
  .object({
    seq: z.int(),
    at: time,
    actor: z.string(),
    action: z.string(),
    resource: z.string(),
    outcome: z.enum(['done', 'refused']),
    details: z.record(z.string(), z.unknown()),
    previousHash: z.string(),
    hash: z.string().describe('SHA-256 over the hash before and this entry, in hex'),
  })
  .meta({ id: 'AuditEntry' })

export const listAudit = route({
  id: 'listAudit',
  method: 'get',
  path: '/v1/audit',
  tag: 'audit',
  summary: 'Who did what, oldest first; each entry carries the hash of the one before',
  access: 'audit:read',
  query: z.strictObject(page),
  reply: pageOf(auditEntry),
})

/** What is inside the signature of an audit head. */
export const signedAuditHead = z.object({
  v: z.literal(1),
  organisation: id,
  seq: z.int().min(0),
  hash: z.string(),
  at: time,
})

export const getAuditHead = route({
  id: 'getAuditHead',
  method: 'get',
  path: '/v1/audit/head',
  tag: 'audit',
  summary:
    'The end of the chain, signed (JWS): whoever keeps it elsewhere can prove later that nothing before it was altered or cut off',
  access: 'audit:read',
  reply: signedAuditHead.omit({ v: true }).extend({
    signed: z.string().describe('JWS (Ed25519) over this; its key stands in the trust document'),
    trust: z.string().describe('The trust document, signed by the root'),
  }),
})

export const verifyAudit = route({
  id: 'verifyAudit',
  method: 'get',
  path: '/v1/audit/verification',
  tag: 'audit',
  summary: 'Computes the chain anew and names the first entry that was altered or is missing',
  access: 'audit:read',
  query: z.strictObject({
    seq: z.coerce.number().int().min(1).optional().describe('Of a head that was kept elsewhere'),
    hash: z
      .string()
      .regex(/^[0-9a-f]{64}$/, 'must be 64 hex digits')
      .optional()
      .describe('Of that head: the entry must be there, and have this hash'),
  }),
  reply: z.object({
    entries: z.int(),
    head: z.string(),
    intact: z.boolean(),
    firstFault: z.object({ seq: z.int(), why: z.string() }).nullable(),
  }),
})
