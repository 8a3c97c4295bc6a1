import { sql } from 'drizzle-orm'
import { type AnyPgColumn, bigint, index, integer, jsonb, pgTable, text, uniqueIndex } from 'drizzle-orm/pg-core'
import type { HostFacts } from '../../../shared/contract/api/host-facts.ts'
import type { HostSummary } from '../../../shared/contract/host-summary.ts'
import type { HostReport } from '../../../shared/contract/report.ts'
import { createdAt, idColumn, ofOneOrganisation, time } from './columns.ts'
import { bytes, organisation } from './tenancy.ts'

const owner = () =>
  text('organisation')
    .notNull()
    .references(() => organisation.id)

export const host = pgTable(
  'host',
  {
    id: idColumn(),
    organisation: owner(),
    name: text('name').notNull(),
    state: text('state', { enum: ['active', 'retired'] })
      .notNull()
      .default('active'),
    publicKey: text('public_key').notNull(),
    sealingKey: text('sealing_key').notNull(),
    facts: jsonb('facts').$type<HostFacts>(),
    agentVersion: text('agent_version'),
    replaces: text('replaces').references((): AnyPgColumn => host.id),
    version: integer('version').notNull().default(1),
    enrolledAt: time('enrolled_at').notNull(),
    retiredAt: time('retired_at'),
  },
  table => [
    uniqueIndex('host_name_of_active').on(table.organisation, table.name).where(sql`state = 'active'`),
    index().on(table.organisation, table.id),
    // For the broker's list of those who are not heard any more.
    index('host_retired').on(table.retiredAt).where(sql`state = 'retired'`),
    ofOneOrganisation(),
  ],
)

export const enrolmentToken = pgTable(
  'enrolment_token',
  {
    id: idColumn(),
    organisation: owner(),
    name: text('name').notNull(),
    hash: bytes('hash').notNull().unique(),
    replaces: text('replaces').references(() => host.id),
    createdAt: createdAt(),
    expiresAt: time('expires_at').notNull(),
    usedAt: time('used_at'),
    usedBy: text('used_by'),
  },
  table => [index().on(table.organisation, table.id), ofOneOrganisation()],
)

/** The wish for one host, whole and signed. */
export const hostDesired = pgTable(
  'host_desired',
  {
    host: text('host')
      .primaryKey()
      .references(() => host.id),
    organisation: owner(),
    /** From 1 on; never goes back, not even when a host leaves its pair. */
    generation: bigint('generation', { mode: 'number' }).notNull(),
    /** The signed text as it is published. */
    jws: text('jws').notNull(),
    sha256: text('sha256').notNull(),
    pushedAt: time('pushed_at').notNull(),
    /** When the sweep looks whether it is to be told again (`services/pair/push-desired.ts`). */
    pushAt: time('push_at').notNull().defaultNow(),
    /** The organisation's count of changes of its tool keys when this was rendered. */
    toolsVersion: integer('tools_version').notNull().default(0),
  },
  table => [index().on(table.organisation, table.toolsVersion), index().on(table.pushAt), ofOneOrganisation()],
)

/** What a host tells of itself: one row, replaced in place by what is newer by (boot, seq). */
const toldByHost = () => ({
  host: text('host')
    .primaryKey()
    .references(() => host.id),
  organisation: owner(),
  boot: bigint('boot', { mode: 'number' }).notNull(),
  seq: bigint('seq', { mode: 'number' }).notNull(),
  receivedAt: time('received_at').notNull(),
})

/** The last report. */
export const hostReported = pgTable(
  'host_reported',
  {
    ...toldByHost(),
    observedGeneration: bigint('observed_generation', { mode: 'number' }).notNull(),
    body: jsonb('body').$type<HostReport>().notNull(),
    /** What a look at the pair would see, in short: another look is due when it changes. */
    gist: text('gist').notNull().default(''),
  },
  () => [ofOneOrganisation()],
)

/** What a host has of networks and storage, as it last told of its own accord. */
export const hostInventory = pgTable(
  'host_inventory',
  {
    ...toldByHost(),
    /** What is compared of two hosts: read along with a host, so it is small. */
    summary: jsonb('summary').$type<HostSummary>().notNull(),
    network: jsonb('network').$type<Record<string, unknown>>().notNull(),
    storage: jsonb('storage').$type<Record<string, unknown>>().notNull(),
  },
  () => [ofOneOrganisation()],
)

/**
 * When a host was last heard, by heartbeat or report. Narrow, and made unlogged by the first migration: ten seconds after
 * a crash it is as it was. No foreign key, no index.
 */
export const hostSeen = pgTable('host_seen', {
  host: text('host').primaryKey(),
  boot: bigint('boot', { mode: 'number' }).notNull(),
  seq: bigint('seq', { mode: 'number' }).notNull(),
  role: text('role').notNull(),
  epoch: bigint('epoch', { mode: 'number' }).notNull(),
  receivedAt: time('received_at').notNull(),
})

/** A key of an organisation's own fleet tooling: its commands are obeyed within these bounds. */
export const toolKey = pgTable(
  'tool_key',
  {
    id: idColumn(),
    organisation: owner(),
    name: text('name').notNull(),
    publicKey: text('public_key').notNull(),
    verbs: jsonb('verbs').$type<string[]>().notNull(),
    /** null: every pair. */
    pairs: jsonb('pairs').$type<string[] | null>(),
    createdAt: createdAt(),
    revokedAt: time('revoked_at'),
  },
  () => [ofOneOrganisation()],
)
