import { sql } from 'drizzle-orm'
import { bigint, index, jsonb, pgTable, primaryKey, text, uniqueIndex } from 'drizzle-orm/pg-core'
import { idColumn, ofOneOrganisation, time } from './columns.ts'
import { organisation } from './tenancy.ts'

const owner = () =>
  text('organisation')
    .notNull()
    .references(() => organisation.id)

export const event = pgTable(
  'event',
  {
    organisation: owner(),
    seq: bigint('seq', { mode: 'number' }).notNull(),
    at: time('at').notNull(),
    kind: text('kind').notNull(),
    severity: text('severity', { enum: ['info', 'warning', 'critical'] }).notNull(),
    pair: text('pair'),
    host: text('host'),
    message: text('message').notNull(),
    data: jsonb('data').$type<Record<string, unknown>>().notNull(),
    /** Given by the host for an event of its own: the same again is not stored again. */
    origin: text('origin'),
  },
  table => [
    primaryKey({ columns: [table.organisation, table.seq] }),
    uniqueIndex('event_origin').on(table.host, table.origin).where(sql`origin is not null`),
    index().on(table.organisation, table.pair, table.seq),
    // Written in the order of time, so that a few pages tell the sweep that nothing is old enough to go.
    index('event_at').using('brin', table.at),
    ofOneOrganisation(),
  ],
)

export const alarm = pgTable(
  'alarm',
  {
    id: idColumn(),
    organisation: owner(),
    kind: text('kind').notNull(),
    severity: text('severity', { enum: ['info', 'warning', 'critical'] }).notNull(),
    state: text('state', { enum: ['raised', 'acknowledged', 'cleared'] }).notNull(),
    pair: text('pair'),
    host: text('host'),
    /** One open alarm for each: kind and what it is about. */
    subject: text('subject').notNull(),
    message: text('message').notNull(),
    raisedAt: time('raised_at').notNull(),
    acknowledgedAt: time('acknowledged_at'),
    acknowledgedBy: text('acknowledged_by'),
    clearedAt: time('cleared_at'),
  },
  table => [
    uniqueIndex('alarm_open').on(table.organisation, table.subject).where(sql`state <> 'cleared'`),
    index().on(table.organisation, table.id),
    index().on(table.organisation, table.state, table.id),
    index().on(table.pair, table.id),
    // Of the whole fleet there may be as many open as there are hosts, when it was cut off; each look is for a pair's own.
    index('alarm_open_of_pair').on(table.pair).where(sql`state <> 'cleared'`),
    ofOneOrganisation(),
  ],
)

/** Appended to, never changed: a trigger of the first migration refuses it. */
export const audit = pgTable(
  'audit',
  {
    organisation: owner(),
    seq: bigint('seq', { mode: 'number' }).notNull(),
    at: time('at').notNull(),
    actor: text('actor').notNull(),
    action: text('action').notNull(),
    resource: text('resource').notNull(),
    outcome: text('outcome', { enum: ['done', 'refused'] }).notNull(),
    details: jsonb('details').$type<Record<string, unknown>>().notNull(),
    previousHash: text('previous_hash').notNull(),
    hash: text('hash').notNull(),
  },
  table => [primaryKey({ columns: [table.organisation, table.seq] }), ofOneOrganisation()],
)
