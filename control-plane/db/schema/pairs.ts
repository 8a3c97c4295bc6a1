import { sql } from 'drizzle-orm'
import { bigint, index, integer, jsonb, pgTable, text, uniqueIndex } from 'drizzle-orm/pg-core'
import type { OperationKind, OperationState } from '../../../shared/contract/api/operations.ts'
import type { PairSettings } from '../../../shared/contract/api/settings.ts'
import type { OperationWork } from '../../operations/work.ts'
import { createdAt, idColumn, ofOneOrganisation, time } from './columns.ts'
import { host } from './hosts.ts'
import { organisation } from './tenancy.ts'

const owner = () =>
  text('organisation')
    .notNull()
    .references(() => organisation.id)

export interface LastSwitchover {
  at: string
  kind: string
  reason: string
  durationMs: number | null
  by: string
}

export const pair = pgTable(
  'pair',
  {
    id: idColumn(),
    organisation: owner(),
    name: text('name').notNull(),
    state: text('state', { enum: ['set up wanted', 'paired', 'unpaired'] }).notNull(),
    hostA: text('host_a')
      .notNull()
      .references(() => host.id),
    hostB: text('host_b')
      .notNull()
      .references(() => host.id),
    /** Which host begins; who is primary later is no wish. */
    first: text('first', { enum: ['a', 'b'] }).notNull(),
    settings: jsonb('settings').$type<PairSettings>().notNull(),
    generation: bigint('generation', { mode: 'number' }).notNull(),
    maintenanceUntil: time('maintenance_until'),
    maintenanceReason: text('maintenance_reason'),
    lastSwitchover: jsonb('last_switchover').$type<LastSwitchover>(),
    version: integer('version').notNull().default(1),
    createdAt: createdAt(),
    setUpAt: time('set_up_at'),
  },
  table => [
    uniqueIndex('pair_name').on(table.organisation, table.name).where(sql`state <> 'unpaired'`),
    index().on(table.organisation, table.id),
    index().on(table.hostA),
    index().on(table.hostB),
    ofOneOrganisation(),
  ],
)

export const operation = pgTable(
  'operation',
  {
    id: idColumn(),
    organisation: owner(),
    pair: text('pair').references(() => pair.id),
    host: text('host').references(() => host.id),
    kind: text('kind').$type<OperationKind>().notNull(),
    state: text('state').$type<OperationState>().notNull(),
    /** Plan and progress: plain data for `operations/advance.ts`. */
    work: jsonb('work').$type<OperationWork>().notNull(),
    actor: text('actor').notNull(),
    reason: text('reason').notNull(),
    createdAt: createdAt(),
    startsAt: time('starts_at').notNull(),
    /** When the sweep has to look again; null once it has ended. */
    lookAt: time('look_at'),
    endedAt: time('ended_at'),
  },
  table => [
    index().on(table.organisation, table.id),
    // Few of months of them are of one state that a list is asked for, or of one pair, which each report of its hosts looks for.
    index().on(table.organisation, table.state, table.id),
    index('operation_of_pair').on(table.pair, table.id).where(sql`pair is not null`),
    index('operation_of_host').on(table.host, table.id).where(sql`host is not null`),
    index('operation_to_look_at').on(table.lookAt).where(sql`look_at is not null`),
    // For the sweep, which takes away the oldest.
    index('operation_ended').on(table.endedAt).where(sql`ended_at is not null`),
    // One at a time for each pair: what two of them would do together nobody has thought through.
    uniqueIndex('operation_open_of_pair')
      .on(table.pair)
      .where(sql`state = 'running' and kind not in ('prechecks', 'settings')`),
    // Two windows for one pair would switch it over and back.
    uniqueIndex('operation_scheduled_of_pair').on(table.pair).where(sql`state = 'scheduled'`),
    ofOneOrganisation(),
  ],
)

/** A command on its way; its answer finds the operation by it. */
export const command = pgTable(
  'command',
  {
    jti: text('jti').primaryKey(),
    organisation: owner(),
    operation: text('operation')
      .notNull()
      .references(() => operation.id),
    host: text('host')
      .notNull()
      .references(() => host.id),
    step: text('step').notNull(),
    jws: text('jws').notNull(),
    expiresAt: time('expires_at').notNull(),
    /** '' until the first answer. */
    phase: text('phase').notNull().default(''),
  },
  table => [
    index().on(table.host, table.expiresAt),
    index().on(table.expiresAt),
    index().on(table.operation),
    ofOneOrganisation(),
  ],
)
