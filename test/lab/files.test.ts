/**
 * A service that keeps its data in files, beside a real database: what a planned switchover, a power cut and the return
 * of the old primary leave of the tree (row 54).
 */

import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { HostName } from '../../infra/lab/addresses.ts'
import { hostPaths } from '../../infra/lab/hosts.ts'
import { switchOver, untilProtected } from '../../infra/lab/pair.ts'
import { hostProcesses, signal } from '../../infra/lab/processes.ts'
import { agentPaths, agentStatus } from '../../infra/lab/product.ts'
import { until } from '../fixtures/until.ts'
import { type Pair, pairUnderLoad, understudyOn } from './support.ts'

const { row } = pairUnderLoad('files', { services: ['files'] })

const SETTLE_BOUND_MS = 60_000

/** What the service has written and this host has, by the name without the dot of a file that is being written. */
function written(pair: Pair, host: HostName): Map<string, string> {
  const folder = join(agentPaths(pair.lab, host).tree, 'written')
  const names = existsSync(folder) ? readdirSync(folder).filter(name => !name.startsWith('.')) : []
  return new Map(names.map(name => [name, readFileSync(join(folder, name), 'utf8')]))
}

const missing = (from: Map<string, string>, to: Map<string, string>): string[] =>
  [...from].filter(([name, text]) => to.get(name) !== text).map(([name]) => name)

async function barrier(pair: Pair, host: HostName): Promise<void> {
  const { exitCode, output } = await understudyOn(pair, host, ['sync', 'wait', '--limit', '30'])
  assert.equal(exitCode, 0, output)
}

/** Names of versions in the conflict areas of all epochs. */
function conflicts(pair: Pair, host: HostName): string[] {
  const area = join(hostPaths(pair.lab, host).diskDir, '.tree.understudy-sync', 'conflicts')
  const epochs = existsSync(area) ? readdirSync(area) : []
  return epochs.flatMap(epoch => {
    const manifest = join(area, epoch, 'manifest.jsonl')
    const lines = existsSync(manifest) ? readFileSync(manifest, 'utf8').trim().split('\n') : []
    return lines.map(line => (JSON.parse(line) as { path: string }).path.replace('written/', ''))
  })
}

/** Stops, or lets go on, the files worker of a host. */
function signalWorker(pair: Pair, host: HostName, name: 'SIGSTOP' | 'SIGCONT'): void {
  const workers = hostProcesses(pair.lab, host, 'agent').filter(pid => {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
    return words.includes('worker') && words.includes('files')
  })
  assert.ok(workers.length > 0, 'the files worker runs')
  signal(workers, name)
}

/** The service writes here, which it does only when this host's tree is open. */
async function untilWrittenBy(pair: Pair, host: HostName): Promise<void> {
  const before = written(pair, host).size
  await until(() => written(pair, host).size > before, SETTLE_BOUND_MS)
}

/** The old primary's own versions are put aside, and it has what the new one has. */
async function untilBackupReceives(pair: Pair, host: HostName): Promise<void> {
  await until(async () => {
    const { output } = await understudyOn(pair, host, ['sync', 'status', '--json'])
    if (!output.startsWith('{')) return false
    const { trees } = JSON.parse(output) as { trees: { state: string; unresolved: unknown }[] }
    return trees[0]?.state === 'receiving' && trees[0].unresolved === null
  }, SETTLE_BOUND_MS)
}

row(
  'row 54: a planned switchover loses no file, not even what the service writes when it is stopped',
  async ({ pair, primary, backup }) => {
    await untilWrittenBy(pair, primary)
    await sleep(1000)
    const conflictsBefore = conflicts(pair, primary)
    await switchOver(pair.lab, primary)
    const left = written(pair, primary)
    assert.ok(
      [...left.keys()].some(name => name.startsWith(primary) && name.endsWith('-last')),
      'it had last words',
    )
    assert.deepEqual(missing(left, written(pair, backup)), [], 'files that the new primary lacks')
    await untilWrittenBy(pair, backup)
    await untilProtected(pair.lab, SETTLE_BOUND_MS)
    await barrier(pair, backup)
    assert.deepEqual(conflicts(pair, primary), conflictsBefore, 'a lossless switchover leaves no conflict')
  },
)

row(
  'row 54: after a power cut everything before a barrier is there, and what the old primary alone had is kept aside',
  async ({ pair, primary, backup }) => {
    await untilWrittenBy(pair, primary)
    const promised = written(pair, primary)
    await barrier(pair, primary)
    // From here on nothing of the tree reaches the backup, while the database still does.
    signalWorker(pair, primary, 'SIGSTOP')
    await untilWrittenBy(pair, primary)
    await sleep(500)
    await pair.inject({ kind: 'power', host: primary })
    await pair.untilServing(backup)
    const had = written(pair, primary)
    await untilWrittenBy(pair, backup)
    const taken = written(pair, backup)
    assert.deepEqual(missing(promised, taken), [], 'files that a barrier had promised')
    const own = missing(had, taken)
    assert.ok(own.length > 0, 'the old primary had files of its own')
    await pair.inject({ kind: 'power-on', host: primary })
    await untilProtected(pair.lab, SETTLE_BOUND_MS)
    await untilBackupReceives(pair, primary)
    await barrier(pair, backup)
    const kept = conflicts(pair, primary)
    assert.deepEqual(
      own.filter(name => !kept.includes(name)),
      [],
      'versions that are neither on the new primary nor in the conflict area',
    )
    const now = written(pair, backup)
    await barrier(pair, backup)
    assert.deepEqual(missing(now, written(pair, primary)), [], 'the returned host lacks files')
  },
)

row(
  'row 54: while required files are too far behind there is no automatic takeover, and there is one again afterwards',
  async ({ pair, primary }) => {
    const status = async () => (await agentStatus(pair.lab, primary)) ?? { protection: '', why: '', successor: null }
    await untilProtected(pair.lab, SETTLE_BOUND_MS)
    signalWorker(pair, primary, 'SIGSTOP')
    await until(async () => {
      const { successor, protection, why } = await status()
      const isTold = /files of data are required on the backup/.test(why)
      return successor === false && protection === 'serving but unprotected' && isTold
    }, SETTLE_BOUND_MS)
    signalWorker(pair, primary, 'SIGCONT')
    await untilProtected(pair.lab, SETTLE_BOUND_MS)
    await until(async () => (await status()).successor === true, SETTLE_BOUND_MS)
  },
)
