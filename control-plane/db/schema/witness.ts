import { bigint, integer, jsonb, pgTable, primaryKey, text } from 'drizzle-orm/pg-core'
import type { HostKeys } from '../../../shared/contract/witness.ts'
import type { Value } from '../../../shared/protocol/types.ts'
import { ofOneOrganisation, time } from './columns.ts'
import { organisation } from './tenancy.ts'

/** The acceptor of each pair that votes here: shared/protocol/acceptor.ts as one row and one statement. */
export const witnessVote = pgTable(
  'witness_vote',
  {
    organisation: text('organisation')
      .notNull()
      .references(() => organisation.id),
    pair: text('pair').notNull(),
    inc: text('inc').notNull(),
    /** Of the database at the admission: a restored or promoted one has another, and so no vote. */
    timeline: bigint('tl', { mode: 'number' }).notNull(),
    /** The database of the admission (`services/witness/timeline.ts`): in another one the row is a copy, and has no vote. */
    admittedIn: text('admitted_in').notNull().default(''),
    promised: bigint('promised', { mode: 'number' }).notNull(),
    /** 0: nothing was accepted yet. */
    acceptedBallot: bigint('acc_b', { mode: 'number' }).notNull(),
    acceptedValue: jsonb('acc_v').$type<Value>(),
    nonce: text('nonce').notNull(),
    keys: jsonb('keys').$type<HostKeys>().notNull(),
    keysGeneration: integer('keys_generation').notNull(),
    admittedAt: time('admitted_at').notNull(),
    retiredAt: time('retired_at'),
  },
  table => [primaryKey({ columns: [table.organisation, table.pair] }), ofOneOrganisation()],
)
