import { mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { assert } from '../../shared/assert.ts'
import { exec } from '../exec.ts'
import { bin, type ClusterSpec, replicationRole, unfinishedFile } from './cluster.ts'
import { makeOwnFolder, newClusterAccess, removeOverrides, setStandbySignal, writeConfig } from './config-files.ts'
import { killAll, scan, sleep, startPostmaster } from './processes.ts'
import { connect, disconnect, type Sql } from './sql.ts'

/** Makes a new cluster, or prepares an adopted one, with the role that the other host replicates by. */
const initdbLimitMs = 120_000
const firstStartLimitMs = 120_000

export async function initialise(spec: ClusterSpec, progress: (line: string) => void): Promise<void> {
  if (spec.mode === 'adopt')
    throw new Error(`there is no cluster in ${spec.dataDir} to adopt; give its data directory or use mode "create"`)
  const there = await listing(spec.dataDir)
  if (there.length > 0 && !there.includes('PG_VERSION')) {
    throw new Error(
      `${spec.dataDir} is not empty and holds no cluster (${there.slice(0, 3).join(', ')}); give an empty directory`,
    )
  }
  progress(`making a new cluster in ${spec.dataDir}`)
  await mkdir(spec.confDir, { recursive: true })
  await writeFile(unfinishedFile(spec), 'initdb\n')
  await rm(spec.dataDir, { recursive: true, force: true })
  await makeOwnFolder(spec, spec.dataDir, 0o700)
  const result = await exec(
    [
      bin(spec, 'initdb'),
      '-D',
      spec.dataDir,
      '-U',
      spec.superuser,
      '--data-checksums',
      `--wal-segsize=${spec.walSegmentMb}`,
      '--encoding=UTF8',
      '--locale=C.UTF-8',
      '--auth=reject',
      '--no-sync',
    ],
    {
      limitMs: initdbLimitMs,
      uid: spec.user.uid,
      gid: spec.user.gid,
      env: { PATH: '/usr/bin:/bin', LC_ALL: 'C.UTF-8' },
    },
  )
  if (!result.ok) throw new Error(`initdb failed: ${result.why}`)
  await writeFile(join(spec.dataDir, 'pg_hba.conf'), newClusterAccess)
  await prepareRole(spec)
  await rm(unfinishedFile(spec))
}

/** Starts the cluster alone, as a primary of nobody, to create the replication role. Behind a gate that is not open. */
export async function prepareRole(spec: ClusterSpec): Promise<void> {
  assert(scan(spec).length === 0, 'the cluster is in use; nothing is prepared beside a running server')
  await writeConfig(spec, { syncNames: 'empty', source: null })
  await removeOverrides(spec)
  await setStandbySignal(spec, 'primary')
  await startPostmaster(spec)
  const sql = connect(spec)
  try {
    await firstStatement(sql)
    await createReplicationRole(sql)
    await sql`checkpoint`
  } finally {
    disconnect(sql)
    await killAll(spec)
  }
}

async function firstStatement(sql: Sql): Promise<void> {
  const until = performance.now() + firstStartLimitMs
  for (;;) {
    try {
      await sql`select 1`
      return
    } catch (error) {
      if (performance.now() > until) throw error
      await sleep(20)
    }
  }
}

/** No password: it logs in by the pair's certificate. What it may read beside the log is what pg_rewind needs (manual, pg_rewind). */
export async function createReplicationRole(sql: Sql): Promise<void> {
  const [row] = await sql`select 1 from pg_roles where rolname = ${replicationRole}`
  if (row === undefined) await sql`create role ${sql(replicationRole)} login replication`
  await sql.unsafe(`
    grant execute on function pg_catalog.pg_ls_dir(text, boolean, boolean) to ${replicationRole};
    grant execute on function pg_catalog.pg_stat_file(text, boolean) to ${replicationRole};
    grant execute on function pg_catalog.pg_read_binary_file(text) to ${replicationRole};
    grant execute on function pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) to ${replicationRole};
    grant pg_checkpoint to ${replicationRole};
    grant pg_read_all_settings to ${replicationRole};`)
}

const listing = (folder: string): Promise<string[]> => readdir(folder).catch(() => [])
