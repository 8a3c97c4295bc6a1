import { sql } from 'drizzle-orm'
import type { Database, Transaction } from './client.ts'

/**
 * Every access to tenants' rows is a transaction that says whose they are: the row policies show only those. The setting
 * ends with the transaction, so that a pooled connection carries nothing to its next borrower.
 */
export function inOrganisation<T>(
  database: Database,
  organisation: string,
  work: (tx: Transaction) => Promise<T>,
  { atOneInstant = false }: { atOneInstant?: boolean } = {},
): Promise<T> {
  return database.transaction(
    async tx => {
      await tx.execute(sql`select set_config('app.organisation', ${organisation}, true)`)
      return work(tx)
    },
    // All of its statements see what the first one saw.
    atOneInstant ? { isolationLevel: 'repeatable read', accessMode: 'read only' } : undefined,
  )
}

/** For the ingest, the sweep and enrolment, which serve all organisations and check each row's owner themselves. */
export const acrossOrganisations = <T>(database: Database, work: (tx: Transaction) => Promise<T>): Promise<T> =>
  inOrganisation(database, '*', work)
