import { fileURLToPath } from 'node:url'
import { drizzle } from 'drizzle-orm/postgres-js'
import { migrate } from 'drizzle-orm/postgres-js/migrator'
import postgres from 'postgres'
import { placeOf } from './client.ts'

const migrationsFolder = fileURLToPath(new URL('./migrations', import.meta.url))
/** Any number; whoever migrates holds this lock, so that instances that start together take turns. */
const lockKey = 7_227_001

/**
 * Brings the database to this version's tables. Idempotent; several instances may call it at once.
 * @returns why the row policies, the second wall between tenants, do not hold for this role; null: they do
 */
export async function migrateDatabase(url: string): Promise<string | null> {
  const connection = { application_name: 'understudy-migrations' }
  const sql = postgres(url, { ...placeOf(url), max: 1, onnotice: () => {}, connection })
  try {
    await sql`select pg_advisory_lock(${lockKey})`
    await migrate(drizzle(sql), { migrationsFolder })
    const [role] = await sql<{ name: string; exempt: boolean }[]>`
      select rolname as name, rolsuper or rolbypassrls as exempt from pg_roles where rolname = current_user`
    return role?.exempt === true
      ? `the role ${role.name} is a superuser or has BYPASSRLS, so row policies do not hold for it: tenants are kept apart by each query alone. Name a plain role in DATABASE_URL`
      : null
  } finally {
    await sql.end({ timeout: 5 })
  }
}
