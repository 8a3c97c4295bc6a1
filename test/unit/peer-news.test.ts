import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PeerNews } from '../../node-agent/peer-news.ts'
import { fakePorts } from './fake-ports.ts'

const never = (): never => assert.fail('not asked for here')

test('clients that could not be told of a takeover are not taken from the other host', () => {
  const { vip, peer } = fakePorts().ports
  const news = new PeerNews({ vip, peer, own: never, settings: never, certificate: never, keepHostKey: never })
  const good = { client: '10.9.0.7', clientPort: 40_000, local: '10.9.0.100', localPort: 5432 }
  assert.equal(news.answer('clients', [good, { ...good, client: 'fd00::7', local: 'fd00::100' }]), null)
  for (const client of ['', 'nobody', 'fe80::7%lan0', '10.9.0.7/24'])
    assert.throws(() => news.answer('clients', [{ ...good, client }]), `${client} was taken`)
  assert.deepEqual(
    news.clients.map(one => one.client),
    ['10.9.0.7', 'fd00::7'],
  )
})
