import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { startTicksOf, stillRuns } from '../../node-agent/process-identity.ts'
import { type WorkerDefinition, workerNice, workerOomScore } from '../../node-agent/workers/definition.ts'
import { type WorkerState, Workers } from '../../node-agent/workers/supervisor.ts'
import { until } from '../fixtures/until.ts'
import { withoutDescriptors } from '../fixtures/without-descriptors.ts'

const folder = await mkdtemp(join(tmpdir(), 'understudy-workers-'))
after(() => rm(folder, { recursive: true, force: true }))
const program = fileURLToPath(new URL('../fixtures/worker.ts', import.meta.url))

/** Ended also by a test that fails: a worker that runs on would keep this process alive. */
const made: Workers[] = []
after(() => Promise.all(made.map(workers => workers.stop())))

let folders = 0
function setUp(definition: Partial<WorkerDefinition> = {}, options: { runtimeDir?: string } = {}) {
  const notes: string[] = []
  const runtimeDir = options.runtimeDir ?? join(folder, String(++folders))
  const name = 'trial'
  const command = [process.execPath, '--disable-warning=ExperimentalWarning', program] as const
  const workers = new Workers({
    definitions: [{ name, command: [...command], memoryMb: 300, ...definition }],
    runtimeDir,
    note: why => notes.push(why),
    random: () => 0,
  })
  made.push(workers)
  const state = (): WorkerState => workers.state()[0]!
  const ask = (verb: string, body: unknown = null, limitMs = 5000) => workers.ask(name, { verb, body, limitMs })
  const running = (): Promise<void> => until(() => state().state === 'running')
  return { workers, notes, state, ask, running, runtimeDir }
}

test('a worker runs below the core, is told what was published before its start, and is seen with its report', async () => {
  const { workers, state, ask, running } = setUp({ answers: { echo: body => ({ core: body }) } })
  workers.publish('standing', { epoch: 1 })
  workers.publish('standing', { epoch: 2 })
  workers.start()
  await running()
  await until(() => JSON.stringify(state().report).includes('"epoch":2'))
  assert.ok(!JSON.stringify(state().report).includes('"epoch":1'), 'only the newest of a topic is told at a start')
  const threads = readFileSync(`/proc/${state().pid}/stat`, 'utf8')
  assert.equal(threads.slice(threads.lastIndexOf(')') + 2).split(' ')[16], String(workerNice))
  assert.equal(readFileSync(`/proc/${state().pid}/oom_score_adj`, 'utf8').trim(), String(workerOomScore))
  assert.deepEqual(await ask('echo', [1, 'a']), { ok: true, body: [1, 'a'] })
  assert.deepEqual(await ask('forward', 7), { ok: true, body: { ok: true, body: { core: 7 } } })
  assert.deepEqual(await ask('nonsense'), { ok: false, why: 'unknown verb nonsense' })
  await workers.stop()
  assert.equal(state().state, 'stopped')
})

test('a worker that dies is started again with what was published, and its children die with it', async () => {
  const { workers, notes, state, ask, running } = setUp()
  workers.start()
  await running()
  workers.publish('standing', { epoch: 5 })
  const child = await ask('child')
  assert.ok(child.ok && typeof child.body === 'number')
  const sleeper = { pid: child.body, startTicks: startTicksOf(child.body)! }
  assert.ok(stillRuns(sleeper))
  const first = state().pid
  assert.deepEqual(await ask('die'), { ok: false, why: 'the other side has gone' })
  await until(() => state().state === 'running' && state().pid !== first)
  await until(() => JSON.stringify(state().report).includes('"epoch":5'))
  assert.equal(state().restarts, 1)
  assert.match(notes.join(), /the worker trial died: it ended with code 3; it is started again in \d+ ms/)
  await until(() => !stillRuns(sleeper))
  await workers.stop()
})

test('a program that cannot be started is tried again and again, and asking it says why it does not run', async () => {
  const { workers, state, ask } = setUp({ command: ['/nowhere/worker'] })
  workers.start()
  await until(() => state().restarts >= 2)
  const answer = await ask('echo')
  assert.ok(!answer.ok)
  await until(() => state().state === 'waiting')
  assert.match(state().why, /could not be started: .*ENOENT/)
  await workers.stop()
})

test('a worker that takes too much memory is killed and started again', async () => {
  const { workers, state, ask, running } = setUp()
  workers.start()
  await running()
  await ask('hoard', 400, 20_000)
  await until(() => state().restarts === 1)
  await until(() => state().state === 'running')
  await workers.stop()
})

test('a worker that hangs is killed and started again, and the core says why', async () => {
  const { workers, state, ask, running, notes } = setUp({ hangLimitMs: 2000 })
  workers.start()
  await running()
  void ask('hang', null, 100)
  await until(() => notes.some(why => /died: it did not answer for \d+ s/.test(why)))
  await until(() => state().restarts >= 1 && state().state === 'running')
  await workers.stop()
})

test('a worker that floods the core waits in its own memory, and the core goes on turning', async t => {
  let heard = 0
  const { workers, ask, running, state } = setUp({ told: () => void heard++ })
  workers.start()
  await running()
  let longestMs = 0
  let last = process.cpuUsage()
  const timer = setInterval(() => {
    const { user, system } = process.cpuUsage(last)
    longestMs = Math.max(longestMs, (user + system) / 1000)
    last = process.cpuUsage()
  }, 10)
  t.after(() => clearInterval(timer))
  await ask('flood', 1500)
  await sleep(1500)
  await until(() => /"dropped":[1-9]/.test(JSON.stringify(state().report)))
  await until(() => heard > 100)
  // What is read in a turn takes a millisecond. By its processor time: how long it waited for one is the machine's.
  assert.ok(longestMs < 200, `the core's timer waited for ${longestMs} ms of its own work`)
  await workers.stop()
})

test('a worker that hangs does not delay the stop of the agent, and one left by a killed agent is ended by the next', async () => {
  const { workers, ask, running, state, runtimeDir } = setUp()
  workers.start()
  await running()
  const { pid } = state()
  assert.ok(pid !== null)
  const left = { pid, startTicks: startTicksOf(pid)! }
  process.kill(pid, 'SIGSTOP')
  assert.equal((await ask('echo', 1, 200)).ok, false)
  // The next agent's view: a record, and a process that does not move.
  const next = setUp({}, { runtimeDir })
  next.workers.start()
  await until(() => !stillRuns(left))
  await next.running()
  await ask('echo', 1, 200)
  await Promise.all([workers.stop(), next.workers.stop()])

  const hanging = setUp()
  hanging.workers.start()
  await hanging.running()
  void hanging.ask('hang', null, 100)
  await sleep(200)
  const before = performance.now()
  await hanging.workers.stop()
  assert.ok(performance.now() - before < 10_000)
  assert.ok(!existsSync(join(hanging.runtimeDir, 'workers', 'trial.json')))
})

test('a worker ends when its core is gone', async () => {
  const { workers, running, state } = setUp()
  workers.start()
  await running()
  const { pid } = state()
  assert.ok(pid !== null)
  const one = { pid, startTicks: startTicksOf(pid)! }
  await workers.stop()
  await until(() => !stillRuns(one))
})

test('a worker that dies while the agent has no descriptor left is started again once it has', async () => {
  const { workers, running, state } = setUp()
  workers.start()
  await running()
  await withoutDescriptors(async () => {
    process.kill(state().pid!, 'SIGKILL')
    await until(() => /could not be started: .*EMFILE/.test(state().why))
  })
  await running()
  await workers.stop()
})

test('a worker whose process can not be noted, as on a full disk, runs all the same, and the agent says so', async () => {
  const runtimeDir = join(folder, String(++folders))
  // A file where its folder is to be: refused as by a disk without room.
  await mkdir(runtimeDir)
  await writeFile(join(runtimeDir, 'workers'), '')
  const { workers, running, notes } = setUp({}, { runtimeDir })
  workers.start()
  await running()
  assert.match(notes.join(), /what the next agent would know the worker trial by could not be written: E/)
  await workers.stop()
})
