import { parseLsn, timelineOfFile } from '../../shared/lsn.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import type { DatabaseView, WalPosition } from '../../shared/protocol/types.ts'
import { type ClusterSpec, standbyName } from './cluster.ts'
import type { Row, Sql } from './sql.ts'

/** One look at a running server: a statement for a primary, one for a standby. Both read shared memory only. */
const primaryLook = (spec: ClusterSpec, also = ''): string => `
    select pg_current_wal_insert_lsn() as "end", pg_current_wal_flush_lsn() as flushed, pg_walfile_name(pg_current_wal_insert_lsn()) as file,
      current_setting('synchronous_standby_names') as names,
      s.session, s.flush, s.state, (select count(*) from pg_stat_activity where wait_event = 'SyncRep')::int as waiting${also}
    from (select 1) one left join lateral (
      select pid || '.' || extract(epoch from backend_start)::text as session, flush_lsn as flush, state
      from pg_stat_replication where application_name = '${standbyName(otherNode(spec.node))}' and flush_lsn is not null
      order by backend_start desc limit 1) s on true`

const prepared = { prepare: true, simple: false }

export async function lookAtPrimary(sql: Sql, spec: ClusterSpec): Promise<PrimaryLook> {
  // Without `simple: false` a text without parameters is sent, parsed and planned anew each time.
  const [row] = await sql.unsafe(primaryLook(spec), [], prepared)
  return seenIn(row, spec)
}

/** After the look, whose positions are those before it: a message in the log that nobody reads. */
const aWrite = `, pg_backend_pid() as backend, pg_logical_emit_message(true, 'understudy', '')`

/** The same with a write in it: what it tells is as old as that write took. `backend` is the process that answered. */
export async function lookWriting(sql: Sql, spec: ClusterSpec): Promise<PrimaryLook & { backend: number }> {
  const [row] = await sql.unsafe(primaryLook(spec, aWrite), [], prepared)
  return { ...seenIn(row, spec), backend: row?.backend }
}

function seenIn(row: Row | undefined, spec: ClusterSpec): PrimaryLook {
  if (row === undefined) throw new Error('the server answered a look with nothing')
  const timeline = timelineOfFile(row.file)
  return {
    end: { timeline, lsn: parseLsn(row.end) },
    flushed: { timeline, lsn: parseLsn(row.flushed) },
    // Any other value, by ALTER SYSTEM for instance, is not ours: nothing may rest on it.
    syncNames: row.names === '' ? 'empty' : row.names === standbyName(otherNode(spec.node)) ? 'set' : 'unknown',
    sender:
      row.session === null || row.state !== 'streaming'
        ? null
        : { session: row.session, timeline, flushedLsn: parseLsn(row.flush) },
    waiting: row.waiting,
  }
}
/** Plans the look on a standby, where it can't be taken yet: the first one after a promotion then costs 1 ms and not 5. */
export async function explainPrimaryLook(sql: Sql, spec: ClusterSpec): Promise<void> {
  await sql.unsafe(`explain ${primaryLook(spec)}`)
}

export interface PrimaryLook {
  /** Where the next record goes, and what is on disk for certain. */
  end: WalPosition
  flushed: WalPosition
  syncNames: DatabaseView['syncNames']
  sender: DatabaseView['sender']
  /** Commits that wait for the standby. */
  waiting: number
}

/**
 * Roles and databases whose commits do not wait for the standby's disk, by a setting of their own that counts more than
 * ours: what they are told is done may be lost in a takeover.
 */
export async function unprotectedCommits(sql: Sql): Promise<string[]> {
  const rows = await sql`
    select coalesce(r.rolname, 'every role') as role, coalesce(d.datname, 'every database') as database, one as setting
    from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase,
      unnest(s.setconfig) as one
    where one ~* '^synchronous_commit=(off|local|remote_write|0|false|no|f|n)$' order by 1, 2 limit 20`
  return rows.map(({ role, database, setting }) => `${role} in ${database} commits with ${setting}`)
}

export interface StandbyLook {
  end: WalPosition
  streaming: boolean
}

/**
 * The flushed position of a standby. The receiver's own figure is empty before it streams and after it ends, so what
 * was replayed (a lower bound of what is on disk) and what was seen before count as well, on one timeline.
 * null: it is no standby (any more).
 */
export async function lookAtStandby(sql: Sql, before: WalPosition): Promise<StandbyLook | null> {
  const [row] = await sql`
    select pg_is_in_recovery() as recovering, coalesce(r.flushed_lsn, pg_last_wal_receive_lsn())::text as received, r.received_tli as tli, r.status,
      pg_last_wal_replay_lsn()::text as replayed, (select timeline_id from pg_control_checkpoint()) as control
    from (select 1) one left join pg_stat_wal_receiver r on true`
  if (row === undefined) throw new Error('the server answered a look with nothing')
  if (row.recovering === false) return null
  const timeline = Math.max(row.tli ?? 0, before.timeline, row.control ?? 0)
  const positions = [row.received, row.replayed].filter(text => text !== null).map(parseLsn)
  const lsn = Math.max(...positions, before.timeline === timeline ? before.lsn : 0)
  return { end: { timeline, lsn }, streaming: row.status === 'streaming' }
}
