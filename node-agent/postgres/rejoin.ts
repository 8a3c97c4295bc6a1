import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import postgres from 'postgres'
import { parseLsn, showLsn, showTimeline, timelineOfFile } from '../../shared/lsn.ts'
import { postgresPlace } from '../../shared/postgres-place.ts'
import { parseHistory, type RejoinFacts, type RejoinPlan, rejoinPlan } from '../../shared/protocol/rejoin.ts'
import type { WalPosition } from '../../shared/protocol/types.ts'
import { exec, execLines } from '../exec.ts'
import {
  bin,
  type ClusterSpec,
  configFile,
  exists,
  hasCluster,
  replicationRole,
  standbyName,
  unfinishedFile,
} from './cluster.ts'
import { connectionString, makeOwnFolder, writeConfig } from './config-files.ts'
import { type Evidence, keepEvidence } from './evidence.ts'
import { renewSlot } from './promote.ts'
import { controlData, endOfLog } from './wal-end.ts'

/**
 * Makes the stopped cluster here fit to follow the primary: looks where the logs part, keeps what would be lost, then
 * rewinds or clones. Nothing is started before the plan is made and carried out.
 */
export interface RejoinOptions {
  spec: ClusterSpec
  sources: { host: string; port: number }[]
  progress: (line: string) => void
  clone: 'ifNeeded' | 'always'
  /** A kill came in between: give up. */
  given: () => boolean
}

const sourceLimitMs = 10_000
const rewindLimitMs = 3_600_000
const cloneLimitMs = 24 * 3_600_000

export interface Rejoined {
  /** What to follow. */
  source: { host: string; port: number }
  /** What was kept of a diverged log. */
  evidence: Evidence | null
}

/** @throws with a sentence where nothing may be started. */
export async function rejoin(options: RejoinOptions): Promise<Rejoined> {
  const { spec, progress } = options
  // Its keys and files are needed to reach the source.
  await writeConfig(spec, { syncNames: 'empty', source: null })
  const { source, facts } = await firstSource(options)
  const own = (await hasCluster(spec)) ? await ownFacts(spec) : null
  const plan = rejoinPlan({ own, source: facts })
  progress(`${plan.how}: ${plan.why}`)
  if (plan.how === 'refuse') throw new Error(plan.why)
  const how = await howIndeed({ options, source, wished: plan.how, end: own?.end ?? null })
  if (how === 'follow') return { source, evidence: null }
  const tail = tailOf(plan, own)
  const evidence = tail === null ? null : await keepEvidence(spec, tail)
  if (evidence !== null) progress(keptSentence(evidence))
  if (options.given()) throw new Error('a kill came in between')
  if (how === 'rewind') {
    const failed = await rewind(options, source)
    if (failed === null) return { source, evidence }
    progress(`the rewind failed (${failed}); cloning instead`)
  }
  await clone(options, source)
  return { source, evidence }
}

/** The same look, without changing anything: for the operator who has to say that it may be given up. */
export async function collectEvidence(options: RejoinOptions): Promise<Evidence | null> {
  const { spec } = options
  await writeConfig(spec, { syncNames: 'empty', source: null })
  const own = (await hasCluster(spec)) ? await ownFacts(spec) : null
  const { facts } = await firstSource(options)
  const tail = tailOf(rejoinPlan({ own, source: facts }), own)
  return tail === null ? null : keepEvidence(spec, tail)
}

function tailOf(plan: RejoinPlan, own: RejoinFacts['own']): { fork: WalPosition; end: WalPosition } | null {
  if (own === null || !('fork' in plan) || plan.fork === null || plan.fork.timeline !== own.end.timeline) return null
  return { fork: plan.fork, end: own.end }
}

export const keptSentence = ({ tailBytes, transactions, id }: Evidence): string =>
  `kept ${tailBytes} bytes of diverged log with ${transactions.length} commits as evidence ${id}`

/** A log that the primary has recycled meanwhile (its slot was full, or lost) can't be followed or rewound to. */
async function howIndeed(part: {
  options: RejoinOptions
  source: { host: string; port: number }
  wished: 'follow' | 'rewind' | 'clone'
  end: WalPosition | null
}): Promise<'follow' | 'rewind' | 'clone'> {
  const { options, source, wished, end } = part
  const { spec, progress, clone } = options
  const sql = await remote(spec, source)
  try {
    await renewSlot(sql, standbyName(spec.node))
    if (clone === 'always' || wished === 'clone' || end === null) return 'clone'
    if (wished === 'rewind' || (await hasSegment(sql, end))) return wished
    progress(`clone: the primary no longer has the log from ${end.timeline}/${showLsn(end.lsn)} on`)
    return 'clone'
  } finally {
    void sql.end({ timeout: 0 }).catch(() => {})
  }
}

/** Whether the source still has the segment with this position, on whichever timeline it is kept there. */
async function hasSegment(sql: postgres.Sql, { lsn }: WalPosition): Promise<boolean> {
  const [row] = await sql`
    select exists (
      select from pg_ls_dir('pg_wal', true, false) name
      where name ~ '^[0-9A-F]{24}$' and substr(name, 9) = substr(pg_walfile_name(${showLsn(lsn)}::pg_lsn), 9)) as found`
  return row?.found === true
}

async function firstSource(
  options: RejoinOptions,
): Promise<{ source: { host: string; port: number }; facts: RejoinFacts['source'] }> {
  let why = 'no address of the primary is known'
  for (const source of options.sources) {
    try {
      return { source, facts: await sourceFacts(options.spec, source) }
    } catch (error) {
      why = `${source.host}:${source.port}: ${(error instanceof Error ? error.message : String(error)).trim()}`
    }
  }
  throw new Error(`the primary's database can't be asked (${why})`)
}

/** Its position, its ancestors, and a checkpoint: without one pg_rewind 15 takes a promoted source for its old self. */
async function sourceFacts(spec: ClusterSpec, source: { host: string; port: number }): Promise<RejoinFacts['source']> {
  const sql = await remote(spec, source)
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

async function remote(spec: ClusterSpec, source: { host: string; port: number }): Promise<postgres.Sql> {
  const read = (name: string): Promise<string> => readFile(join(spec.confDir, name), 'utf8')
  const tls = { ca: await read('ca.crt'), cert: await read('server.crt'), key: await read('server.key') }
  return postgres({
    ...postgresPlace(source),
    user: replicationRole,
    database: 'postgres',
    max: 1,
    fetch_types: false,
    connect_timeout: sourceLimitMs / 1000,
    ssl: {
      ...tls,
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
  await writeFile(unfinishedFile(spec), 'rewind\n')
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
  await rm(unfinishedFile(spec))
  return null
}

/** They lie outside the data directory, and a base backup wants them empty. Only what PostgreSQL made in them goes. */
async function emptyTablespaces(spec: ClusterSpec): Promise<void> {
  const links = join(spec.dataDir, 'pg_tblspc')
  for (const link of await readdir(links).catch(() => [])) {
    for (const name of await readdir(join(links, link)).catch(() => [])) {
      if (/^PG_\d+_\d+$/.test(name)) await rm(join(links, link, name), { recursive: true, force: true })
    }
  }
}

/** pg_basebackup overwrites its line each second: "  1234/56789 kB (2%), 0/1 tablespace". Told now and then. */
function copyProgress(progress: (line: string) => void): (line: string) => void {
  let toldAt = performance.now()
  return line => {
    const [, done, total, percent] = /(\d+)\/(\d+) kB \((\d+)%\)/.exec(line) ?? []
    if (percent === undefined || performance.now() - toldAt < tellEveryMs) return
    toldAt = performance.now()
    progress(`copied ${percent} %: ${Math.round(Number(done) / 1024)} of ${Math.round(Number(total) / 1024)} MiB`)
  }
}
const tellEveryMs = 3000

async function clone(options: RejoinOptions, source: { host: string; port: number }): Promise<void> {
  const { spec, progress, given } = options
  progress(`copying the whole cluster from ${source.host}`)
  await writeFile(unfinishedFile(spec), 'clone\n')
  await makeOwnFolder(spec, spec.dataDir, 0o700)
  await emptyTablespaces(spec)
  for (const name of await readdir(spec.dataDir)) await rm(join(spec.dataDir, name), { recursive: true, force: true })
  const stop = new AbortController()
  const watch = setInterval(() => given() && stop.abort(), 50)
  try {
    const result = await execLines(
      [
        bin(spec, 'pg_basebackup'),
        '--progress',
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
        from: 'stderr',
        onLine: copyProgress(progress),
        env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' },
      },
    )
    if (!result.ok) throw new Error(`pg_basebackup failed: ${result.why}`)
  } finally {
    clearInterval(watch)
  }
  // The signal and settings of the other host are not ours.
  for (const name of ['standby.signal', 'recovery.signal', 'promote'])
    await rm(join(spec.dataDir, name), { force: true })
  if (!(await exists(join(spec.dataDir, 'PG_VERSION')))) throw new Error('pg_basebackup left no cluster behind')
  await rm(unfinishedFile(spec))
  progress('the copy is whole')
}
