import {
  bigint,
  boolean,
  customType,
  index,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  real,
  text,
} from 'drizzle-orm/pg-core'
import { createdAt, idColumn, time } from './columns.ts'

export const bytes = customType<{ data: Uint8Array; driverData: Uint8Array }>({ dataType: () => 'bytea' })

/**
 * A tenant, and the heads of its two ordered logs: whoever appends an event or an audit entry holds this row until it
 * commits, so that numbers become visible in their order and a reader's cursor misses nothing.
 */
export const organisation = pgTable('organisation', {
  id: idColumn(),
  name: text('name').notNull(),
  version: integer('version').notNull().default(1),
  eventSeq: bigint('event_seq', { mode: 'number' }).notNull().default(0),
  auditSeq: bigint('audit_seq', { mode: 'number' }).notNull().default(0),
  auditHash: text('audit_hash').notNull().default(''),
  /** Counts changes of its tool keys; a desired document of an older count is issued anew. */
  toolsVersion: integer('tools_version').notNull().default(0),
  createdAt: createdAt(),
})

/** Without a row policy: it is looked up by the hash of a secret, before any organisation is known. */
export const apiToken = pgTable(
  'api_token',
  {
    id: idColumn(),
    /** null: of whoever runs this control plane. */
    organisation: text('organisation').references(() => organisation.id),
    name: text('name').notNull(),
    /** SHA-256 of the token; the token itself has 256 bits of chance, so no slow hash is needed. */
    hash: bytes('hash').notNull().unique(),
    role: text('role', { enum: ['viewer', 'operator', 'admin'] }).notNull(),
    scopes: jsonb('scopes').$type<string[] | null>(),
    pairs: jsonb('pairs').$type<string[] | null>(),
    createdAt: createdAt(),
    expiresAt: time('expires_at').notNull(),
    revokedAt: time('revoked_at'),
    lastUsedAt: time('last_used_at'),
  },
  table => [index().on(table.organisation, table.id)],
)

/** The answer to a POST that acts, kept in the same transaction as what it did. */
export const idempotency = pgTable(
  'idempotency',
  {
    subject: text('subject').notNull(),
    key: text('key').notNull(),
    /** Of method, path and body: the same key with another request is a mistake of the caller. */
    fingerprint: text('fingerprint').notNull(),
    status: integer('status').notNull(),
    body: jsonb('body').$type<unknown>(),
    headers: jsonb('headers').$type<Record<string, string>>().notNull(),
    expiresAt: time('expires_at').notNull(),
  },
  table => [primaryKey({ columns: [table.subject, table.key] }), index().on(table.expiresAt)],
)

/** Made unlogged by the first migration: a crash gives everybody a full bucket. */
export const rateBucket = pgTable('rate_bucket', {
  key: text('key').primaryKey(),
  tokens: real('tokens').notNull(),
  at: time('at').notNull(),
})

/** What is to be published, written with the intent and deleted when the broker has it. */
export const outbox = pgTable(
  'outbox',
  {
    id: bigint('id', { mode: 'number' }).primaryKey().generatedAlwaysAsIdentity(),
    topic: text('topic').notNull(),
    payload: text('payload').notNull(),
    qos: integer('qos').notNull(),
    retain: boolean('retain').notNull(),
    expirySeconds: integer('expiry_seconds'),
    notBefore: time('not_before').notNull(),
    attempts: integer('attempts').notNull().default(0),
    /** After this it has no use any more: a command whose time is over. */
    uselessAt: time('useless_at'),
    createdAt: createdAt(),
  },
  table => [index().on(table.notBefore, table.id)],
)
