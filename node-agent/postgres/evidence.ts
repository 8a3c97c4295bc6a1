import { copyFileSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { showLsn, showTimeline } from '../../shared/lsn.ts'
import type { WalPosition } from '../../shared/protocol/types.ts'
import { exec } from '../exec.ts'
import { bin, type ClusterSpec } from './cluster.ts'

/**
 * What a diverged log held past the fork, kept before a rewind or a clone replaces it: the segments, and a summary of
 * the transactions in them. A tail without a COMMIT lost nothing that a client was told.
 */
export interface Evidence {
  id: string
  /** Wall time, for people. */
  madeAt: string
  fork: { timeline: number; lsn: string }
  end: { timeline: number; lsn: string }
  tailBytes: number
  transactions: { xid: string; committedAt: string }[]
  changes: { relation: string; inserts: number; updates: number; deletes: number }[]
  segments: string[]
  complete: boolean
}

/** A tail longer than this keeps its newest part only, and says so. */
const segmentsMax = 64
const transactionsMax = 10_000
const waldumpLimitMs = 60_000

export async function keepEvidence(
  spec: ClusterSpec,
  tail: { fork: WalPosition; end: WalPosition },
): Promise<Evidence> {
  const madeAt = new Date().toISOString()
  const id = `${madeAt.replaceAll(/[:.]/g, '-')}-timeline-${tail.fork.timeline}`
  const folder = join(spec.evidenceDir, id)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const segments = copySegments(spec, tail, folder)
  const dump = await exec(
    [
      bin(spec, 'pg_waldump'),
      '-p',
      join(spec.dataDir, 'pg_wal'),
      '-t',
      String(tail.fork.timeline),
      '-s',
      showLsn(tail.fork.lsn),
    ],
    { limitMs: waldumpLimitMs },
  )
  // It always ends with an error: the log ends somewhere.
  const summary = summarise(dump.stdout)
  const evidence: Evidence = {
    id,
    madeAt,
    fork: { timeline: tail.fork.timeline, lsn: showLsn(tail.fork.lsn) },
    end: { timeline: tail.end.timeline, lsn: showLsn(tail.end.lsn) },
    tailBytes: tail.end.lsn - tail.fork.lsn,
    ...summary,
    ...segments,
  }
  writeFileSync(join(folder, 'evidence.json'), `${JSON.stringify(evidence, null, 2)}\n`, { mode: 0o600 })
  return evidence
}

function copySegments(
  spec: ClusterSpec,
  tail: { fork: WalPosition },
  folder: string,
): { segments: string[]; complete: boolean } {
  const wal = join(spec.dataDir, 'pg_wal')
  const prefix = showTimeline(tail.fork.timeline)
  const names = readdirSync(wal)
    .filter(name => /^[0-9A-F]{24}$/.test(name) && name.startsWith(prefix))
    .sort()
  const bytes = names[0] === undefined ? 0 : statSync(join(wal, names[0])).size
  const from = names.filter(name => bytes > 0 && segmentEnd(name, bytes) > tail.fork.lsn)
  const segments = from.slice(-segmentsMax)
  for (const name of segments) copyFileSync(join(wal, name), join(folder, name))
  return { segments, complete: segments.length === from.length }
}

/** The position behind the last byte of a segment, from its name (manual, 30.5). */
function segmentEnd(name: string, bytes: number): number {
  const high = Number.parseInt(name.slice(8, 16), 16)
  const low = Number.parseInt(name.slice(16), 16)
  return high * 2 ** 32 + (low + 1) * bytes
}

export function summarise(dump: string): Pick<Evidence, 'transactions' | 'changes'> {
  const transactions: Evidence['transactions'] = []
  const changes = new Map<string, Evidence['changes'][number]>()
  for (const line of dump.split('\n')) {
    const commit = /^rmgr: Transaction .*tx:\s*(\d+).*desc: COMMIT ([^;]+)/.exec(line)
    if (commit !== null && transactions.length < transactionsMax) {
      transactions.push({ xid: commit[1]!, committedAt: commit[2]!.trim() })
    }
    const change =
      /^rmgr: Heap2? .*desc: (INSERT|MULTI_INSERT|UPDATE|HOT_UPDATE|DELETE)\b.*blkref #0: rel (\d+\/\d+\/\d+)/.exec(
        line,
      )
    if (change === null) continue
    const relation = change[2]!
    const row = changes.get(relation) ?? { relation, inserts: 0, updates: 0, deletes: 0 }
    if (change[1]!.includes('INSERT')) row.inserts += 1
    else if (change[1]!.includes('UPDATE')) row.updates += 1
    else row.deletes += 1
    changes.set(relation, row)
  }
  return { transactions, changes: [...changes.values()] }
}

export function removeEvidence(spec: ClusterSpec, id: string): void {
  rmSync(join(spec.evidenceDir, id), { recursive: true, force: true })
}
