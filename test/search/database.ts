import type { DatabaseOp, DatabaseView, DataNode, WalPosition } from '../../shared/protocol/types.ts'
import { type Database, otherOf, type World } from './pair.ts'

/** PostgreSQL, as far as a search needs it: what one operation does, all at once, and what a look at it shows. */

export const noDatabase: Database = {
  process: 'none',
  log: [],
  timeline: 0,
  epoch: 0,
  names: 'empty',
  inForce: false,
  follows: 0,
  waiting: [],
  waitingAt: 0,
}

export const endOf = (db: Database): WalPosition => ({ timeline: db.timeline, lsn: db.log.length })

export const isPrefix = (short: readonly number[], long: readonly number[]): boolean =>
  short.length <= long.length && short.every((record, i) => record === long[i])

/** The standby on `node` streams from the other host. */
export function streams(world: World, node: DataNode): boolean {
  const standby = world.hosts[node].database
  const primary = world.hosts[otherOf[node]].database
  return (
    standby.process === 'standby' &&
    !world.cuts.includes('a→b') &&
    !world.cuts.includes('b→a') &&
    primary.process === 'primary' &&
    standby.follows === primary.epoch &&
    isPrefix(standby.log, primary.log)
  )
}

export function viewOf(world: World, node: DataNode): DatabaseView {
  const db = world.hosts[node].database
  const peer = world.hosts[otherOf[node]].database
  const exists = db.log.length > 0
  const followed = db.process === 'primary' && streams(world, otherOf[node])
  return {
    process: db.process,
    end: exists ? endOf(db) : { timeline: 0, lsn: 0 },
    epoch: db.epoch,
    syncNames: exists ? db.names : 'unknown',
    sender: followed ? { session: 's', timeline: db.timeline, flushedLsn: peer.log.length } : null,
    streaming: streams(world, node),
    stalledMs: db.waiting.length > 0 ? world.now - db.waitingAt : 0,
    hanging: false,
    stuck: false,
    ioError: false,
  }
}

export interface Outcome {
  database: Database
  result: { ok: true; position: WalPosition | null } | { ok: false; why: string }
  /** Commits that return to their clients. */
  released: readonly number[]
}

/** What has become of the database once the operation has ended. */
export function carryOut(world: World, node: DataNode, op: DatabaseOp): Outcome {
  const db = world.hosts[node].database
  const ok = (database: Database, position: WalPosition | null, released: readonly number[] = []): Outcome => ({
    database,
    result: { ok: true, position },
    released,
  })
  const failed = (why: string): Outcome => ({ database: db, result: { ok: false, why }, released: [] })
  switch (op.op) {
    case 'kill': {
      const dead: Database = { ...db, process: 'none', inForce: false, waiting: [], follows: 0 }
      return ok(dead, endOf(dead))
    }
    case 'startPrimary':
      if (db.process === 'primary') return ok({ ...db, names: op.syncNames }, endOf(db))
      if (db.process !== 'none' || db.epoch !== op.epoch) return failed('it is not the primary of that epoch')
      return ok({ ...db, process: 'primary', names: op.syncNames }, endOf(db))
    case 'promote': {
      if (db.process === 'primary') return db.epoch === op.epoch ? ok(db, endOf(db)) : failed('it runs already')
      if (db.process === 'dead' || db.log.length === 0) return failed('there is nothing to promote')
      const primary: Database = {
        ...db,
        process: 'primary',
        timeline: db.timeline + 1,
        epoch: op.epoch,
        names: op.syncNames,
        inForce: false,
        follows: 0,
      }
      return ok(primary, endOf(primary))
    }
    case 'drain': {
      const all = streams(world, otherOf[node]) && world.hosts[otherOf[node]].database.log.length === db.log.length
      return all ? ok(db, endOf(db)) : failed('the standby did not flush the end in time')
    }
    case 'syncNames': {
      if (db.process !== 'primary') return failed('the primary does not run')
      if (op.set === 'set') return ok({ ...db, names: 'set' }, null)
      // PostgreSQL wakes everyone who waits, as committed.
      return ok({ ...db, names: 'empty', inForce: false, waiting: [] }, null, db.waiting)
    }
    case 'proveSync':
      if (db.process !== 'primary' || db.names !== 'set') return failed('synchronous replication is not in force')
      return ok({ ...db, inForce: true }, endOf(db))
    case 'rejoin': {
      const peer = world.hosts[otherOf[node]].database
      if (peer.process !== 'primary' || peer.epoch !== op.epoch || peer.timeline !== op.timeline)
        return failed('there is no such primary')
      const whole = db.log.length > 0 && isPrefix(db.log, peer.log)
      const log = whole ? db.log : peer.log
      const standby: Database = { ...noDatabase, process: 'standby', log, timeline: peer.timeline, follows: peer.epoch }
      return ok({ ...standby, epoch: whole ? db.epoch : 0 }, endOf(standby))
    }
  }
}
