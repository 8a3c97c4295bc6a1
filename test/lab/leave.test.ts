/** A host leaves its pair in an orderly way, and joins it again. */

import assert from 'node:assert/strict'
import { runOnHost } from '../../infra/lab/hosts.ts'
import { queryHost, until } from '../../infra/lab/pair.ts'
import { hostProcesses } from '../../infra/lab/processes.ts'
import { agentPaths, understudyCommand } from '../../infra/lab/product.ts'
import { pairUnderLoad, type Row, understudyOn } from './support.ts'

const { row } = pairUnderLoad('leave')

const OUTAGE_BOUND_MS = 6_000
const LIMIT_MS = 20_000

/** `host` has left; `other` serves alone, by decision. Then it joins again, without a token and with its data. */
async function expectGoneAndBack({ pair }: Row, host: 'a' | 'b', other: 'a' | 'b'): Promise<void> {
  const alone = await pair.untilStatus(
    other,
    { limitMs: LIMIT_MS, words: 'serves alone' },
    ({ serving, successor }) => serving && !successor,
  )
  await pair.untilStatus(host, { limitMs: LIMIT_MS, words: 'is no member' }, ({ role }) => role === 'not a member')
  await until(LIMIT_MS, 'The database of the host that left was not ended', async () =>
    hostProcesses(pair.lab, host, 'postgres').length === 0 ? true : null,
  )
  await pair.inject({ kind: 'kill', host, what: 'agent' })
  const config = ['--config', agentPaths(pair.lab, host).config]
  const agent = ['sh', '-c', '"$@" 2>&1; echo "exit code $?"', 'sh', ...understudyCommand(['agent', ...config])]
  assert.match(await runOnHost(pair.lab, host, agent), /this host left pair .*`understudy pair join`.*exit code 9/s)
  const said = await pair.untilStatus(other, { limitMs: LIMIT_MS, words: 'says so' }, ({ why }) =>
    why.includes('no other host is a member'),
  )
  assert.equal(said.epoch, alone.epoch)
  await pair.untilWritten(OUTAGE_BOUND_MS)
  await until(LIMIT_MS, 'The slot of the host that left is still there', async () => {
    const slots = await queryHost(pair.lab, other, { sql: 'select count(*) from pg_replication_slots' })
    return slots.trim() === '0' ? true : null
  })
  await runOnHost(pair.lab, host, understudyCommand(['pair', 'join', ...config]))
  await pair.inject({ kind: 'start-agent', host })
}

row(
  'a backup that leaves is no member any more and costs no outage, and joins again with its data',
  async row => {
    const { pair, primary, backup } = row
    const step = await pair.trial.measure('the backup leaves', async () => {
      const left = await understudyOn(pair, backup, ['pair', 'leave'])
      assert.equal(left.exitCode, 0, left.output)
      assert.match(left.output, /is no member of pair .* any more; . goes on alone/)
    })
    assert.ok(step.outage.gapMs < OUTAGE_BOUND_MS, `writes stood still for ${step.outage.gapMs} ms`)
    await expectGoneAndBack(row, backup, primary)
  },
  { stays: true },
)

row('a primary that leaves hands over first', async row => {
  const { pair, primary, backup } = row
  const step = await pair.trial.measure('the primary leaves', async () => {
    const left = await understudyOn(pair, primary, ['pair', 'leave'])
    assert.equal(left.exitCode, 0, left.output)
  })
  assert.ok(step.outage.gapMs < OUTAGE_BOUND_MS, `writes stood still for ${step.outage.gapMs} ms`)
  await expectGoneAndBack(row, primary, backup)
})
