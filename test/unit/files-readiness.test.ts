import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ReportedTree } from '../../node-agent/files/core-side.ts'
import { FilesReadiness } from '../../node-agent/files/readiness.ts'
import { treeSchema } from '../../node-agent/files/settings.ts'
import type { WorkerState } from '../../node-agent/workers/supervisor.ts'
import { newDurable } from '../../shared/protocol/durable.ts'
import { suspendedWhy } from '../../shared/protocol/primary-conditions.ts'
import { newHost } from '../../shared/protocol/state.ts'
import { statusOf } from '../../shared/protocol/status.ts'
import { timingOf } from '../../shared/protocol/timing.ts'

/** A primary with a tree, its worker's word, and what the core is told. */
class Bench {
  readonly told: number[] = []
  readonly notes: string[] = []
  readonly readiness: FilesReadiness
  readonly state = newHost({ node: 'a', timing: timingOf('default') })
  now = 1000
  #report: unknown = null

  constructor(policy: 'async' | 'required') {
    this.setSuccessor('is')
    this.readiness = new FilesReadiness({
      trees: [treeSchema.parse({ name: 'data', path: '/srv/data', policy, lagLimitS: 10 })],
      operator: command => {
        assert.ok(command.command === 'maintenance')
        this.told.push(command.until)
        this.state.duty = { ...this.state.duty, maintenanceUntil: command.until }
        return Promise.resolve({ command: 'maintenance', ok: true, why: 'done' })
      },
      alarm: () => {},
      note: why => this.notes.push(why),
    })
  }

  setSuccessor(backup: 'is' | 'is not', primary: 'a' | 'b' = 'a'): void {
    const voters = { a: 'inc-a', b: 'inc-b', w: 'inc-w' }
    const value = { gen: 1, version: 3, epoch: 1, primary, successor: backup === 'is', voters }
    const accepted = { ballot: 3, value }
    this.state.durable = { ...newDurable('inc-a'), acc: accepted, known: accepted }
  }

  /** For so many seconds the worker reports this each second; null: it has been silent since the last one. */
  run(seconds: number, tree: Partial<ReportedTree> | null): void {
    for (let second = 0; second < seconds; second += 1) {
      this.now += 1000
      const reported = { tree: 'data', role: 'primary', policy: 'required', lagLimitS: 10, state: 'in sync', ...tree }
      if (tree !== null) this.#report = { trees: [reported] }
      const workers = { state: () => [{ name: 'files', report: this.#report } as WorkerState] }
      this.readiness.tick(this.now, { state: this.state, workers })
    }
  }

  get isSuspended(): boolean {
    return (this.told.at(-1) ?? 0) > this.now
  }
}

test('a required tree beyond its limit suspends automatic takeover, until it was in sync for a while', () => {
  const bench = new Bench('required')
  bench.run(3, { state: 'behind', behindS: 9 })
  assert.deepEqual(bench.told, [])
  bench.run(1, { state: 'behind', behindS: 11 })
  assert.ok(bench.isSuspended)
  assert.match(bench.readiness.why, /files of data are required on the backup and are behind by 11 s \(limit 10 s\)/)
  bench.run(4, {})
  assert.ok(bench.isSuspended, 'one good look is not enough')
  bench.run(2, {})
  assert.deepEqual(bench.told.at(-1), 0)
  assert.equal(bench.readiness.why, '')
})

test('whatever else a required tree is than current keeps the backup from counting: no backup, a seed, a divergence', () => {
  for (const state of ['no backup', 'seeding', 'diverged']) {
    const bench = new Bench('required')
    bench.run(1, { state, behindS: 0 })
    assert.ok(bench.isSuspended, state)
  }
})

test('a tree with the policy async never suspends anything', () => {
  const bench = new Bench('async')
  bench.run(30, { policy: 'async', state: 'no backup', behindS: 1000 })
  bench.run(30, null)
  assert.deepEqual(bench.told, [])
})

test('a worker that is silent for longer than the limit counts as behind; a backup that is not eligible waits for its word', () => {
  const hung = new Bench('required')
  hung.run(5, {})
  hung.run(10, null)
  assert.equal(hung.isSuspended, false)
  hung.run(2, null)
  assert.ok(hung.isSuspended)
  assert.match(hung.readiness.why, /nothing was heard of them for 1\d s \(limit 10 s\)/)
  const started = new Bench('required')
  started.setSuccessor('is not')
  started.run(1, null)
  assert.ok(started.isSuspended)
})

test('the operator’s maintenance outlasts a lag, and a lag the operator’s maintenance', async () => {
  const bench = new Bench('required')
  await bench.readiness.maintenance(bench.now + 60_000, bench.now)
  const operatorUntil = bench.told.at(-1)!
  bench.run(1, { state: 'behind', behindS: 11 })
  bench.run(7, {})
  assert.equal(bench.told.at(-1), operatorUntil, 'the operator’s time is not over')
  bench.run(1, { state: 'behind', behindS: 11 })
  await bench.readiness.maintenance(0, bench.now)
  assert.ok(bench.isSuspended, 'files still have their say')
})

test('a host that is no longer primary lets go at once: the new one judges by its own trees', () => {
  const bench = new Bench('required')
  bench.run(1, { state: 'no backup' })
  assert.ok(bench.isSuspended)
  bench.setSuccessor('is not', 'b')
  bench.run(1, { role: 'backup', state: 'receiving' })
  assert.equal(bench.told.at(-1), 0)
})

test('status tells the files’ reason instead of a maintenance that nobody asked for', async () => {
  const bench = new Bench('required')
  bench.run(1, { state: 'behind', behindS: 11 })
  const status = {
    ...statusOf(bench.state, bench.now),
    protection: 'serving but unprotected' as const,
    why: suspendedWhy,
    maintenance: true,
  }
  const seen = bench.readiness.explain(status, bench.now)
  assert.match(seen.why, /required on the backup/)
  assert.equal(seen.maintenance, false)
  await bench.readiness.maintenance(bench.now + 60_000, bench.now)
  assert.equal(bench.readiness.explain(status, bench.now).why, suspendedWhy)
})
