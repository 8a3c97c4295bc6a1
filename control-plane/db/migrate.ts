import { fileURLToPath } from 'node:url'
import { drizzle } from 'drizzle-orm/postgres-js'
import { migrate } from 'drizzle-orm/postgres-js/migrator'
import postgres from 'postgres'

const migrationsFolder = fileURLToPath(new URL('./migrations', import.meta.url))
/** Any number; whoever migrates holds this lock, so that instances that start together take turns. */
const lockKey = 7_227_001

/** Brings the database to this version's tables. Idempotent; several instances may call it at once. */
export async function migrateDatabase(url: string): Promise<void> {
  const sql = postgres(url, { max: 1, onnotice: () => {}, connection: { application_name: 'understudy-migrations' } })
  try {
    await sql`select pg_advisory_lock(${lockKey})`
    await migrate(drizzle(sql), { migrationsFolder })
  } finally {
    await sql.end({ timeout: 5 })
  }
}
