/**
 * Two lab hosts that the control plane makes a pair of, and what a portal and fleet tooling do with it from then on: all
 * of it through the API or over MQTT, with clients writing meanwhile.
 */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { otherOf } from '../../infra/lab/addresses.ts'
import { down } from '../../infra/lab/lab.ts'
import { lastWords, servingHost, until, untilProtected } from '../../infra/lab/pair.ts'
import { type RemotePair, untilEnded, upThroughApi } from '../../infra/lab/remote-set-up.ts'
import { Trial } from '../../infra/lab/trial.ts'
import { getPair, getPrechecks, startPrechecks, switchOver } from '../../shared/contract/api/pairs.ts'
import { runBundle } from './support.ts'

const lab = `t-cp-${process.pid}`.slice(0, 16)
let remote: RemotePair
let trial: Trial

before(async () => {
  await runBundle()
  try {
    remote = await upThroughApi(lab)
  } catch (error) {
    console.error(lastWords(lab, 30))
    await down(lab)
    throw error
  }
  trial = await Trial.begin(lab, { writer: { connections: 2, intervalMs: 40 } })
})
after(() => down(lab))

const view = async () => (await remote.plane.client.call(getPair, { params: { pair: remote.pair } })).body

test('two hosts that wait become a protected pair through the API alone, with measured prechecks first', async () => {
  const { setUp } = remote
  assert.equal(setUp.state, 'succeeded', setUp.message)
  const results = (setUp.result as { results: { code: string; severity: string; host: string }[] }).results
  for (const host of ['a', 'b'])
    for (const code of ['peer_network', 'vip_free', 'port_free', 'data_directory', 'nobody_in_data_directory'])
      assert.ok(
        results.some(one => one.host === host && one.code === code && one.severity !== 'blocking'),
        `${host} ${code}: ${JSON.stringify(results)}`,
      )
  await until(20_000, 'the pair is not shown as protected', async () => {
    const { status } = await view()
    return status.protection === 'protected' && status.primary === 'a' ? status : null
  })
})

test('a switchover asked of the API is carried out by the pair, and the operation ends with it', async () => {
  const first = await untilProtected(lab)
  const { client } = remote.plane
  const begun = await until(20_000, 'a switchover is refused', () =>
    client.call(switchOver, { params: { pair: remote.pair }, body: { reason: 'update' } }).catch(() => null),
  )
  assert.ok('id' in begun.body)
  const done = await untilEnded(remote.plane, begun.body.id, 60_000)
  assert.equal(done.state, 'succeeded', done.message)
  assert.equal(await servingHost(lab), otherOf(first))
  await untilProtected(lab)
})

test('prechecks of a pair that serves measure on both hosts and change nothing', async () => {
  const { client } = remote.plane
  const { body } = await client.call(startPrechecks, { params: { pair: remote.pair }, body: {} })
  const done = await untilEnded(remote.plane, body.id, 60_000)
  assert.equal(done.state, 'succeeded', done.message)
  const known = await client.call(getPrechecks, { params: { pair: remote.pair } })
  assert.ok(known.body.results.length > 0)
})

test('nothing that was acknowledged was lost, and no two hosts served at one instant', async () => {
  const { writes, judgement } = await trial.end()
  for (const host of ['a', 'b'] as const) assert.deepEqual(writes[host].lost, [])
  assert.deepEqual(judgement.violations, [])
})
