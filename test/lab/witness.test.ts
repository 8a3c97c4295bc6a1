/**
 * Rows of the fault matrix in which the witness is away, for which one has to wait: the pin delay is half a minute. So
 * there are two labs side by side, with a as primary in one and b in the other, and each test plays in both at once.
 */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { addressOf, HOSTS, type HostName, WITNESS_PORT } from '../../infra/lab/addresses.ts'
import { nowMs } from '../../infra/lab/database-client.ts'
import { down, up } from '../../infra/lab/lab.ts'
import { type RunningWitness, startSecondWitness } from '../../infra/lab/pair.ts'
import { agentPaths } from '../../infra/lab/product.ts'
import { Trial } from '../../infra/lab/trial.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { Pair, runBundle, settle, stateOf, understudyOn } from './support.ts'

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
        const began = performance.now()
        const lap = (words: string): void =>
          t.diagnostic(`${primary}: ${words} after ${((performance.now() - began) / 1000).toFixed(1)} s`)
        try {
          await play({ pair, primary, backup: otherNode(primary) })
          lap('played')
          await settle(pair)
          lap('settled')
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

const seconds: { [host in HostName]?: RunningWitness } = {}
const configOf = ({ pair }: Play, host: HostName): string => agentPaths(pair.lab, host).config
const witnessIn = (play: Play, host: HostName): { url: string; fingerprint: string; inc: string } =>
  JSON.parse(readFileSync(configOf(play, host), 'utf8')).witness
const change = (play: Play, host: HostName, words: string[]) =>
  understudyOn(play.pair, host, ['change', ...words, '--config', configOf(play, host)])

/** On the backup first; each host is asked once. */
async function changeBoth(play: Play, words: string[]): Promise<void> {
  for (const host of [play.backup, play.primary]) {
    const done = await change(play, host, words)
    assert.equal(done.exitCode, 0, done.output)
  }
}

const untilProtectedBy = (play: Play, url: string) =>
  play.pair.untilStatus(
    play.primary,
    { limitMs: NOTICE_BOUND_MS, words: `is protected by ${url}` },
    ({ protection, witness }) => protection === 'protected' && witness?.url === url,
  )

inBoth('another witness is admitted by command while clients write; what is wrong is refused first', async play => {
  const { pair, primary } = play
  const before = HOSTS.map(host => readFileSync(configOf(play, host), 'utf8'))
  const { epoch } = await pair.present(primary)
  const second = await startSecondWitness(pair.lab)
  seconds[primary] = second
  const print = ['--fingerprint', second.fingerprint]
  const token = ['--enrolment-token-file', second.enrolmentTokenFile]
  const refusals: [string[], number, RegExp][] = [
    [['witness', '--url', second.url.replace('https', 'http'), ...print], 3, /witness\.url .* must be an https URL/],
    [['witness', '--url', second.url, ...print], 5, /enrolment token is missing or wrong.*nothing was changed/],
  ]
  for (const [words, code, why] of refusals) {
    const refused = await change(play, play.backup, words)
    assert.match(refused.output, why)
    assert.equal(refused.exitCode, code, refused.output)
  }
  assert.deepEqual(
    HOSTS.map(host => readFileSync(configOf(play, host), 'utf8')),
    before,
  )
  await changeBoth(play, ['witness', '--url', second.url, ...print, ...token])
  const status = await untilProtectedBy(play, second.url)
  assert.deepEqual([status.epoch, status.serving, status.witness?.isMember], [epoch, true, true])
  assert.equal(witnessIn(play, primary).inc, witnessIn(play, play.backup).inc)
})

inBoth(
  'an alternate takes the place of a witness that is away for long, and its vote brings the backup into office',
  async play => {
    const { pair, primary, backup } = play
    const second = seconds[primary]!
    const first = JSON.parse(readFileSync(configOf(play, primary), 'utf8')).witness.former as { fingerprint: string }
    const url = `https://${addressOf('w').v4}:${WITNESS_PORT}`
    // It knew this pair before: no token is asked, and the pair gets a new incarnation there.
    await changeBoth(play, ['alternate', '--url', url, '--fingerprint', first.fingerprint, '--after', '10'])
    await untilProtectedBy(play, second.url)
    process.kill(second.pid, 'SIGKILL')
    const status = await pair.untilStatus(
      primary,
      { limitMs: PIN_BOUND_MS, words: 'is protected by the alternate' },
      ({ protection, witness }) => protection === 'protected' && witness?.alternate?.isMember === true,
    )
    assert.equal(status.witness?.url, url)
    await pair.inject({ kind: 'power', host: primary })
    await pair.untilServing(backup)
    await pair.trial.heal()
    const after = await untilProtectedBy({ ...play, primary: backup }, url)
    assert.equal(after.witness?.alternate?.isMember, true)
  },
)

inBoth('another profile is taken by both hosts one after the other while clients write', async play => {
  // The last row has moved the service.
  const [primary, backup] = [play.backup, play.primary]
  const { epoch } = await play.pair.present(primary)
  const fromMs = nowMs()
  await changeBoth({ ...play, primary, backup }, ['profile', 'conservative'])
  const status = await play.pair.untilStatus(
    primary,
    { limitMs: UNPIN_BOUND_MS, words: 'is protected with the other profile' },
    ({ protection, agent }) => protection === 'protected' && agent.profile === 'conservative',
  )
  assert.deepEqual([status.epoch, status.serving], [epoch, true])
  assert.equal((await play.pair.present(backup)).agent.profile, 'conservative')
  assert.ok(play.pair.acknowledgedWithin(fromMs) > 0)
})
