/**
 * Rows of the fault matrix in which the witness is away, for which one has to wait: the pin delay is half a minute. So
 * there are two labs side by side, with a as primary in one and b in the other, and each test plays in both at once.
 */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { HOSTS, type HostName, otherOf } from '../../infra/lab/addresses.ts'
import { nowMs } from '../../infra/lab/database-client.ts'
import { down, up } from '../../infra/lab/lab.ts'
import { Trial } from '../../infra/lab/trial.ts'
import { Pair, runBundle, settle, stateOf } from './support.ts'

/** A probe of the witness each ten seconds, three for it to count as unanswered, and a busy machine. */
const NOTICE_BOUND_MS = 25_000
/** The same and the pin delay of 30 s. */
const PIN_BOUND_MS = 60_000
const UNPIN_BOUND_MS = 60_000
const TAKEOVER_BOUND_MS = 6_000

const labName = (primary: HostName): string => `t-wit-${primary}-${process.pid}`.slice(0, 16)
const pairs: { [host in HostName]?: Pair } = {}

before(async () => {
  await runBundle()
  for (const primary of HOSTS) {
    const lab = labName(primary)
    await up({ name: lab })
    // Two labs share this machine: a light load is enough to notice each interruption.
    const pair = new Pair(lab, await Trial.begin(lab, { writer: { connections: 2, intervalMs: 40 } }))
    await pair.makePrimary(primary)
    pairs[primary] = pair
  }
})
after(async () => {
  for (const primary of HOSTS) await down(labName(primary))
})

interface Play {
  pair: Pair
  primary: HostName
  backup: HostName
}

/** Plays in both labs at once, then settles both. */
function inBoth(name: string, play: (play: Play) => Promise<void>): void {
  test(`${name}; with either host as primary`, async t => {
    await Promise.all(
      HOSTS.map(async primary => {
        const pair = pairs[primary]
        assert.ok(pair !== undefined, 'the lab is up')
        try {
          await play({ pair, primary, backup: otherOf(primary) })
          await settle(pair)
        } catch (error) {
          t.diagnostic(await stateOf(pair))
          throw error
        }
      }),
    )
  })
}

/** Until the primary says that it is unprotected because of the witness; the register must not have moved. */
async function untilNoticed({ pair, primary }: Play, version: number): Promise<void> {
  const status = await pair.untilStatus(
    primary,
    { limitMs: NOTICE_BOUND_MS, words: 'misses the witness' },
    ({ protection, why }) => protection === 'serving but unprotected' && why.includes('witness'),
  )
  assert.deepEqual([status.version, status.serving, status.successor], [version, true, true])
}

inBoth(
  'row 15: a witness that one host alone does not reach changes nothing, and a takeover is said to be impossible',
  async play => {
    const { pair, primary, backup } = play
    const { version } = await pair.present(primary)
    const fromMs = nowMs()
    for (const from of [primary, backup]) {
      await pair.inject({ kind: 'cut', from, to: 'w', oneWay: false })
      await untilNoticed(play, version)
      await pair.trial.heal()
      await pair.untilStatus(
        primary,
        { limitMs: NOTICE_BOUND_MS, words: 'reaches the witness again' },
        ({ protection }) => protection === 'protected',
      )
    }
    assert.equal((await pair.present(primary)).version, version)
    assert.ok(pair.acknowledgedWithin(fromMs) > 0)
  },
)

inBoth('row 12: a witness that answers late, and one that comes and goes, change nothing', async play => {
  const { pair, primary } = play
  const { epoch } = await pair.present(primary)
  const fromId = pair.newestDecision(primary)
  const step = await pair.trial.measure('slow and flapping witness', async () => {
    await pair.inject({ kind: 'witness-slow', delayMs: 800 })
    await sleep(4_000)
    await pair.trial.heal()
    for (let flap = 0; flap < 3; flap += 1) {
      await pair.inject({ kind: 'witness-down' })
      await sleep(700)
      await pair.inject({ kind: 'witness-up' })
      await sleep(700)
    }
  })
  const status = await pair.present(primary)
  assert.deepEqual([status.epoch, status.serving], [epoch, true])
  // Not the version: on a starved machine a silent backup may be dropped and taken back, which is no matter of the witness.
  const pins = pair.decisions(primary, fromId).filter(({ why }) => why.includes('(witness away)'))
  assert.deepEqual(pins, [])
  assert.ok(step.outage.gapMs < TAKEOVER_BOUND_MS, `writes stood still for ${step.outage.gapMs} ms`)
})

inBoth(
  'rows 12 and 10: a witness away for both beyond the pin delay pins the primary, which then survives its backup, and the pin is undone',
  async play => {
    const { pair, primary, backup } = play
    const { epoch } = await pair.present(primary)
    await pair.inject({ kind: 'witness-down' })
    const pinned = await pair.untilStatus(
      primary,
      { limitMs: PIN_BOUND_MS, words: 'is pinned' },
      ({ successor, serving, why }) => !successor && serving && why.includes('witness'),
    )
    assert.deepEqual([pinned.epoch, pinned.protection], [epoch, 'serving but unprotected'])
    await pair.inject({ kind: 'power', host: backup })
    await sleep(1_500)
    const fromMs = nowMs()
    await pair.untilWritten(TAKEOVER_BOUND_MS)
    await sleep(2_000)
    const alone = await pair.present(primary)
    assert.deepEqual([alone.serving, alone.epoch], [true, epoch])
    assert.ok(pair.acknowledgedWithin(fromMs) > 0)
    await pair.trial.heal()
    await pair.untilStatus(
      primary,
      { limitMs: UNPIN_BOUND_MS, words: 'is protected again' },
      ({ protection }) => protection === 'protected',
    )
  },
)
