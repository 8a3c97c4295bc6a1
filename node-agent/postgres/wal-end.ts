import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseLsn, showLsn, timelineOfFile } from '../../shared/lsn.ts'
import type { WalPosition } from '../../shared/protocol/types.ts'
import { exec } from '../exec.ts'
import { bin, type ClusterSpec } from './cluster.ts'

/**
 * Where the log on disk ends: the end of the last valid record of the newest timeline, read by pg_waldump while no
 * process of the cluster runs.
 *
 * The timeline is that of the newest WAL file, never the one of pg_controldata: that names the old timeline until the
 * first checkpoint after a promotion.
 */
const waldumpLimitMs = 60_000

export async function endOfLog(spec: ClusterSpec, from: WalPosition | null): Promise<WalPosition | null> {
  const timeline = newestTimeline(spec)
  if (timeline === null) return null
  const start =
    from !== null && from.timeline === timeline && from.lsn > 0 ? from.lsn : await lastCheckpoint(spec, timeline)
  if (start === null) return null
  const result = await exec(
    [bin(spec, 'pg_waldump'), '-q', '-p', join(spec.dataDir, 'pg_wal'), '-t', String(timeline), '-s', showLsn(start)],
    { limitMs: waldumpLimitMs },
  )
  const said = result.ok ? '' : result.stderr
  // "error in WAL record at A: <what is wrong> at B": B is the end of the last valid record. Without a record after the
  // start there is "could not find a valid record after START".
  const record = /error in WAL record at ([0-9A-F]+\/[0-9A-F]+): .*? at ([0-9A-F]+\/[0-9A-F]+)/.exec(said)
  if (record !== null) return { timeline, lsn: parseLsn(record[2]!) }
  const inRecord = /error in WAL record at ([0-9A-F]+\/[0-9A-F]+)/.exec(said)
  if (inRecord !== null) return { timeline, lsn: parseLsn(inRecord[1]!) }
  if (/could not find a valid record/.test(said)) return { timeline, lsn: start }
  return null
}

/** Of the WAL files and history files on disk; a standby that follows a new timeline has its history file first. */
function newestTimeline(spec: ClusterSpec): number | null {
  let newest: number | null = null
  for (const name of readdirSync(join(spec.dataDir, 'pg_wal'))) {
    if (!/^[0-9A-F]{24}$/.test(name)) continue
    newest = Math.max(newest ?? 0, timelineOfFile(name))
  }
  return newest
}

/** Where replay would start, if that lies on this timeline; else the fork is the first place to look. */
async function lastCheckpoint(spec: ClusterSpec, timeline: number): Promise<number | null> {
  const control = await controlData(spec)
  if (control === null) return null
  if (control.timeline === timeline) return control.redoLsn
  const name = `${timeline.toString(16).toUpperCase().padStart(8, '0')}.history`
  try {
    const lines = readFileSync(join(spec.dataDir, 'pg_wal', name), 'utf8')
      .trim()
      .split('\n')
    const fork = lines.at(-1)?.split(/\s+/)[1]
    return fork === undefined
      ? control.redoLsn
      : Math.max(parseLsn(fork), control.timeline > timeline ? 0 : parseLsn(fork))
  } catch {
    return control.redoLsn
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
