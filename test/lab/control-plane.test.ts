/** The control plane and a pair of lab hosts, joined: everything here goes through the API, as a portal would do it. */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { addressOf, INTERFACE, LAN_PREFIX, otherOf, VIP } from '../../infra/lab/addresses.ts'
import { enrolHosts, type LabControlPlane, startControlPlane } from '../../infra/lab/control-plane.ts'
import { down, up } from '../../infra/lab/lab.ts'
import { servingHost, until, untilProtected } from '../../infra/lab/pair.ts'
import { getOperation } from '../../shared/contract/api/operations.ts'
import { getPair, setUpPair, switchOver } from '../../shared/contract/api/pairs.ts'

const lab = `t-cp-${process.pid}`.slice(0, 16)
let plane: LabControlPlane
let pair = ''

before(async () => {
  await up({ name: lab, services: [] })
  plane = await startControlPlane(lab)
})
after(() => down(lab))

const settings = {
  mode: 'distributed' as const,
  ipFamily: 'ipv4' as const,
  vips: [{ address: `${VIP.v4}/${LAN_PREFIX.v4}`, interface: INTERFACE.lan }],
  hosts: { a: { addresses: [addressOf('a').v4] }, b: { addresses: [addressOf('b').v4] } },
}

test('two hosts that are a pair already are enrolled, adopted, and shown with the role that each has', async () => {
  const ids = await enrolHosts(lab, plane)
  const { client } = plane
  const { body } = await client.call(setUpPair, { body: { name: lab, hosts: ids, settings, adopt: true } })
  pair = body.pair
  const done = await client.call(getOperation, { params: { operation: body.operation.id }, wait: 20 })
  assert.equal(done.body.state, 'succeeded', done.body.message)
  const shown = await until(20_000, 'the pair is not shown as protected', async () => {
    const { body: view } = await client.call(getPair, { params: { pair } })
    return view.status.protection === 'protected' ? view : null
  })
  assert.equal(shown.status.primary, await servingHost(lab))
})

test('a switchover asked of the API is carried out by the pair, and the operation ends with it', async () => {
  const { client } = plane
  const first = await untilProtected(lab)
  const begun = await client.call(switchOver, { params: { pair }, body: { reason: 'update' } })
  assert.ok('id' in begun.body)
  const operation = begun.body.id
  const done = await until(30_000, 'the operation does not end', async () => {
    const { body } = await client.call(getOperation, { params: { operation }, wait: 10 })
    return body.state === 'running' ? null : body
  })
  assert.equal(done.state, 'succeeded', done.message)
  assert.equal(await servingHost(lab), otherOf(first))
})
