import { sql } from 'drizzle-orm'
import { pgPolicy, text, timestamp } from 'drizzle-orm/pg-core'

/** What many tables share. Ids are ULIDs in lower case; times are UTC. */
export const idColumn = () => text('id').primaryKey()
export const time = (name: string) => timestamp(name, { withTimezone: true, mode: 'date', precision: 3 })
export const createdAt = () => time('created_at').notNull()

/**
 * The second line of defence between tenants: a transaction sees the rows of the organisation that it named
 * (`db/transaction.ts`), so that a forgotten condition shows nothing instead of everything. `*` is the ingest and the
 * sweep, which serve all. The first line is the condition in each query.
 */
export const ofOneOrganisation = () =>
  pgPolicy('of_one_organisation', {
    using: sql`organisation = current_setting('app.organisation', true) or current_setting('app.organisation', true) = '*'`,
  })
