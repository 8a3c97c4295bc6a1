import { type SQL, sql } from 'drizzle-orm'
import type { Transaction } from '../../db/client.ts'

/**
 * The timeline this database writes on: the first eight hex digits of its WAL file's name (PostgreSQL, "WAL file names").
 * A database that was restored from a backup, or promoted, is on a new one, and everything that was promised after the
 * backup is lost: so a vote counts only on the timeline of its admission.
 */
export const currentTimeline: SQL = sql`('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint`

/**
 * Which database this is: cluster, database and table. A dump that was read back into another one, or into the same after
 * its tables were dropped, is on the timeline that is there, and may be beside the first; so a vote counts only where it was
 * admitted. (PostgreSQL, "pg_control_system": the identifier is made by initdb, and every file of the WAL has it.)
 */
export const currentPlace: SQL = sql`(
  (select system_identifier from pg_control_system()) || '/' ||
  (select oid from pg_database where datname = current_database()) || '/' || 'witness_vote'::regclass::oid)`

interface EngineRow extends Record<string, unknown> {
  version: string
  fsync: string
  pages: string
  forks: string | null
  aurora: string | null
  yugabyte: string | null
}

/**
 * Why this engine must not vote, or null. Storage that can be forked or rolled back without a new timeline would vote
 * twice, and one that answers before the disk has it would forget what it promised.
 */
export async function whyNoVotes(tx: Transaction): Promise<string | null> {
  const [row] = await tx.execute<EngineRow>(sql`
    select version() as version, current_setting('fsync') as fsync, current_setting('full_page_writes') as pages,
      current_setting('neon.timeline_id', true) as forks, to_regproc('aurora_version')::text as aurora,
      current_setting('yb_enable_memory_tracking', true) as yugabyte`)
  if (row === undefined) return 'the database does not say what it is'
  if (!/^PostgreSQL \d+/.test(row.version) || /emscripten|wasm|CockroachDB|-YB-|Redshift/i.test(row.version))
    return `it is ${row.version.slice(0, 80)}, and only plain PostgreSQL is known to keep what it promised`
  if (row.forks !== null || row.aurora !== null || row.yugabyte !== null)
    return 'its storage can be forked or set back without a new timeline, which a vote must survive'
  if (row.fsync !== 'on' || row.pages !== 'on') return 'fsync or full_page_writes is off: it forgets what it promised'
  return null
}
