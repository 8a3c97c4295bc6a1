import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseLsn, showTimeline, timelineOfFile } from '../../shared/lsn.ts'
import type { WalPosition } from '../../shared/protocol/types.ts'
import { exec } from '../exec.ts'
import { bin, type ClusterSpec } from './cluster.ts'
import { followLog } from './wal-reader.ts'

/**
 * Where the log on disk ends: the end of the last valid record of the newest timeline, read while no process of the
 * cluster runs. null: it can't be read.
 *
 * The timeline is that of the newest WAL file, never the one of pg_controldata: that names the old timeline until the
 * first checkpoint after a promotion. A standby that begins to follow a new timeline makes its first segment before it
 * writes there: one that was killed then (or found the disk full) has its log's end on the timeline before.
 *
 * @param from a position known to be flushed: nothing before it is read again
 */
export async function endOfLog(spec: ClusterSpec, from: WalPosition | null): Promise<WalPosition | null> {
  for (const timeline of await timelinesOnDisk(spec)) {
    const end = await endOn(spec, { timeline, from })
    if (end !== 'nothing written') return end
  }
  return null
}

async function endOn(
  spec: ClusterSpec,
  { timeline, from }: { timeline: number; from: WalPosition | null },
): Promise<WalPosition | 'nothing written' | null> {
  const walDir = join(spec.dataDir, 'pg_wal')
  if (from !== null && from.timeline === timeline && from.lsn > 0) {
    const found = await followLog({ walDir, timeline, from: from.lsn })
    return { timeline, lsn: found?.end ?? from.lsn }
  }
  const start = await lastCheckpoint(spec, timeline)
  if (start === null) return null
  const found = await followLog({ walDir, timeline, from: start.lsn })
  if (found === null) return start.hasRecords ? null : 'nothing written'
  return start.hasRecords && found.records === 0 ? null : { timeline, lsn: found.end }
}

/** Newest first, of the WAL files. A standby that follows a new timeline has its history file before. */
async function timelinesOnDisk(spec: ClusterSpec): Promise<number[]> {
  const names = await readdir(join(spec.dataDir, 'pg_wal'))
  const timelines = names.filter(name => /^[0-9A-F]{24}$/.test(name)).map(timelineOfFile)
  return [...new Set(timelines)].sort((x, y) => y - x)
}

/**
 * Where replay would start, if that lies on this timeline; else the fork is the first place to look, behind which there
 * may be nothing yet.
 */
async function lastCheckpoint(
  spec: ClusterSpec,
  timeline: number,
): Promise<{ lsn: number; hasRecords: boolean } | null> {
  const control = await controlData(spec)
  if (control === null) return null
  const redo = { lsn: control.redoLsn, hasRecords: true }
  if (control.timeline === timeline) return redo
  try {
    const name = `${showTimeline(timeline)}.history`
    const lines = (await readFile(join(spec.dataDir, 'pg_wal', name), 'utf8')).trim().split('\n')
    const fork = lines.at(-1)?.split(/\s+/)[1]
    return fork === undefined ? redo : { lsn: parseLsn(fork), hasRecords: false }
  } catch {
    return redo
  }
}

export interface ControlData {
  system: string
  version: number
  timeline: number
  redoLsn: number
  canRewind: boolean
  walSegmentBytes: number
  state: string
}

/** pg_controldata, read as text: the only interface to pg_control while the server is down. */
export async function controlData(spec: ClusterSpec): Promise<ControlData | null> {
  const result = await exec([bin(spec, 'pg_controldata'), spec.dataDir], {
    limitMs: 10_000,
    env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' },
  })
  if (!result.ok) return null
  const field = (name: string): string => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(result.stdout)?.[1]?.trim() ?? ''
  return {
    system: field('Database system identifier'),
    version: Math.floor(Number(field('pg_control version number')) / 100),
    timeline: Number(field("Latest checkpoint's TimeLineID")),
    redoLsn: parseLsn(field("Latest checkpoint's REDO location") || '0/0'),
    canRewind: Number(field('Data page checksum version')) > 0 || field('wal_log_hints setting') === 'on',
    walSegmentBytes: Number(field('Bytes per WAL segment')),
    state: field('Database cluster state'),
  }
}
