import assert from 'node:assert/strict'
import { test } from 'node:test'
import postgres from 'postgres'
import { retireHost } from '../../../shared/contract/api/hosts.ts'
import { cancelOperation, getOperation, listOperations } from '../../../shared/contract/api/operations.ts'
import { createToken } from '../../../shared/contract/api/organisations.ts'
import { beginMaintenance, changeSettings, getPair, setUpPair, switchOver } from '../../../shared/contract/api/pairs.ts'
import { permissions } from '../../../shared/contract/api/permissions.ts'
import { toolCertificate } from '../../../shared/contract/api/tool-keys.ts'
import { enrolledHost } from '../support/host.ts'
import { adoptedPair, settings, twoHosts } from '../support/pair.ts'
import { ApiClient, type ApiProblem } from '../support/route-client.ts'
import { newTenant, type Runtime } from '../support/runtime.ts'
import { refusal } from './tenancy.ts'

/** What a request is held to, and what its answer is worth. */
export function requestTests(runtime: () => Runtime): void {
  const clientOf = (token: string): ApiClient => new ApiClient({ url: runtime().url, token })
  const violationsOf = async (asked: Promise<unknown>): Promise<string[]> => {
    const error = await asked.then(
      () => null,
      (problem: unknown) => problem,
    )
    refusal('invalid', 422)(error)
    return ((error as ApiProblem).problem.violations ?? []).map(one => `${one.field} ${one.rule}`).sort()
  }

  test('an Idempotency-Key is its caller’s: another one with the same key is neither answered for him nor kept from his own', async () => {
    const { client, id } = await adoptedPair(runtime())
    const other = await enrolledHost(client, { name: 'gamma', address: '10.9.0.7' })
    const made = await client.call(createToken, {
      body: { name: 'limited', role: 'admin', scopes: [...permissions], pairs: [id] },
    })
    const limited = clientOf(made.body.token)
    const asked = {
      params: { host: other.identity.host },
      body: { reason: 'sold' },
      ifMatch: '"v1"',
      idempotencyKey: 'nightly-1',
    }
    const { body: retired } = await client.call(retireHost, asked)
    assert.equal(retired.state, 'retired')
    await assert.rejects(limited.call(retireHost, asked), refusal('not_found', 404))
    const again = await client.call(retireHost, asked)
    assert.equal(again.headers.get('idempotency-replayed'), 'true')
    // The same wish of two tools is two wishes.
    const wish = { body: { name: 'one', role: 'viewer' as const, pairs: [id] }, idempotencyKey: 'token-for-today' }
    const own = await limited.call(createToken, wish)
    const theirs = await client.call(createToken, wish)
    assert.notEqual(own.body.record.id, theirs.body.record.id)
  })
}
