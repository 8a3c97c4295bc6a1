import { copyFile, mkdir, open, readdir, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { showLsn, showTimeline } from '../../shared/lsn.ts'
import type { WalPosition } from '../../shared/protocol/types.ts'
import { makeRoomForEvidence } from '../evidence-store.ts'
import { execLines } from '../exec.ts'
import { openFolderWriter } from '../state-file/atomic-write.ts'
import { bin, type ClusterSpec } from './cluster.ts'
import { connect, disconnect, type Sql, within } from './sql.ts'

/**
 * What a diverged log held past the fork, kept before a rewind or a clone replaces it: the segments, and a summary of
 * the transactions in them. A tail without a COMMIT lost nothing that a client was told.
 */
export interface Evidence {
  /** The format of this file. */
  version: 1
  id: string
  /** Wall time, for people. */
  madeAt: string
  fork: { timeline: number; lsn: string }
  end: { timeline: number; lsn: string }
  tailBytes: number
  transactions: { xid: string; committedAt: string }[]
  /** `relation` is tablespace/database/file; `name` is what a standby could make of it later, else ''. */
  changes: { relation: string; name: string; inserts: number; updates: number; deletes: number }[]
  segments: string[]
  complete: boolean
}

export const summaryName = 'evidence.json'
/** A tail longer than this keeps its newest part only, and says so. */
const segmentsMax = 64
const transactionsMax = 10_000
const relationsMax = 10_000
const waldumpLimitMs = 60_000

export async function keepEvidence(
  spec: ClusterSpec,
  tail: { fork: WalPosition; end: WalPosition },
): Promise<Evidence> {
  const madeAt = new Date().toISOString()
  const id = `${madeAt.replaceAll(/[:.]/g, '-')}-timeline-${tail.fork.timeline}`
  const folder = join(spec.evidenceDir, id)
  await makeRoomForEvidence(spec.evidenceDir, spec.evidenceMb)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const segments = await copySegments(spec, tail, folder)
  const summary = new Summary()
  // It always ends with an error: the log ends somewhere.
  await execLines(
    [
      bin(spec, 'pg_waldump'),
      '-p',
      join(spec.dataDir, 'pg_wal'),
      '-t',
      String(tail.fork.timeline),
      '-s',
      showLsn(tail.fork.lsn),
    ],
    { limitMs: waldumpLimitMs, from: 'stdout', onLine: line => summary.take(line) },
  )
  const evidence: Evidence = {
    version: 1,
    id,
    madeAt,
    fork: { timeline: tail.fork.timeline, lsn: showLsn(tail.fork.lsn) },
    end: { timeline: tail.end.timeline, lsn: showLsn(tail.end.lsn) },
    tailBytes: tail.end.lsn - tail.fork.lsn,
    transactions: summary.transactions,
    changes: [...summary.changes.values()],
    ...segments,
  }
  await writeSummary(folder, evidence)
  for (const above of [spec.evidenceDir, dirname(spec.evidenceDir)]) await flush(above)
  return evidence
}

/** Whole whenever it is read, and durable: what it tells of is thrown away next. */
async function writeSummary(folder: string, evidence: Evidence): Promise<void> {
  const writer = await openFolderWriter(folder)
  await writer.write(summaryName, Buffer.from(`${JSON.stringify(evidence, null, 2)}\n`)).finally(() => writer.close())
}

/** A file or a folder. */
async function flush(path: string): Promise<void> {
  const handle = await open(path)
  await handle.sync().finally(() => handle.close())
}

async function copySegments(
  spec: ClusterSpec,
  tail: { fork: WalPosition },
  folder: string,
): Promise<{ segments: string[]; complete: boolean }> {
  const wal = join(spec.dataDir, 'pg_wal')
  const prefix = showTimeline(tail.fork.timeline)
  const names = (await readdir(wal)).filter(name => /^[0-9A-F]{24}$/.test(name) && name.startsWith(prefix)).sort()
  const bytes = names[0] === undefined ? 0 : (await stat(join(wal, names[0]))).size
  const from = names.filter(name => bytes > 0 && segmentEnd(name, bytes) > tail.fork.lsn)
  const segments = from.slice(-segmentsMax)
  for (const name of segments) {
    await copyFile(join(wal, name), join(folder, name))
    await flush(join(folder, name))
  }
  return { segments, complete: segments.length === from.length }
}

/** The position behind the last byte of a segment, from its name (manual, 30.5). */
function segmentEnd(name: string, bytes: number): number {
  const high = Number.parseInt(name.slice(8, 16), 16)
  const low = Number.parseInt(name.slice(16), 16)
  return high * 2 ** 32 + (low + 1) * bytes
}

/** Reads the output of pg_waldump line by line: a long tail prints more than memory should hold. */
export class Summary {
  readonly transactions: Evidence['transactions'] = []
  readonly changes = new Map<string, Evidence['changes'][number]>()

  /** Transactions in which nothing but a probe of our own was seen: they tell nobody anything. */
  readonly #probes = new Set<string>()

  take(line: string): void {
    const { transactions, changes } = this
    const [, manager = '', xid = '0'] = /^rmgr: (\S+) .*tx:\s*(\d+)/.exec(line) ?? []
    if (manager === 'LogicalMessage' && line.includes('prefix "understudy"')) this.#probes.add(xid)
    else if (manager !== 'Transaction') this.#probes.delete(xid)
    else if (this.#probes.delete(xid)) return
    const commit = /^rmgr: Transaction .*tx:\s*(\d+).*desc: COMMIT ([^;]+)/.exec(line)
    if (commit !== null && transactions.length < transactionsMax) {
      transactions.push({ xid: commit[1]!, committedAt: commit[2]!.trim() })
    }
    const change =
      /^rmgr: Heap2? .*desc: (INSERT|MULTI_INSERT|UPDATE|HOT_UPDATE|DELETE)\b.*blkref #0: rel (\d+\/\d+\/\d+)/.exec(
        line,
      )
    if (change === null) return
    const relation = change[2]!
    const row = changes.get(relation) ?? { relation, name: '', inserts: 0, updates: 0, deletes: 0 }
    if (change[1]!.includes('INSERT')) row.inserts += 1
    else if (change[1]!.includes('UPDATE')) row.updates += 1
    else row.deletes += 1
    if (changes.size < relationsMax) changes.set(relation, row)
  }
}

/** Names of the relations, asked of a running server that has the same files (pg_filenode_relation, manual 9.27.7). */
export async function nameRelations(spec: ClusterSpec, evidence: Evidence): Promise<void> {
  const databases = new Set(evidence.changes.map(({ relation }) => relation.split('/')[1] ?? ''))
  for (const oid of databases) {
    const name = await withDatabase(spec, 'postgres', async sql => {
      const [row] = await sql`select datname from pg_database where oid = ${oid}::oid`
      return typeof row?.datname === 'string' ? row.datname : ''
    })
    if (name === '') continue
    await withDatabase(spec, name, async sql => {
      for (const change of evidence.changes) {
        const [tablespace = '0', database, file = '0'] = change.relation.split('/')
        if (database !== oid) continue
        const [row] = await sql`select pg_filenode_relation(${tablespace}::oid, ${file}::oid)::regclass::text as name`
        change.name = typeof row?.name === 'string' ? `${name}: ${row.name}` : ''
      }
    })
  }
  await writeSummary(join(spec.evidenceDir, evidence.id), evidence)
}

async function withDatabase<T>(spec: ClusterSpec, database: string, work: (sql: Sql) => Promise<T>): Promise<T> {
  const sql = connect(spec, { database })
  try {
    return await within(nameLimitMs, 'naming the tables', work(sql))
  } finally {
    disconnect(sql)
  }
}
const nameLimitMs = 10_000
