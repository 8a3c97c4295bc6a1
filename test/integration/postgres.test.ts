import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { PostgresDriver } from '../../node-agent/postgres/driver.ts'
import { findPostmaster, scan, sleep } from '../../node-agent/postgres/processes.ts'
import type { DatabaseView } from '../../shared/protocol/types.ts'
import { type TestHost, twoClusters } from './support/clusters.ts'
import { dumpedRecords, expectEnd } from './support/wal-dump.ts'

/** Two real servers, driven as two agents would drive them. The tests go on from one another, as the life of a pair does. */
describe('the PostgreSQL driver', { timeout: 300_000 }, () => {
  let a: TestHost
  let b: TestHost
  let cleanUp: () => Promise<void> = async () => {}
  before(async () => {
    ;({ a, b, cleanUp } = await twoClusters({ portA: 25_410 }))
    // As in the agent's unit.
    process.umask(0o077)
  })
  after(() => cleanUp())

  const until = async (what: string, test: () => boolean | Promise<boolean>): Promise<void> => {
    const end = performance.now() + 60_000
    while (!(await test())) {
      assert.ok(performance.now() < end, `waited a minute in vain until ${what}`)
      await sleep(20)
    }
  }

  /** An agent that is started anew has another one. */
  const anotherDriver = async (change: { hangMs?: number } = {}): Promise<void> => {
    await a.driver.detach()
    a.driver = new PostgresDriver({
      spec: { ...a.spec, ...change },
      peerDatabase: [{ host: '127.0.0.1', port: b.spec.port }],
      progress: line => void a.progress.push(line),
    })
  }

  test('a host without a cluster makes none where it is to be promoted: the volume with its data may be missing', async () => {
    const result = await a.driver.perform({ op: 'promote', epoch: 1, syncNames: 'empty' })
    assert.match(result.ok ? '' : result.why, /there is no whole database in .* is its volume mounted\?/)
    assert.equal(existsSync(a.spec.dataDir), false)
  })

  test('a new cluster becomes primary of epoch 1 on a timeline of its own', async () => {
    await a.create()
    const { view } = await a.must({ op: 'promote', epoch: 1, syncNames: 'empty' })
    assert.equal(view.process, 'primary')
    assert.equal(view.epoch, 1)
    assert.ok(view.end.timeline >= 2)
    a.psql('create table t(id int primary key)')
  })

  test('the other host clones it and streams', async () => {
    const { view } = await b.must({ op: 'rejoin', gen: 1, epoch: 1, timeline: 2, clone: 'ifNeeded' })
    assert.equal(view.process, 'standby')
    assert.equal(view.streaming, true)
    assert.match(b.progress.join('\n'), /clone/)
  })

  test('synchronous replication is proven with a position that the standby has flushed', async () => {
    await until('the primary sees its standby', () => a.psql('select count(*) from pg_stat_replication') === '1')
    await a.must({ op: 'syncNames', set: 'set' })
    const { position, view } = await a.must({ op: 'proveSync' })
    assert.ok(position !== null && view.sender !== null)
    assert.ok(view.sender.flushedLsn >= position.lsn)
    assert.equal(view.syncNames, 'set')
  })

  test('a role that commits without waiting for the standby is named', async () => {
    assert.deepEqual(await a.driver.unprotectedCommits(), [])
    a.psql('create role hasty login; alter role hasty in database postgres set synchronous_commit = off')
    a.psql('alter role hasty set synchronous_commit = on')
    assert.deepEqual(await a.driver.unprotectedCommits(), ['hasty in postgres commits with synchronous_commit=off'])
    a.psql('alter role hasty in database postgres reset synchronous_commit')
  })

  test('an ALTER SYSTEM of the names is seen, nothing rests on it, and it is set back', async () => {
    a.psql("alter system set synchronous_standby_names = 'somebody, understudy_b'")
    a.psql('select pg_reload_conf()')
    const views: DatabaseView[] = []
    a.driver.onView(view => views.push(view))
    await until('it is seen', () => views.at(-1)?.syncNames === 'unknown')
    const { view } = await a.must({ op: 'syncNames', set: 'set' })
    assert.equal(view.syncNames, 'set')
    assert.equal(a.psql('show synchronous_standby_names'), 'understudy_b')
    assert.equal((await a.must({ op: 'proveSync' })).view.syncNames, 'set')
  })

  test('synchronous replication is not proven while the checkpointer has not taken the setting up', async () => {
    await a.must({ op: 'syncNames', set: 'empty' })
    const pid = Number(a.psql("select pid from pg_stat_activity where backend_type = 'checkpointer'"))
    process.kill(pid, 'SIGSTOP')
    try {
      await a.must({ op: 'syncNames', set: 'set' })
      const proof = a.driver.perform({ op: 'proveSync' })
      const early = await Promise.race([proof, sleep(500).then(() => 'unproven')])
      assert.equal(early, 'unproven')
      process.kill(pid, 'SIGCONT')
      assert.equal((await proof).ok, true)
    } finally {
      process.kill(pid, 'SIGCONT')
    }
  })

  test('a new driver adopts the running server without a restart', async () => {
    const pid = await findPostmaster(a.spec)
    await anotherDriver()
    const view = await a.driver.adopt()
    assert.equal(view.process, 'primary')
    assert.equal(await findPostmaster(a.spec), pid)
    a.must = async op => {
      const result = await a.driver.perform(op)
      assert.ok(result.ok, `${op.op}: ${result.ok ? '' : result.why}`)
      return result
    }
  })

  test('a running server that does not answer an agent at its start is given time, as the primary that it is', async () => {
    const pid = await findPostmaster(a.spec)
    const pids = scan(a.spec)
    await anotherDriver({ hangMs: 300 })
    signal('STOP', pids)
    try {
      const { process: role, epoch, end } = await a.driver.adopt()
      assert.deepEqual([role, epoch, end.timeline], ['primary', 1, 0])
      await until('it is seen to hang', () => a.driver.view.hanging)
    } finally {
      signal('CONT', pids)
    }
    await until('it is seen as it is', () => a.driver.view.end.timeline > 0 && !a.driver.view.hanging)
    assert.deepEqual([a.driver.view.process, a.driver.view.syncNames], ['primary', 'set'])
    assert.equal(await findPostmaster(a.spec), pid)
    // Its short limit is not for the tests that follow.
    await anotherDriver()
    await a.driver.adopt()
  })

  test('a running server that nobody reaches by the port that is configured now is started anew', async () => {
    const other = new PostgresDriver({
      spec: { ...a.spec, port: b.spec.port + 1 },
      peerDatabase: [{ host: '127.0.0.1', port: b.spec.port }],
      progress: () => {},
    })
    assert.equal((await other.adopt()).process, 'dead')
    await other.detach()
  })

  test('a planned hand-over kills the primary, promotes the standby, and the old primary follows without a rewind', async () => {
    a.psql('insert into t select generate_series(1, 1000)')
    await a.must({ op: 'drain' })
    const killed = await a.must({ op: 'kill' })
    assert.deepEqual(scan(a.spec), [])
    const flushed = await b.must({ op: 'promote', epoch: 2, syncNames: 'empty' })
    assert.equal(flushed.view.end.timeline, (killed.position?.timeline ?? 0) + 1)
    assert.equal(b.psql('select count(*) from t'), '1000')
    const { view } = await a.must({
      op: 'rejoin',
      gen: 1,
      epoch: 2,
      timeline: flushed.view.end.timeline,
      clone: 'ifNeeded',
    })
    assert.equal(view.streaming, true)
  })

  test('the end of the log is where pg_waldump ends it, also after a kill in the middle of writing', async () => {
    const load = spawn(
      'psql',
      [
        '-Xq',
        '-h',
        b.spec.socketDir,
        '-p',
        String(b.spec.port),
        '-U',
        'postgres',
        '-d',
        'postgres',
        '-c',
        'insert into t select generate_series(10000, 5000000)',
      ],
      { stdio: 'ignore' },
    )
    const loaded = once(load, 'exit')
    await sleep(300)
    const { position } = await b.must({ op: 'kill' })
    await loaded
    assert.ok(position !== null)
    const { timeline, lsn } = position
    const segmentBytes = b.spec.walSegmentMb * 2 ** 20
    const from = (Math.floor(lsn / segmentBytes) - 1) * segmentBytes
    expectEnd(lsn, dumpedRecords(b, { timeline, from }), 'the position after the kill')
    assert.deepEqual(scan(b.spec), [])
  })

  test('a diverged old primary is rewound and what it had is kept as evidence', async () => {
    // b was killed while it wrote alone; a takes over from where it had followed.
    await a.must({ op: 'promote', epoch: 3, syncNames: 'empty' })
    await b.must({ op: 'startPrimary', epoch: 2, syncNames: 'empty' })
    b.psql('insert into t values (-1)')
    await b.must({ op: 'kill' })
    a.psql('insert into t values (-2)')
    const { view } = await b.must({ op: 'rejoin', gen: 1, epoch: 3, timeline: 4, clone: 'ifNeeded' })
    assert.equal(view.streaming, true)
    const said = b.progress.join('\n')
    assert.match(said, /rewind: /)
    assert.match(said, /with \d+ commits as evidence/)
    await until('the standby has the new row', () => b.psql('select count(*) from t where id = -2') === '1')
    assert.equal(b.psql('select count(*) from t where id = -1'), '0')
  })

  test('a standby whose log the primary has recycled is cloned, and its lost slot is made anew', async () => {
    await b.must({ op: 'kill' })
    a.psql("select pg_drop_replication_slot('understudy_b')")
    // wal_keep_size holds 64 segments back.
    a.psql(`do $$ begin for i in 1..100 loop
      perform pg_logical_emit_message(false, 'test', 'x'); perform pg_switch_wal(); end loop; end $$`)
    a.psql('checkpoint')
    b.progress.length = 0
    const views: DatabaseView[] = []
    b.driver.onView(view => views.push(view))
    const { view } = await b.must({ op: 'rejoin', gen: 1, epoch: 3, timeline: 4, clone: 'ifNeeded' })
    assert.equal(view.streaming, true)
    // While it is copied nobody takes what is here for a whole database: no takeover is forced onto it.
    const down = views.filter(one => one.process === 'none')
    assert.ok(down.length > 0)
    assert.deepEqual(new Set(down.map(one => one.end.timeline)), new Set([0]))
    assert.match(b.progress.join('\n'), /clone: the primary no longer has the log from \d+\/[0-9A-F]+\/[0-9A-F]+ on/)
    assert.equal(a.psql('select slot_name, wal_status from pg_replication_slots'), 'understudy_b|reserved')
  })

  test('a postmaster that is killed is seen dead, and a kill leaves no backend behind', async () => {
    const views: DatabaseView[] = []
    a.driver.onView(view => views.push(view))
    const busy = spawn(
      'psql',
      [
        '-Xq',
        '-h',
        a.spec.socketDir,
        '-p',
        String(a.spec.port),
        '-U',
        'postgres',
        '-d',
        'postgres',
        '-c',
        'select count(*) from generate_series(1, 1000000000)',
      ],
      { stdio: 'ignore' },
    )
    const ended = once(busy, 'exit')
    await sleep(200)
    const pid = await findPostmaster(a.spec)
    assert.ok(pid !== null)
    process.kill(pid, 'SIGKILL')
    await until('the death is seen', () => views.some(view => view.process === 'dead'))
    await a.must({ op: 'kill' })
    assert.deepEqual(scan(a.spec), [])
    await ended
  })

  test('what ALTER SYSTEM left behind does not count after a start, and other settings of the owner do', async () => {
    const auto = join(a.spec.dataDir, 'postgresql.auto.conf')
    appendFileSync(auto, "restart_after_crash = 'on'\nFsync = 'off'\nwork_mem = '7MB'\n")
    await a.must({ op: 'startPrimary', epoch: 3, syncNames: 'empty' })
    assert.equal(a.psql('show restart_after_crash'), 'off')
    assert.equal(a.psql('show fsync'), 'on')
    assert.equal(a.psql('show work_mem'), '7MB')
    assert.match(a.progress.join('\n'), /removed from postgresql.auto.conf.*restart_after_crash = 'on'; Fsync = 'off'/)
    await a.must({ op: 'kill' })
  })

  test('a server that answered while this process stood still is not taken for hanging', async () => {
    await a.must({ op: 'startPrimary', epoch: 3, syncNames: 'empty' })
    await sleep(1_000)
    const views: DatabaseView[] = []
    a.driver.onView(view => views.push(view))
    const pids = scan(a.spec)
    for (let attempt = 1; ; attempt++) {
      signal('STOP', pids)
      const stoppedMs = performance.now()
      await sleep(300)
      // On a starved machine the wait may last as long as a hang, and would rightly be taken for one.
      if (performance.now() - stoppedMs < 600) break
      assert.ok(attempt < 50, 'this machine never lets 300 ms be shorter than 600')
      signal('CONT', pids)
      await sleep(1_000)
      views.length = 0
    }
    // Probes are on their way by now; the server goes on, and answers, while nobody here can listen.
    spawn('sh', ['-c', 'sleep 0.1; kill -CONT "$@"', 'sh', ...pids.map(String)], { stdio: 'ignore' })
    const standStillMs = (ms: number): unknown => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
    standStillMs(1_000)
    // A busy machine may let the server wait for its signal: it has to have gone on, and answered, within this stop.
    while (pids.some(isStopped)) standStillMs(20)
    standStillMs(100)
    await sleep(500)
    await until('its answers are seen', () => views.length > 0)
    assert.deepEqual(
      views.filter(view => view.hanging),
      [],
    )
  })

  /** Of a connection's process that ends meanwhile it is no error. */
  const signal = (name: string, pids: readonly number[]): unknown =>
    spawnSync('kill', [`-${name}`, ...pids.map(String)], { stdio: 'ignore' })

  const isStopped = (pid: number): boolean => {
    try {
      return /\) T /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))
    } catch {
      return false
    }
  }

  test('a stopped postmaster is seen as a hang, and as stuck while its host keeps it from nothing', async () => {
    await anotherDriver({ hangMs: 300 })
    const views: DatabaseView[] = []
    await a.driver.adopt()
    a.driver.onView(view => views.push(view))
    const pid = await findPostmaster(a.spec)
    assert.ok(pid !== null)
    process.kill(pid, 'SIGSTOP')
    await until('the hang is seen', () => views.some(view => view.hanging))
    await until('it is seen as stuck', () => views.some(view => view.stuck))
    assert.ok(views.findIndex(view => view.hanging) < views.findIndex(view => view.stuck))
    assert.match(a.progress.join('\n'), /the database is stuck: .* without an answer for \d+ ms/)
    const killed = await a.driver.perform({ op: 'kill' })
    assert.deepEqual([killed.ok, killed.view.stuck, scan(a.spec)], [true, false, []])
  })
})
