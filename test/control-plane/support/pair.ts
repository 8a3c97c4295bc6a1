import assert from 'node:assert/strict'
import type { z } from 'zod'
import { getOperation } from '../../../shared/contract/api/operations.ts'
import { setUpPair } from '../../../shared/contract/api/pairs.ts'
import type { pairSettings } from '../../../shared/contract/api/settings.ts'
import { enrolledHost, pairReport, type TestHost } from './host.ts'
import type { ApiClient } from './route-client.ts'
import { newTenant, type Runtime } from './runtime.ts'

export const settings: z.input<typeof pairSettings> = {
  mode: 'distributed',
  ipFamily: 'ipv4',
  vips: [{ address: '10.9.0.100/24', interface: 'eth0' }],
  hosts: { a: { addresses: ['10.9.0.1'] }, b: { addresses: ['10.9.0.2'] } },
}

export interface TestPair {
  client: ApiClient
  /** Of its organisation's administrator. */
  token: string
  id: string
  a: TestHost
  b: TestHost
  /** Both report as a protected pair. */
  healthy: (part?: { primary?: 'a' | 'b'; epoch?: number }) => Promise<void>
}

export async function twoHosts(
  runtime: Runtime,
): Promise<{ client: ApiClient; token: string; a: TestHost; b: TestHost }> {
  const { client, token } = await newTenant(runtime)
  const a = await enrolledHost(client, { name: 'alpha', address: '10.9.0.1' })
  const b = await enrolledHost(client, { name: 'beta', address: '10.9.0.2' })
  await a.send()
  await b.send()
  return { client, token, a, b }
}

/** Adopted: its hosts tell that they are a pair. */
export async function adoptedPair(runtime: Runtime): Promise<TestPair> {
  const { client, token, a, b } = await twoHosts(runtime)
  const hosts = { a: a.identity.host, b: b.identity.host }
  const { body } = await client.call(setUpPair, { body: { name: 'orders', hosts, settings, adopt: true } })
  const healthy: TestPair['healthy'] = async ({ primary = 'a', epoch = 1 } = {}) => {
    await a.send({ pair: pairReport({ role: primary === 'a' ? 'primary' : 'backup', primary, epoch }) })
    await b.send({ pair: pairReport({ role: primary === 'b' ? 'primary' : 'backup', primary, epoch }) })
  }
  await healthy()
  const done = await client.call(getOperation, { params: { operation: body.operation.id }, wait: 10 })
  assert.equal(done.body.state, 'succeeded')
  return { client, token, id: body.pair, a, b, healthy }
}
