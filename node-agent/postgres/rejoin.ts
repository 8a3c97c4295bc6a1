import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import { parseLsn, showTimeline, timelineOfFile } from '../../shared/lsn.ts'
import { parseHistory, type RejoinFacts, rejoinPlan } from '../../shared/protocol/rejoin.ts'
import { exec } from '../exec.ts'
import {
  bin,
  type ClusterSpec,
  configFile,
  hasCluster,
  replicationRole,
  standbyName,
  unfinishedFile,
} from './cluster.ts'
import { connectionString, own, writeConfig } from './config-files.ts'
import { keepEvidence } from './evidence.ts'
import { controlData, endOfLog } from './wal-end.ts'

/**
 * Makes the stopped cluster here fit to follow the primary: looks where the logs part, keeps what would be lost, then
 * rewinds or clones. Nothing is started before the plan is made and carried out.
 */
export interface RejoinOptions {
  spec: ClusterSpec
  sources: { host: string; port: number }[]
  progress: (line: string) => void
  epoch: number
  clone: 'ifNeeded' | 'always'
  /** A kill came in between: give up. */
  given: () => boolean
}

const sourceLimitMs = 10_000
const rewindLimitMs = 3_600_000
const cloneLimitMs = 24 * 3_600_000

/** @returns the source to follow. @throws with a sentence where nothing may be started. */
export async function rejoin(options: RejoinOptions): Promise<{ host: string; port: number }> {
  const { spec, progress } = options
  // Its keys and files are needed to reach the source.
  writeConfig(spec, { syncNames: 'empty', source: null })
  const { source, facts } = await firstSource(options)
  const own = hasCluster(spec) ? await ownFacts(spec) : null
  const plan = rejoinPlan({ own, source: facts })
  progress(`${plan.how}: ${plan.why}`)
  if (plan.how === 'refuse') throw new Error(plan.why)
  const how = options.clone === 'always' ? 'clone' : plan.how
  if (how === 'follow') return source
  if (own !== null && 'fork' in plan && plan.fork !== null && plan.fork.timeline === own.end.timeline) {
    const evidence = await keepEvidence(spec, { fork: plan.fork, end: own.end })
    progress(
      `kept ${evidence.tailBytes} bytes of diverged log with ${evidence.transactions.length} commits as evidence ${evidence.id}`,
    )
  }
  if (how === 'rewind') {
    const failed = await rewind(options, source)
    if (failed === null) return source
    progress(`the rewind failed (${failed}); cloning instead`)
  }
  await clone(options, source)
  return source
}

async function firstSource(
  options: RejoinOptions,
): Promise<{ source: { host: string; port: number }; facts: RejoinFacts['source'] }> {
  let why = 'no address of the primary is known'
  for (const source of options.sources) {
    try {
      return { source, facts: await sourceFacts(options.spec, source) }
    } catch (error) {
      why = `${source.host}:${source.port}: ${error instanceof Error ? error.message : String(error)}`
    }
  }
  throw new Error(`the primary's database can't be asked (${why})`)
}

/** Its position, its ancestors, and a checkpoint: without one pg_rewind 15 takes a promoted source for its old self. */
async function sourceFacts(spec: ClusterSpec, source: { host: string; port: number }): Promise<RejoinFacts['source']> {
  const sql = remote(spec, source)
  try {
    await sql`checkpoint`
    const [row] =
      await sql`select pg_current_wal_flush_lsn() as lsn, pg_walfile_name(pg_current_wal_insert_lsn()) as file,
      (select system_identifier::text from pg_control_system()) as system, pg_is_in_recovery() as recovering`
    if (row === undefined || row.recovering === true) throw new Error('it is not a primary')
    const timeline = timelineOfFile(row.file)
    const [file] =
      timeline === 1
        ? []
        : await sql`select convert_from(pg_read_binary_file(${`pg_wal/${showTimeline(timeline)}.history`}), 'UTF8') as text`
    return {
      system: row.system,
      end: { timeline, lsn: parseLsn(row.lsn) },
      history: parseHistory(file?.text ?? '', parseLsn),
    }
  } finally {
    void sql.end({ timeout: 0 }).catch(() => {})
  }
}

function remote(spec: ClusterSpec, source: { host: string; port: number }): postgres.Sql {
  const key = (name: string): string => readFileSync(join(spec.confDir, name), 'utf8')
  return postgres({
    host: source.host,
    port: source.port,
    user: replicationRole,
    database: 'postgres',
    max: 1,
    fetch_types: false,
    connect_timeout: sourceLimitMs / 1000,
    ssl: {
      ca: key('ca.crt'),
      cert: key('server.crt'),
      key: key('server.key'),
      // The pair's own authority signed it; hosts are known by the pair's key, not by a name.
      checkServerIdentity: () => undefined,
    },
    onnotice: () => {},
  })
}

async function ownFacts(spec: ClusterSpec): Promise<NonNullable<RejoinFacts['own']>> {
  const control = await controlData(spec)
  const end = await endOfLog(spec, null)
  if (control === null || end === null)
    throw new Error(`the log in ${spec.dataDir} can't be read; look at it, or clone with \`pair join --clone\``)
  return { system: control.system, end, canRewind: control.canRewind }
}

/** null, or why it failed. Its exit code 0 is no proof by itself: the fork was compared before, and is again after. */
async function rewind(options: RejoinOptions, source: { host: string; port: number }): Promise<string | null> {
  const { spec, progress } = options
  progress(`rewinding to the primary's log at ${source.host}`)
  writeFileSync(unfinishedFile(spec), 'rewind\n')
  const result = await exec(
    [
      bin(spec, 'pg_rewind'),
      '--target-pgdata',
      spec.dataDir,
      '--config-file',
      configFile(spec),
      '--source-server',
      connectionString(spec, { ...source, database: 'postgres' }),
      '--no-sync',
    ],
    { limitMs: rewindLimitMs, uid: spec.user.uid, gid: spec.user.gid, env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' } },
  )
  if (!result.ok) return result.why
  if (/no rewind required/.test(result.stderr)) return 'pg_rewind saw no fork where there is one'
  rmSync(unfinishedFile(spec))
  return null
}

async function clone(options: RejoinOptions, source: { host: string; port: number }): Promise<void> {
  const { spec, progress, given } = options
  progress(`copying the whole cluster from ${source.host}`)
  writeFileSync(unfinishedFile(spec), 'clone\n')
  mkdirSync(spec.dataDir, { recursive: true })
  own(spec, spec.dataDir, 0o700)
  for (const name of readdirSync(spec.dataDir)) rmSync(join(spec.dataDir, name), { recursive: true, force: true })
  const stop = new AbortController()
  const watch = setInterval(() => given() && stop.abort(), 50)
  try {
    const result = await exec(
      [
        bin(spec, 'pg_basebackup'),
        '-D',
        spec.dataDir,
        '-d',
        connectionString(spec, source),
        '-X',
        'stream',
        '-S',
        standbyName(spec.node),
        '-c',
        'fast',
        '--no-sync',
      ],
      {
        limitMs: cloneLimitMs,
        uid: spec.user.uid,
        gid: spec.user.gid,
        signal: stop.signal,
        env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' },
      },
    )
    if (!result.ok) throw new Error(`pg_basebackup failed: ${result.why}`)
  } finally {
    clearInterval(watch)
  }
  // The signal and settings of the other host are not ours.
  for (const name of ['standby.signal', 'recovery.signal', 'promote']) rmSync(join(spec.dataDir, name), { force: true })
  if (!existsSync(join(spec.dataDir, 'PG_VERSION'))) throw new Error('pg_basebackup left no cluster behind')
  rmSync(unfinishedFile(spec))
  progress('the copy is whole')
}
