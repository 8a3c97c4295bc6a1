import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseLsn, timelineOfFile } from '../../shared/lsn.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import type { WalPosition } from '../../shared/protocol/types.ts'
import { type ClusterSpec, recordedPid, standbyName } from './cluster.ts'
import { sleep } from './processes.ts'
import type { Sql } from './sql.ts'

/**
 * Promotion. The startup process sleeps out wal_retrieve_retry_interval although it has logged the request, because the
 * dead receiver consumed its wake-up: a SIGHUP to that process wakes its latch and does no harm.
 */
const nudgeMs = 3
const pollMs = 1

export async function promote(
  sql: Sql,
  spec: ClusterSpec,
  options: { startup: number | null; limitMs: number; given: () => boolean },
): Promise<void> {
  const postmaster = await recordedPid(spec)
  const startup = options.startup ?? (await startupProcess(sql))
  if (postmaster === null) throw new Error('there is no postmaster.pid: the server has ended')
  // The trigger file and SIGUSR1 are what pg_promote() does, without a backend of their own in between.
  const trigger = join(spec.dataDir, 'promote')
  // Not made over to the server's user: it removes the file, for which its folder is enough, and any other SIGUSR1 that the
  // postmaster gets has it do so before we could.
  await writeFile(trigger, '')
  process.kill(postmaster, 'SIGUSR1')
  const until = performance.now() + options.limitMs
  let nudgedAt = 0
  for (;;) {
    const [row] = await sql`select pg_is_in_recovery() as recovering`
    if (row?.recovering === false) return
    if (options.given()) throw new Error('the promotion was given up')
    if (performance.now() > until) throw new Error(`the promotion did not end within ${options.limitMs} ms`)
    if (performance.now() - nudgedAt >= nudgeMs) {
      nudgedAt = performance.now()
      nudge(startup)
    }
    await sleep(pollMs)
  }
}

/** The process that replays the log; it lives as long as the standby. */
export async function startupProcess(sql: Sql): Promise<number | null> {
  const [row] = await sql`select pid from pg_stat_activity where backend_type = 'startup'`
  return row?.pid ?? null
}

/** Wakes a startup process out of its wait; harmless at any other time. */
export function nudge(pid: number | null): void {
  if (pid === null) return
  try {
    process.kill(pid, 'SIGHUP')
  } catch {
    // It has ended: the promotion is through.
  }
}

/** What the other host needs here to follow: its slot. On a new primary only, a standby's slot would hold WAL for ever. */
export function ensureSlot(sql: Sql, spec: ClusterSpec): Promise<void> {
  return renewSlot(sql, standbyName(otherNode(spec.node)))
}

/** A slot that fell too far behind (max_slot_wal_keep_size) is lost for good and is made anew. */
export async function renewSlot(sql: Sql, slot: string): Promise<void> {
  const [row] = await sql`select wal_status, active from pg_replication_slots where slot_name = ${slot}`
  if (row !== undefined && row.wal_status === 'lost' && row.active === false) {
    await sql`select pg_drop_replication_slot(${slot})`
  } else if (row !== undefined) return
  await sql`select pg_create_physical_replication_slot(${slot}, true)`
}

/** Nothing is held back any more for a host that left; one that comes back renews its slot. */
export async function dropIdleSlot(sql: Sql, slot: string): Promise<void> {
  await sql`
    select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = ${slot} and not active`
}

export async function currentPosition(sql: Sql): Promise<WalPosition> {
  const [row] =
    await sql`select pg_current_wal_insert_lsn() as lsn, pg_walfile_name(pg_current_wal_insert_lsn()) as file`
  if (row === undefined) throw new Error('the server did not say its position in the log')
  return { timeline: timelineOfFile(row.file), lsn: parseLsn(row.lsn) }
}

/** A commit that does not wait for the standby: everything before it is on disk when it returns. */
export async function flushLog(sql: Sql): Promise<void> {
  await sql.begin(async one => {
    await one`set local synchronous_commit = local`
    await one`select pg_logical_emit_message(true, 'understudy', '')`
  })
}

/**
 * Proof that synchronous replication is in force. The setting takes effect only once the checkpointer has processed the
 * reload (one flag in shared memory), while every session shows the new names already: a CHECKPOINT ends only after
 * that. Then a commit of our own that waits for the standby: what it returns lies past everything before it.
 */
export async function proveSync(sql: Sql): Promise<WalPosition> {
  await sql`checkpoint`
  await sql`set synchronous_commit = on`
  await sql`select pg_logical_emit_message(true, 'understudy', 'barrier')`
  return currentFlushed(sql)
}

async function currentFlushed(sql: Sql): Promise<WalPosition> {
  const [row] = await sql`select r.flush_lsn as lsn, pg_walfile_name(pg_current_wal_insert_lsn()) as file, r.sync_state
    from pg_stat_replication r where r.sync_state = 'sync' and r.state = 'streaming'`
  if (row === undefined) throw new Error('the standby went away while its commit was waited for')
  return { timeline: timelineOfFile(row.file), lsn: parseLsn(row.lsn) }
}
