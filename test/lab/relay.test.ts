/** A host whose way to the control plane is cut, and which has its peer. */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { GATEWAY, namespaceName } from '../../infra/lab/addresses.ts'
import { untilConnected } from '../../infra/lab/control-plane.ts'
import { run } from '../../infra/lab/exec.ts'
import { down } from '../../infra/lab/lab.ts'
import { lastWords, until, untilProtected } from '../../infra/lab/pair.ts'
import { askAgent } from '../../infra/lab/product.ts'
import { type RemotePair, untilEnded, upThroughApi } from '../../infra/lab/remote-set-up.ts'
import { exec } from '../../node-agent/exec.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { networkState } from '../integration/support/network-state.ts'
import { presentStatus, runBundle } from './support.ts'

/** The broker's own silence is noticed in time, and a request that is swallowed runs into its limit. */
const SETTLE_LIMIT_MS = 90_000
/** In the last four addresses of the switch, as the control plane is. */
const besideGateway = GATEWAY.v4.replace(/\d+$/, '253')
const lab = `t-rl-${process.pid}`.slice(0, 16)
let remote: RemotePair

before(async () => {
  await runBundle()
  try {
    remote = await upThroughApi(lab)
  } catch (error) {
    console.error(lastWords(lab, 30))
    await down(lab)
    throw error
  }
})
after(() => down(lab))

test('a host that is cut off from the control plane, broker and HTTPS, is commanded and heard through its peer', async () => {
  const { api } = remote.plane
  const primary = await untilProtected(lab)
  const route = (verb: 'add' | 'del') =>
    run('ip', ['-n', namespaceName(lab, primary), 'route', verb, 'blackhole', `${GATEWAY.v4}/32`])
  await route('add')
  try {
    const throughPeer = async (): Promise<boolean> => {
      const answer = (await askAgent(lab, primary, 'status')) as {
        result?: { workers: { name: string; report: { throughPeer?: boolean } | null }[] }
      } | null
      const link = answer?.result?.workers.find(one => one.name === 'control')
      return link?.report?.throughPeer === true
    }
    await until(SETTLE_LIMIT_MS, 'the peer carries nothing', async () => ((await throughPeer()) ? true : null))
    const begun = await until(SETTLE_LIMIT_MS, 'a switchover is refused', () =>
      api.switchOver({ params: { pair: remote.pair }, body: { reason: 'cut off' } }).catch(() => null),
    )
    assert.ok('id' in begun.body)
    const done = await untilEnded(remote.plane, begun.body.id, 90_000)
    assert.equal(done.state, 'succeeded', done.message)
    assert.equal((await presentStatus(lab, otherNode(primary))).serving, true)
  } finally {
    await route('del')
  }
  await untilConnected(remote.plane, Object.values(remote.hosts))
  await untilProtected(lab)
})

test('a vSwitch asked for from afar that cuts the host off from its control plane is taken away by the host itself, and the operation says why', async () => {
  const { api } = remote.plane
  const backup = otherNode(await untilProtected(lab))
  const params = { host: remote.hosts[backup] }
  const networkNow = () =>
    networkState(argv => exec(['ip', 'netns', 'exec', namespaceName(lab, backup), ...argv], { limitMs: 10_000 }))
  await until(SETTLE_LIMIT_MS, 'the host does not tell of its networks', async () =>
    (await api.getNetwork({ params })).body.asOf === null ? null : true,
  )
  const before = await networkNow()
  // Its network is a part of the one that the control plane is in, and nobody is behind it.
  const body = { name: 'cut0', types: ['storage' as const], nics: [], addresses: [`${besideGateway}/30`] }
  const begun = await api.putVswitch({ params, body })
  await until(SETTLE_LIMIT_MS, 'the host does not make it', async () =>
    isDeepStrictEqual(await networkNow(), before) ? null : true,
  )
  const done = await untilEnded(remote.plane, begun.body.id, SETTLE_LIMIT_MS)
  assert.equal(done.state, 'failed')
  assert.match(done.message, /did not reach the control plane within 15 s; the host is as it was/)
  assert.deepEqual(await networkNow(), before)
  await untilConnected(remote.plane, Object.values(remote.hosts))
  await untilProtected(lab)
})
