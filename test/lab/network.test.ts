/** Rows of the fault matrix in which the network between the hosts, the witness and the clients fails. */

import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { addressOf, type HostName, namespaceName, portName } from '../../infra/lab/addresses.ts'
import { nowMs } from '../../infra/lab/database-client.ts'
import { run } from '../../infra/lab/exec.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { openProbe } from './probes.ts'
import { type Pair, pairUnderLoad } from './support.ts'

const { row } = pairUnderLoad('net')

const TAKEOVER_BOUND_MS = 6_000
/** Five leases and a takeover: the cut that the primary cannot hear through. */
const ABDICATION_BOUND_MS = 12_000
/** A repetition that comes at twice the length of the freeze, on a busy machine. */
const THAW_BOUND_MS = 20_000

/** The primary serves in the reign it had, and the other host does not, for some time. */
async function expectStays(pair: Pair, primary: HostName, options: { epoch: number; forMs: number }): Promise<void> {
  const until = nowMs() + options.forMs
  while (nowMs() < until) {
    const [status, other] = [await pair.present(primary), await pair.present(otherNode(primary))]
    assert.deepEqual([status.serving, status.epoch, other.serving], [true, options.epoch, false])
    await sleep(100)
  }
}

row(
  'row 13: when the hosts are cut from each other and both see the witness, the primary keeps its place and the backup refuses',
  async ({ pair, primary, backup }) => {
    const { epoch } = await pair.present(primary)
    const step = await pair.trial.measure('cut between the hosts', async () => {
      await pair.inject({ kind: 'cut', from: primary, to: backup, oneWay: false })
      await pair.untilStatus(
        primary,
        { limitMs: TAKEOVER_BOUND_MS, words: 'has dropped the backup' },
        status => !status.successor && status.serving,
      )
      await expectStays(pair, primary, { epoch, forMs: 3_000 })
    })
    assert.ok(step.outage.gapMs < TAKEOVER_BOUND_MS, `writes stood still for ${step.outage.gapMs} ms`)
  },
  { stays: true },
)

row(
  'row 14: when one direction between the hosts is cut the primary goes on alone',
  async ({ pair, primary, backup }) => {
    const { epoch } = await pair.present(primary)
    for (const from of [primary, backup]) {
      await pair.inject({ kind: 'cut', from, to: otherNode(from), oneWay: true })
      await pair.untilStatus(
        primary,
        { limitMs: TAKEOVER_BOUND_MS, words: 'has dropped the backup' },
        status => !status.successor && status.serving,
      )
      await expectStays(pair, primary, { epoch, forMs: 1_500 })
      await pair.trial.heal()
      await pair.untilStatus(
        primary,
        { limitMs: 30_000, words: 'is protected again' },
        status => status.protection === 'protected',
      )
    }
  },
  { stays: true },
)

row(
  'row 14: a primary that hears nobody falls silent, and the backup takes over',
  async ({ pair, primary, backup }) => {
    const step = await pair.trial.measure('deaf primary', async () => {
      await pair.inject({ kind: 'deaf', member: primary })
      await pair.untilServing(backup, ABDICATION_BOUND_MS)
    })
    assert.ok(step.outage.gapMs < ABDICATION_BOUND_MS, `writes stood still for ${step.outage.gapMs} ms`)
  },
)

row(
  'row 16: a primary cut from the backup and the witness freezes, and the backup takes over',
  async ({ pair, primary, backup }) => {
    const step = await pair.trial.measure('ring cut', async () => {
      await pair.inject({ kind: 'cut', from: primary, to: 'w', oneWay: false })
      await pair.inject({ kind: 'cut', from: primary, to: backup, oneWay: false })
      await pair.untilServing(backup)
    })
    assert.ok(step.outage.gapMs < TAKEOVER_BOUND_MS, `writes stood still for ${step.outage.gapMs} ms`)
    // Its clients still reach it, and it knows nothing of the takeover: it has to be its own judge.
    assert.equal((await pair.present(primary)).serving, false)
  },
)

row('row 16: an isolated primary is replaced and rejoins by itself', async ({ pair, primary, backup }) => {
  const step = await pair.trial.measure('isolated primary', async () => {
    await pair.inject({ kind: 'isolate', member: primary })
    await pair.untilServing(backup)
  })
  assert.ok(step.outage.gapMs < TAKEOVER_BOUND_MS, `writes stood still for ${step.outage.gapMs} ms`)
})

row(
  'row 19: when the direct link between the hosts dies the pair goes on over the other one, and says which path is silent',
  async ({ pair, primary, backup }) => {
    const { epoch } = await pair.present(primary)
    await pair.inject({ kind: 'cut', from: primary, to: backup, oneWay: false, link: 'peer' })
    for (const host of [primary, backup]) {
      await pair.untilStatus(host, { limitMs: THAW_BOUND_MS, words: 'names the path' }, ({ alarms }) =>
        alarms.some(one =>
          one.includes(`${addressOf(host, 'peer').v4} to ${addressOf(otherNode(host), 'peer').v4} is silent`),
        ),
      )
    }
    await expectStays(pair, primary, { epoch, forMs: 500 })
    await pair.trial.heal()
    await pair.untilStatus(primary, { limitMs: THAW_BOUND_MS, words: 'takes that back' }, ({ alarms }) =>
      alarms.every(one => !one.includes('is silent')),
    )
  },
  { stays: true },
)

row(
  'row 17: a primary whose clients’ network is dead hands over to the backup, whose own is fine, and says why',
  async ({ pair, primary, backup }) => {
    const { epoch } = await pair.present(primary)
    const port = (state: 'up' | 'down') =>
      run('ip', ['-n', namespaceName(pair.lab, 'net'), 'link', 'set', portName(primary, 'lan'), state])
    const fromId = pair.newestDecision(primary)
    try {
      const step = await pair.trial.measure('cable out', async () => {
        await port('down')
        await pair.untilServing(backup)
      })
      assert.ok(step.outage.gapMs < TAKEOVER_BOUND_MS, `writes stood still for ${step.outage.gapMs} ms`)
      assert.equal((await pair.present(backup)).epoch, epoch + 1)
      const old = await pair.untilStatus(
        primary,
        { limitMs: TAKEOVER_BOUND_MS, words: 'says that its clients do not reach it' },
        ({ alarms }) => alarms.some(one => /clients do not reach this host: lan0 has no carrier/.test(one)),
      )
      assert.equal(old.serving, false)
    } finally {
      await port('up')
    }
    const said = pair.decisions(primary, fromId).map(({ why }) => why)
    assert.ok(
      said.some(why => why.startsWith('began a round to handover')),
      `it gave its place up by itself, and did not wait for its lease to end:\n${said.join('\n')}`,
    )
  },
)

row(
  'rows 10b and 40: when backup and witness go at once the primary freezes, and thaws when one of them is back, with its connections',
  async ({ pair, primary, backup }) => {
    const { epoch } = await pair.present(primary)
    const probe = await openProbe(pair.lab, 'ask')
    await pair.inject({ kind: 'witness-down' })
    await pair.inject({ kind: 'power', host: backup })
    await sleep(1_500)
    const frozenMs = nowMs()
    await sleep(2_500)
    const frozen = await pair.present(primary)
    assert.deepEqual([frozen.serving, frozen.protection], [false, 'not serving'])
    assert.equal(pair.acknowledgedWithin(frozenMs), 0, 'writes acknowledged by a frozen primary')
    // One time the witness is back first, one time the backup.
    await pair.inject(primary === 'a' ? { kind: 'witness-up' } : { kind: 'power-on', host: backup })
    const thawed = await pair.untilServing(primary)
    assert.equal(thawed.epoch, epoch)
    await pair.untilWritten(TAKEOVER_BOUND_MS)
    // Its kernel repeats what was dropped at growing distances, the last one as long as the freeze (RFC 6298, 5.5).
    await probe.untilAnswered(THAW_BOUND_MS)
    const report = await probe.end()
    assert.deepEqual([report.ended, report.backends.length], [null, 1], 'the connection survived the freeze')
    assert.ok(report.longestGapMs > 2_000, `the longest gap was ${report.longestGapMs} ms`)
  },
  { stays: true },
)

row(
  'row 21: with 5 % loss, 200 ± 50 ms of delay, reordering and duplicates between the hosts nobody changes roles',
  async ({ pair, primary, backup }) => {
    const { epoch } = await pair.present(primary)
    const link = { from: primary, to: backup }
    await pair.inject({ kind: 'loss', ...link, percent: 5 })
    await pair.inject({ kind: 'slow', ...link, delayMs: 200, jitterMs: 50, duplicatePercent: 1 })
    const fromId = pair.newestDecision(primary)
    await expectStays(pair, primary, { epoch, forMs: 15_000 })
    const shrinks = pair.decisions(primary, fromId).filter(({ why }) => why.startsWith('committed shrink'))
    assert.ok(shrinks.length <= 1, shrinks.map(({ why }) => why).join('\n'))
    // Beyond what it is made for it has to be safe, no more: settling looks.
    await pair.inject({ kind: 'loss', ...link, percent: 30 })
    await sleep(4_000)
  },
  { stays: true },
)
