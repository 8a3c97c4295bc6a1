/** A pair without a witness of its own: set up through the API, its third vote lies in the control plane's database. */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { otherOf } from '../../infra/lab/addresses.ts'
import { killControlPlane, startControlPlane, untilConnected } from '../../infra/lab/control-plane.ts'
import { heal, inject } from '../../infra/lab/faults.ts'
import { down } from '../../infra/lab/lab.ts'
import { lastWords, servingHost, statuses, until, untilProtected, untilServing } from '../../infra/lab/pair.ts'
import { type RemotePair, upThroughApi } from '../../infra/lab/remote-set-up.ts'
import { Trial } from '../../infra/lab/trial.ts'
import { runBundle } from './support.ts'

const lab = `t-hw-${process.pid}`.slice(0, 16)
/** A rejoin by rewind, and hold-downs on a busy machine. */
const PROTECTED_LIMIT_MS = 90_000
let remote: RemotePair
let trial: Trial

before(async () => {
  await runBundle()
  try {
    remote = await upThroughApi(lab, { settings: { arbitration: { witness: { kind: 'hosted' } } } })
  } catch (error) {
    console.error(lastWords(lab, 30))
    await down(lab)
    throw error
  }
  trial = await Trial.begin(lab, { writer: { connections: 2, intervalMs: 40 } })
})
after(() => down(lab))

test('two hosts are set up through the API with the hosted witness, and both reach it', async () => {
  assert.equal(remote.setUp.state, 'succeeded', remote.setUp.message)
  await untilProtected(lab)
  const { a, b } = await statuses(lab)
  for (const status of [a, b]) {
    assert.match(status?.witness?.url ?? '', /^https:\/\/.*\/witness\/v1\/[0-9a-z]{26}$/)
    assert.equal(status?.witness?.reach, 'yes')
  }
})

test('the primary loses its power: the backup takes over by the vote of the hosted witness, with every acknowledged write', async () => {
  const primary = await untilProtected(lab, PROTECTED_LIMIT_MS)
  await inject(lab, { kind: 'power', host: primary })
  await untilServing(lab, otherOf(primary))
  await heal(lab)
  assert.equal(await untilProtected(lab, PROTECTED_LIMIT_MS), otherOf(primary))
})

test('the control plane dies with its votes: the pair serves on; back again it is the witness as before', async () => {
  const primary = await untilProtected(lab, PROTECTED_LIMIT_MS)
  await killControlPlane(lab)
  await until(60_000, 'the loss of the witness is not shown', async () =>
    (await statuses(lab))[primary]?.witness?.reach === 'no' ? true : null,
  )
  assert.equal(await servingHost(lab), primary)
  remote.plane = await startControlPlane(lab)
  await untilConnected(remote.plane, Object.values(remote.hosts))
  assert.equal(await untilProtected(lab, PROTECTED_LIMIT_MS), primary)
})

test('nothing that was acknowledged was lost, and no two hosts served at one instant', async () => {
  const { writes, judgement } = await trial.end()
  for (const host of ['a', 'b'] as const) assert.deepEqual(writes[host].lost, [])
  assert.deepEqual(judgement.violations, [])
})
