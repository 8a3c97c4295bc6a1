/** Rows of the fault matrix in which a host, or everything, loses its power. */

import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { dropClient, nowMs } from '../../infra/lab/database-client.ts'
import { openHost, until, untilProtected, untilServing } from '../../infra/lab/pair.ts'
import { databaseProcess, hostProcesses, signal } from '../../infra/lab/processes.ts'
import { agentPaths } from '../../infra/lab/product.ts'
import { ask, type Pair, pairUnderLoad, understudyOn } from './support.ts'

const { row } = pairUnderLoad('power')

/** Far above what a takeover takes, far below what would need a person. */
const TAKEOVER_BOUND_MS = 6_000
const BOOT_BOUND_MS = 20_000
/** Of what has to be done within a fraction of a second, which a busy machine may not give. */
const TRIES_MAX = 5

row(
  'row 8: when the primary loses its power the backup serves with every acknowledged write',
  async ({ pair, primary, backup }) => {
    const step = await pair.trial.measure('power cut', async () => {
      await pair.inject({ kind: 'power', host: primary })
      await pair.untilServing(backup)
    })
    assert.ok(step.outage.gapMs < TAKEOVER_BOUND_MS, `writes stood still for ${step.outage.gapMs} ms`)
  },
)

row(
  'row 9: when the backup loses its power the primary goes on alone and says that it is unprotected',
  async ({ pair, primary, backup }) => {
    const before = await pair.present(primary)
    const step = await pair.trial.measure('power cut of the backup', async () => {
      await pair.inject({ kind: 'power', host: backup })
      await pair.untilStatus(
        primary,
        { limitMs: TAKEOVER_BOUND_MS, words: 'says that it is unprotected' },
        ({ protection }) => protection === 'serving but unprotected',
      )
    })
    const status = await pair.present(primary)
    assert.deepEqual(
      [status.serving, status.successor, status.protection, status.epoch],
      [true, false, 'serving but unprotected', before.epoch],
    )
    assert.ok(step.outage.gapMs < TAKEOVER_BOUND_MS, `writes stood still for ${step.outage.gapMs} ms`)
  },
  { stays: true },
)

row(
  'rows 41 and 43: when all three lose their power and the witness comes back last, the same primary resumes',
  async ({ pair, primary, backup }) => {
    const { epoch } = await pair.present(primary)
    await pair.inject({ kind: 'witness-down' })
    await pair.inject({ kind: 'power', host: primary })
    await pair.inject({ kind: 'power', host: backup })
    await pair.inject({ kind: 'power-on', host: backup })
    await pair.inject({ kind: 'power-on', host: primary })
    const status = await pair.untilServing(primary, BOOT_BOUND_MS)
    assert.equal(status.epoch, epoch, 'nobody took over')
    await pair.untilWritten(BOOT_BOUND_MS)
  },
  { stays: true },
)

/** The register's evidence of a diverged log: folders below the state directory. */
function evidenceOf(pair: Pair, host: 'a' | 'b'): string[] {
  try {
    return readdirSync(join(agentPaths(pair.lab, host).stateDir, 'evidence'))
  } catch {
    return []
  }
}

row(
  'row 44: an old primary that returns with writes nobody acknowledged keeps them as evidence and follows',
  async ({ pair, primary, backup, t }) => {
    const had = evidenceOf(pair, primary)
    // A commit that had been sent before waits too, for an answer that is not read: the backup has it, and nothing diverges.
    // Of eight connections that wait within some milliseconds, more than one or two are later than that.
    const database = openHost(pair.lab, primary)
    t.after(() => dropClient(database))
    const waiting = async (): Promise<number> => {
      const [row] = await database`
        select count(*) as commits from pg_stat_activity, pg_stat_replication
        where wait_event = 'SyncRep' and pg_current_wal_flush_lsn() > sent_lsn`
      return Number(row?.commits)
    }
    await waiting()
    const { agent } = await pair.present(primary)
    const isSuccessor = async (): Promise<boolean> => (await pair.present(primary)).successor
    for (let tries = 0; ; tries += 1) {
      assert.ok(tries < TRIES_MAX, 'the stalled backup was dropped each time before the power was cut')
      // What is written from here on reaches the primary's log alone, and nobody is told that it is there.
      signal(databaseProcess(hostProcesses(pair.lab, primary, 'postgres'), 'walsender'), 'SIGSTOP')
      const end = nowMs() + TAKEOVER_BOUND_MS
      let commits = await waiting()
      for (; commits <= 3 && nowMs() < end && (await isSuccessor()); commits = await waiting()) await sleep(1)
      // A cut takes its time on a busy machine, and the backup must not be dropped meanwhile.
      if (commits > 3 && (await isSuccessor()) && signal([agent.pid], 'SIGSTOP').length === 1) break
      // A backup that stalls is dropped in less than half a second, and nobody can take over then: not quick enough.
      await pair.inject({ kind: 'continue', host: primary })
      await untilProtected(pair.lab)
    }
    await pair.inject({ kind: 'power', host: primary })
    await untilServing(pair.lab, backup)
    await pair.untilWritten(TAKEOVER_BOUND_MS)
    await pair.inject({ kind: 'power-on', host: primary })
    await pair.untilStatus(primary, { limitMs: 60_000, words: 'follows' }, status => status.replication.streaming)
    const added = evidenceOf(pair, primary).filter(name => !had.includes(name))
    assert.equal(added.length, 1, `evidence bundles: ${added.join(', ')}`)
    const file = join(agentPaths(pair.lab, primary).stateDir, 'evidence', added[0]!, 'evidence.json')
    const evidence = JSON.parse(readFileSync(file, 'utf8')) as { tailBytes: number; transactions: unknown[] }
    assert.ok(evidence.tailBytes > 0 && evidence.transactions.length > 0, JSON.stringify(evidence))
  },
)

row(
  'row 11: without the witness nobody takes over from a dead primary by itself, and an operator may force it',
  async ({ pair, primary, backup }) => {
    await pair.inject({ kind: 'witness-down' })
    await pair.inject({ kind: 'power', host: primary })
    await sleep(4_000)
    const waiting = await pair.present(backup)
    assert.deepEqual([waiting.serving, waiting.primary], [false, primary])
    assert.notEqual((await understudyOn(pair, backup, ['check'])).exitCode, 0)
    const forced = await understudyOn(pair, backup, ['takeover', '--force', '--yes'])
    assert.equal(forced.exitCode, 0, forced.output)
    assert.match(forced.output, /may be lost/)
    await pair.untilWritten(TAKEOVER_BOUND_MS)
    // The old side finds the higher generation and touches nothing of its own until somebody says so.
    await pair.trial.heal()
    const refusing = await pair.untilStatus(
      primary,
      { limitMs: BOOT_BOUND_MS, words: 'knows the new generation' },
      status => status.gen > waiting.gen,
    )
    await sleep(2_000)
    assert.equal((await pair.present(primary)).replication.streaming, false)
    await ask(pair.lab, primary, 'giveUp', { gen: refusing.gen })
  },
)

row(
  'row 46: a new primary that dies before its promotion resumes when it is back, and the old one waits',
  async ({ pair, primary, backup }) => {
    const { epoch } = await pair.present(primary)
    // It cannot finish its promotion.
    const startup = databaseProcess(hostProcesses(pair.lab, backup, 'postgres'), 'startup')
    assert.equal(signal(startup, 'SIGSTOP').length, 1)
    await pair.inject({ kind: 'power', host: primary })
    await pair.untilStatus(
      backup,
      { limitMs: TAKEOVER_BOUND_MS, words: 'is named' },
      ({ primary: named }) => named === backup,
    )
    await pair.inject({ kind: 'power', host: backup })
    await pair.inject({ kind: 'power-on', host: primary })
    const waiting = await pair.untilStatus(
      primary,
      { limitMs: BOOT_BOUND_MS, words: 'learns of the takeover' },
      status => status.primary === backup,
    )
    assert.deepEqual([waiting.serving, waiting.epoch], [false, epoch + 1])
    await sleep(2_000)
    assert.equal((await pair.present(primary)).serving, false)
    await pair.inject({ kind: 'power-on', host: backup })
    const resumed = await pair.untilServing(backup, BOOT_BOUND_MS)
    assert.equal(resumed.epoch, epoch + 1)
  },
)

row(
  'row 47: a primary that dies before it learns of its own drop of the backup leaves a register that is obeyed',
  async ({ pair, primary, backup, t }) => {
    const fromId = pair.newestDecision(backup)
    // The witness hears the primary for long enough to accept the drop, and its answer gets lost.
    await pair.inject({ kind: 'cut', from: primary, to: backup, oneWay: false })
    const cutMs = nowMs()
    await sleep(210)
    await pair.inject({ kind: 'cut', from: 'w', to: primary, oneWay: true })
    await sleep(Math.max(0, cutMs + 700 - nowMs()))
    await pair.inject({ kind: 'power', host: primary })
    await sleep(4_000)
    const status = await pair.present(backup)
    if (status.serving) {
      t.diagnostic('the drop did not reach the witness: the backup took over')
      return
    }
    t.diagnostic('the witness had accepted the drop: the backup refused')
    assert.equal(status.primary, primary)
    assert.match(
      pair
        .decisions(backup, fromId)
        .map(decision => decision.why)
        .join('\n'),
      /did not takeover|names no successor/,
    )
    assert.equal((await understudyOn(pair, backup, ['check'])).exitCode, 6)
    await pair.trial.heal()
    await pair.untilServing(primary, BOOT_BOUND_MS)
    await until(BOOT_BOUND_MS, 'No write', async () => (pair.acknowledgedWithin(nowMs() - 500) > 0 ? true : null))
  },
)
