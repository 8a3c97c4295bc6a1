import { drizzle, type PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { postgresPlace } from '../../shared/postgres-place.ts'
import * as schema from './schema/index.ts'

export type Database = PostgresJsDatabase<typeof schema>
export type Transaction = Parameters<Parameters<Database['transaction']>[0]>[0]

export interface OpenDatabase {
  database: Database
  /** Not on Workers: there the connections end with the request, and ending them by hand raises errors. */
  close: () => Promise<void>
}

export interface DatabaseOptions {
  url: string
  /** Connections at most. */
  max: number
}

/** A statement that takes longer than this has lost its plan, or waits for a lock that nobody gives back. */
const statementLimitMs = 20_000
/** A transaction that waits for its client holds locks for nothing. */
const idleLimitMs = 10_000
const connectLimitSeconds = 10
/** Between two tries; the driver's own grows to twenty seconds, in which a database that is back is not used. */
const reconnectSeconds = (tries: number): number => Math.min(1, 0.05 * 2 ** tries) * (0.5 + Math.random() / 2)

export function openDatabase(options: DatabaseOptions): OpenDatabase {
  const sql = postgres(options.url, {
    ...placeOf(options.url),
    max: options.max,
    // Types are known from the schema: no query for them at each connection.
    fetch_types: false,
    connect_timeout: connectLimitSeconds,
    backoff: reconnectSeconds,
    onnotice: () => {},
    connection: {
      application_name: 'understudy-control-plane',
      statement_timeout: statementLimitMs,
      idle_in_transaction_session_timeout: idleLimitMs,
    },
  })
  return { database: drizzle(sql, { schema }), close: () => sql.end({ timeout: 5 }) }
}

/** Beside an address, where the driver would misread it. */
export function placeOf(url: string): { host?: string; port?: number } {
  const { hostname, port } = new URL(url)
  if (!hostname.startsWith('[')) return {}
  return postgresPlace({ host: hostname.slice(1, -1), port: Number(port || defaultPort) })
}
const defaultPort = 5432
