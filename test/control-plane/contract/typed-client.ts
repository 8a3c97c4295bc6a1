import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UnderstudyClient } from '../../../control-plane/client/generated/understudy-client.ts'
import { ApiProblem } from '../../../shared/contract/api/requester.ts'
import { adoptedPair } from '../support/pair.ts'
import { newTenant, type Runtime } from '../support/runtime.ts'
import { refusal } from './tenancy.ts'

export function typedClientTests(runtime: () => Runtime): void {
  test('the generated client goes through the API: lists, one by its ETag, an operation that is waited for, a refusal', async () => {
    const { a, healthy, token } = await adoptedPair(runtime())
    const api = new UnderstudyClient({ url: runtime().url, token })
    const { body: permissions } = await api.getPermissions()
    assert.equal(permissions.role, 'admin')
    const { body: page } = await api.listHosts({ query: { limit: 1 } })
    assert.deepEqual([page.data.length, page.data[0]?.id], [1, a.identity.host])
    const { body: pairs } = await api.listPairs()
    const pair = pairs.data[0]?.id ?? ''
    const { body: shown, etag } = await api.getPair({ params: { pair } })
    assert.equal(shown.status.protection, 'protected')
    const begun = await api.beginMaintenance({
      params: { pair },
      body: { forMinutes: 10, reason: 'update' },
      ifMatch: etag!,
    })
    assert.deepEqual([begun.status, begun.body.state], [202, 'running'])
    const ended = api.getOperation({ params: { operation: begun.body.id }, wait: 10 })
    await a.ack(await a.nextCommand(), { phase: 'done' })
    assert.equal((await ended).body.state, 'succeeded')
    await healthy()
    const body = { forMinutes: 20, reason: 'update' }
    await assert.rejects(api.beginMaintenance({ params: { pair }, body, ifMatch: etag! }), refusal('stale', 412))
  })

  test('the generated client repeats a wish by its key, and gives a refusal field by field', async () => {
    const { token } = await newTenant(runtime())
    const api = new UnderstudyClient({ url: runtime().url, token })
    const idempotencyKey = crypto.randomUUID()
    const wish = { body: { name: 'fleet', publicKey: 'A'.repeat(43), verbs: ['prechecks' as const] }, idempotencyKey }
    const [first, again] = [await api.createToolKey(wish), await api.createToolKey(wish)]
    assert.equal(again.body.id, first.body.id)
    assert.equal(again.headers.get('idempotency-replayed'), 'true')
    const wrong = api.createToolKey({ body: { ...wish.body, name: '' } })
    await assert.rejects(
      wrong,
      error => error instanceof ApiProblem && error.problem.violations?.[0]?.field === 'body.name',
    )
  })
}
