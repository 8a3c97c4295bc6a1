import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { flattenConfig } from '../../node-agent/pair/adopted-config.ts'
import { dataDirectoryFaults } from '../../node-agent/pair/data-directory.ts'
import { prepareRole } from '../../node-agent/postgres/initialise.ts'
import { type TestHost, twoClusters } from './support/clusters.ts'

/** A cluster that somebody else made: 16 MB segments, no checksums, another superuser, settings and users of its own. */
describe('an existing cluster is adopted', { timeout: 300_000 }, () => {
  let a: TestHost
  let b: TestHost
  let cleanUp: () => Promise<void> = async () => {}
  before(async () => {
    ;({ a, b, cleanUp } = await twoClusters({
      portA: 25_430,
      spec: { mode: 'adopt', superuser: 'boss', walSegmentMb: 16 },
    }))
    await makeForeignCluster(a)
  })
  after(() => cleanUp())

  const query = (host: TestHost, uri: string, statement: string): string =>
    execFileSync('psql', ['-XAtq', '-d', `postgres://${uri}@127.0.0.1:${host.spec.port}/shop`, '-c', statement], {
      encoding: 'utf8',
    }).trim()

  test('it keeps its data, its users and its settings, and gets only a role of ours', async () => {
    await prepareRole(a.spec)
    const { view } = await a.must({ op: 'promote', epoch: 1, syncNames: 'empty' })
    assert.equal(view.process, 'primary')
    assert.equal(query(a, 'clerk:secret', 'select count(*) from orders'), '1000')
    assert.equal(a.psql('show max_connections'), '42')
    assert.equal(a.psql('show wal_segment_size'), '16MB')
    // What the pair rests on is ours, whatever the cluster was configured with.
    assert.equal(a.psql('show fsync'), 'on')
    assert.equal(a.psql('show restart_after_crash'), 'off')
    assert.equal(
      a.psql("select string_agg(rolname, ',' order by 1) from pg_roles where rolname !~ '^pg_'"),
      'boss,clerk,understudy',
    )
  })

  test('the other host copies it with its settings, streams, and takes over; the old one is rewound without checksums', async () => {
    await b.must({ op: 'rejoin', gen: 1, epoch: 1, timeline: 2, clone: 'ifNeeded' })
    assert.equal(b.psql('show max_connections'), '42')
    assert.equal(b.psql('show data_checksums'), 'off')
    await a.must({ op: 'syncNames', set: 'set' })
    await a.must({ op: 'proveSync' })
    query(a, 'clerk:secret', 'insert into orders values (5000)')
    await b.driver.perform({ op: 'kill' })
    await a.must({ op: 'syncNames', set: 'empty' })
    query(a, 'clerk:secret', 'insert into orders values (6000)')
    await a.must({ op: 'kill' })
    const promoted = await b.must({ op: 'promote', epoch: 2, syncNames: 'empty' })
    assert.equal(query(b, 'clerk:secret', 'select count(*) from orders where id = 5000'), '1')
    const { timeline } = promoted.view.end
    const { view } = await a.must({ op: 'rejoin', gen: 1, epoch: 2, timeline, clone: 'ifNeeded' })
    assert.equal(view.streaming, true)
    assert.match(a.progress.join('\n'), /rewind: /)
    const bundle = /as evidence (\S+)/.exec(a.progress.join('\n'))?.[1] ?? ''
    const evidence = JSON.parse(readFileSync(join(a.spec.evidenceDir, bundle, 'evidence.json'), 'utf8'))
    assert.equal(evidence.transactions.length, 1)
    assert.deepEqual(
      evidence.changes.map((one: { name: string; inserts: number }) => [one.name, one.inserts]),
      [['shop: orders', 1]],
    )
  })
})

async function makeForeignCluster({ spec }: TestHost): Promise<void> {
  const as = (...argv: string[]): string =>
    execFileSync('setpriv', [`--reuid=${spec.user.uid}`, `--regid=${spec.user.gid}`, '--clear-groups', ...argv], {
      encoding: 'utf8',
      cwd: '/',
    })
  const bin = (name: string): string => join(spec.binDir, name)
  as(
    bin('initdb'),
    '-D',
    spec.dataDir,
    '-U',
    'boss',
    '--auth-local=trust',
    '--auth-host=scram-sha-256',
    '--no-sync',
    '--locale=C.UTF-8',
  )
  appendFileSync(
    join(spec.dataDir, 'postgresql.conf'),
    `max_connections = 42\nfsync = off\nport = ${spec.port}\nunix_socket_directories = '${spec.socketDir}'\nrestart_after_crash = on\n`,
  )
  as(bin('pg_ctl'), '-D', spec.dataDir, '-w', '-l', join(spec.confDir, 'foreign.log'), 'start')
  const psql = (database: string, statement: string): void => {
    execFileSync('psql', [
      '-Xq',
      '-h',
      spec.socketDir,
      '-p',
      `${spec.port}`,
      '-U',
      'boss',
      '-d',
      database,
      '-c',
      statement,
    ])
  }
  psql('postgres', "create role clerk login password 'secret'")
  psql('postgres', 'create database shop owner clerk')
  psql('shop', 'create table orders as select generate_series(1, 1000) as id; alter table orders owner to clerk')
  as(bin('pg_ctl'), '-D', spec.dataDir, '-w', '-m', 'fast', 'stop')
}

test('a cluster that must not be started as a primary as it is, or whose settings are nowhere, is refused with the remedy', t => {
  const folder = execFileSync('mktemp', ['-d'], { encoding: 'utf8' }).trim()
  t.after(() => rmSync(folder, { recursive: true }))
  const dataDir = join(folder, 'data')
  mkdirSync(dataDir)
  writeFileSync(join(dataDir, 'PG_VERSION'), '15\n')
  const wish = {
    dataDir,
    mode: 'adopt',
    part: 'begins',
    major: 15,
    configFile: null,
    hbaFile: null,
    resumed: false,
  } as const
  const say = (extra: object = {}): string =>
    dataDirectoryFaults({ ...wish, ...extra })
      .map(({ field, rule, remedy }) => `${field} ${rule}; ${remedy}`)
      .join('\n')
  assert.match(say(), /postgres.configFile is missing.*\/etc\/postgresql\/15\/main\/postgresql.conf/)
  assert.match(say({ hbaFile: '/nowhere/pg_hba.conf' }), /postgres.hbaFile does not exist/)
  writeFileSync(join(dataDir, 'postgresql.conf'), '')
  writeFileSync(join(dataDir, 'pg_hba.conf'), '')
  assert.equal(say(), '')
  writeFileSync(join(dataDir, 'standby.signal'), '')
  assert.match(say(), /is a standby of another primary; promote it and stop it first/)
  rmSync(join(dataDir, 'standby.signal'))
  writeFileSync(join(dataDir, 'backup_label'), '')
  assert.match(say(), /is a base backup that was never recovered/)
})

test('a configuration that includes other files becomes one text, and a circle is refused', t => {
  const folder = execFileSync('mktemp', ['-d'], { encoding: 'utf8' }).trim()
  t.after(() => rmSync(folder, { recursive: true }))
  mkdirSync(join(folder, 'conf.d'))
  writeFileSync(join(folder, 'conf.d', '20-b.conf'), 'b = 2')
  writeFileSync(join(folder, 'conf.d', '10-a.conf'), 'a = 1')
  writeFileSync(join(folder, 'conf.d', 'notes.txt'), 'c = 3')
  writeFileSync(
    join(folder, 'main.conf'),
    "x = 0\ninclude_dir = 'conf.d'\t# Debian\ninclude_if_exists 'gone.conf'\ny = 9\n",
  )
  const settings = flattenConfig(join(folder, 'main.conf'))
    .split('\n')
    .filter(line => line !== '' && !line.startsWith('#'))
  assert.deepEqual(settings, ['x = 0', 'a = 1', 'b = 2', 'y = 9'])
  writeFileSync(join(folder, 'circle.conf'), "include 'circle.conf'\n")
  assert.throws(() => flattenConfig(join(folder, 'circle.conf')), /do the files include each other/)
})
