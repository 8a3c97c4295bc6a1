/** Rows of the fault matrix in which the database dies, hangs or is told to lie, and in which a second agent turns up. */

import assert from 'node:assert/strict'
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { HostName } from '../../infra/lab/addresses.ts'
import { dropClient } from '../../infra/lab/database-client.ts'
import { hostPaths, runOnHost } from '../../infra/lab/hosts.ts'
import { openHost, until, untilProtected } from '../../infra/lab/pair.ts'
import { databaseProcess, hostProcesses, signal } from '../../infra/lab/processes.ts'
import { agentPaths, askAgent, understudyCommand } from '../../infra/lab/product.ts'
import { WRITER_NAME } from '../../infra/lab/write-log.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { type Pair, pairUnderLoad, type Row } from './support.ts'

const { row } = pairUnderLoad('db')

const TAKEOVER_BOUND_MS = 6_000
/** Node starts, on a busy machine. */
const SERVICE_LIMIT_MS = 15_000
/** The default of a service's configuration. */
const RESTART_BUDGET = 3
/** Between two looks for commits that wait: they wait for less than the stall limit. */
const LOOK_EVERY_MS = 20

async function expectHandOff({ pair, primary, backup }: Row, what: string, act: () => Promise<unknown>): Promise<void> {
  const { epoch } = await pair.present(primary)
  const step = await pair.trial.measure(what, async () => {
    await act()
    await pair.untilServing(backup)
  })
  assert.equal((await pair.present(backup)).epoch, epoch + 1)
  assert.ok(step.outage.gapMs < TAKEOVER_BOUND_MS, `writes stood still for ${step.outage.gapMs} ms`)
}

/** Restarts of the web service that its host counts, once it runs. */
async function webRuns(pair: Pair, host: HostName): Promise<number | null> {
  const answer = (await askAgent(pair.lab, host, 'status')) as {
    result?: { services: { state: string; restarts: number }[] }
  } | null
  const web = answer?.result?.services[0]
  return web?.state === 'running' ? web.restarts : null
}

row(
  'a protected service that dies is started again, and when it goes on dying the backup takes over',
  async ({ pair, primary, backup }) => {
    const before = await until(SERVICE_LIMIT_MS, 'The service does not run', () => webRuns(pair, primary))
    for (let death = 1; death <= RESTART_BUDGET; death += 1) {
      await pair.inject({ kind: 'kill', host: primary, what: 'service' })
      await until(SERVICE_LIMIT_MS, 'The service was not started again', async () =>
        (await webRuns(pair, primary)) === before + death ? true : null,
      )
    }
    assert.equal((await pair.present(primary)).serving, true)
    await pair.inject({ kind: 'kill', host: primary, what: 'service' })
    await pair.untilServing(backup)
    await until(SERVICE_LIMIT_MS, 'The service does not run on the new primary', () => webRuns(pair, backup))
    assert.match((await pair.present(primary)).alarms.join('\n'), /service web failed .* used up its 3 restarts/)
  },
)

row('row 1: when the postmaster of the primary is killed the backup takes over at once', row =>
  expectHandOff(row, 'postmaster killed', () =>
    row.pair.inject({ kind: 'kill', host: row.primary, what: 'postmaster' }),
  ),
)

row(
  'row 2: when one backend of the primary crashes the backup takes over, and nothing unacknowledged becomes visible and vanishes',
  row =>
    expectHandOff(row, 'backend crashed', async () => {
      const backends = databaseProcess(hostProcesses(row.pair.lab, row.primary, 'postgres'), 'client backend')
      // One that has just ended, as short sessions do, is no longer there to crash.
      assert.ok(backends.some(pid => signal([pid], 'SIGSEGV').length === 1))
    }),
)

row('row 6: a database that hangs is handed over and killed, and never continued into service', async row => {
  const { pair, primary } = row
  const stopped = hostProcesses(pair.lab, primary, 'postgres')
  await expectHandOff(row, 'database frozen', () => pair.inject({ kind: 'freeze', host: primary, what: 'postgres' }))
  await until(TAKEOVER_BOUND_MS, 'Processes of the database that hung are left', async () =>
    hostProcesses(pair.lab, primary, 'postgres').some(pid => stopped.includes(pid)) ? null : true,
  )
})

row(
  'row 48: a commit whose wait for the backup is cancelled is warned of, counted, and never taken for acknowledged',
  async ({ pair, primary, backup, t }) => {
    const before = await cancelledWaits(pair, primary)
    const fromId = pair.writes().length
    const database = openHost(pair.lab, primary)
    t.after(() => dropClient(database))
    // Of the writer, which tells what it was warned of; the observer writes as well.
    const cancel = async (): Promise<number> => {
      const [row] = await database`
        select count(pg_cancel_backend(pid)) as waiting from pg_stat_activity
        where wait_event = 'SyncRep' and application_name = ${WRITER_NAME}`
      return Number(row?.waiting)
    }
    await database`select 1`
    let cancelled = 0
    // Commits wait until the stalled backup is dropped; a busy machine may come too late for that.
    for (let tries = 0; tries < 5 && cancelled === 0; tries += 1) {
      await untilProtected(pair.lab)
      signal(databaseProcess(hostProcesses(pair.lab, backup, 'postgres'), 'walreceiver'), 'SIGSTOP')
      for (let look = 0; look < 15 && cancelled === 0; look += 1) {
        await sleep(LOOK_EVERY_MS)
        cancelled = await cancel()
      }
      await pair.inject({ kind: 'continue', host: backup })
    }
    assert.ok(cancelled > 0, 'no commit waited for the backup')
    await pair.untilWritten(TAKEOVER_BOUND_MS)
    const localOnly = pair
      .writes()
      .slice(fromId)
      .filter(event => event.kind === 'error' && event.code === 'LOCAL_ONLY')
    assert.ok(localOnly.length > 0, 'no client was warned')
    // It looks into the log of its database each second.
    await until(TAKEOVER_BOUND_MS, `Not all of ${localOnly.length} are counted`, async () =>
      (await cancelledWaits(pair, primary)) - before >= localOnly.length ? true : null,
    )
  },
  { stays: true },
)

async function cancelledWaits(pair: Pair, host: HostName): Promise<number> {
  const answer = (await askAgent(pair.lab, host, 'metrics')) as { result?: string } | null
  const line = answer?.result?.split('\n').find(text => /^understudy_\w*cancel\w* /.test(text.replace(/\{[^}]*\}/, '')))
  assert.ok(line !== undefined, `no metric of cancelled waits: ${answer?.result}`)
  return Number(line.slice(line.lastIndexOf(' ') + 1))
}

row(
  'row 36: a second agent on a host, and one with the name of the other host, refuse and change nothing',
  async ({ pair, primary }) => {
    const before = await pair.present(primary)
    for (const host of [primary, otherNode(primary)]) {
      const second = await startAgentOn(pair, host, agentPaths(pair.lab, host).config)
      assert.notEqual(second.exitCode, 0)
      assert.match(second.output, /another|already|holds|lock/i)
      const impostor = await startAgentOn(pair, host, impostorConfig(pair, host))
      assert.notEqual(impostor.exitCode, 0, impostor.output)
    }
    const after = await pair.present(primary)
    assert.deepEqual([after.epoch, after.serving], [before.epoch, true])
  },
  { stays: true },
)

/** Starts an agent in the foreground; one that does not end by itself soon is ended, with exit code 124. */
async function startAgentOn(pair: Pair, host: HostName, config: string): Promise<{ exitCode: number; output: string }> {
  const command = ['timeout', '-k', '1', '30', ...understudyCommand(['agent', '--config', config])]
  const printed = await runOnHost(pair.lab, host, ['sh', '-c', '"$@" 2>&1; echo "exit code $?"', 'sh', ...command])
  const [, output = '', exitCode] = /^(.*)exit code (\d+)\n$/s.exec(printed) ?? []
  assert.notEqual(exitCode, '124', `the second agent ran: ${output}`)
  return { exitCode: Number(exitCode), output }
}

/** The other host's configuration, copied over with its keys, as an administrator in a hurry might. */
function impostorConfig(pair: Pair, host: HostName): string {
  const { diskDir, runDir } = hostPaths(pair.lab, host)
  const other = agentPaths(pair.lab, otherNode(host))
  const stateDir = join(diskDir, 'copied-state')
  rmSync(stateDir, { recursive: true, force: true })
  cpSync(other.stateDir, stateDir, { recursive: true, filter: source => !/\.(sock|tmp)$/.test(source) })
  const text = readFileSync(other.config, 'utf8')
    .replaceAll(other.stateDir, stateDir)
    .replaceAll(other.socket, join(runDir, 'copied.sock'))
  const file = join(diskDir, 'copied.json')
  writeFileSync(file, text)
  return file
}
