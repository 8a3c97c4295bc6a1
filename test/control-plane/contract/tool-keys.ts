import assert from 'node:assert/strict'
import { test } from 'node:test'
import { acceptTrust, keyRing } from '../../../node-agent/control/trust.ts'
import { createToken } from '../../../shared/contract/api/organisations.ts'
import { desiredDocument } from '../../../shared/contract/api/settings.ts'
import { createToolKey, listToolKeys, revokeToolKey, toolCertificate } from '../../../shared/contract/api/tool-keys.ts'
import { verifyDocument } from '../../../shared/contract/signing.ts'
import type { TestHost } from '../support/host.ts'
import { adoptedPair } from '../support/pair.ts'
import { ApiClient } from '../support/route-client.ts'
import type { Runtime } from '../support/runtime.ts'
import { refusal } from './tenancy.ts'

/** The keys of tooling that a host is told of, with the generation that tells. */
async function toldTo(host: TestHost): Promise<{ generation: number; kids: string[] }> {
  const pulled = await host.cloud.pull()
  assert.ok(pulled.ok && pulled.value !== null, 'there is a new document')
  const { rootFingerprint } = host.identity
  const trusted = await acceptTrust(pulled.value.trust, { rootFingerprint, heldVersion: 0 })
  assert.ok(trusted.ok)
  const verified = await verifyDocument(pulled.value.desired!, 'desired', keyRing(trusted.document, 'desired'))
  assert.ok(verified.ok)
  const { generation, tools } = desiredDocument.parse(verified.payload)
  return { generation, kids: tools.map(one => one.kid) }
}

const publicKey = 'A'.repeat(43)

export function toolKeyTests(runtime: () => Runtime): void {
  test('a key of fleet tooling reaches the hosts of its pairs with their wish, and is gone from it once revoked', async () => {
    const { client, id, a, b } = await adoptedPair(runtime())
    const { generation: before } = await toldTo(a)
    const wanted = { name: 'rollout', publicKey, verbs: ['switchover' as const], pairs: [id] }
    const { body: key } = await client.call(createToolKey, { body: wanted })
    for (const host of [a, b]) assert.deepEqual(await toldTo(host), { generation: before + 1, kids: [key.kid] })
    const listed = await client.call(listToolKeys, {})
    assert.deepEqual(
      listed.body.data.map(one => [one.id, one.revokedAt]),
      [[key.id, null]],
    )
    const { body: revoked } = await client.call(revokeToolKey, { params: { toolKey: key.id } })
    assert.notEqual(revoked.revokedAt, null)
    assert.deepEqual(await toldTo(a), { generation: before + 2, kids: [] })
    // Again: no fault, and no new document.
    await client.call(revokeToolKey, { params: { toolKey: key.id } })
    assert.deepEqual(await a.cloud.pull(), { ok: true, value: null })
  })

  test('no key of tooling commands what can lose data, goes to a foreign pair, or is given by who has less', async () => {
    const { client, id } = await adoptedPair(runtime())
    const theirs = await adoptedPair(runtime())
    const body = { name: 'rollout', publicKey, verbs: ['switchover' as const] }
    await assert.rejects(
      client.call(createToolKey, { body: { ...body, verbs: ['takeover'] } } as never),
      refusal('invalid', 422),
    )
    await assert.rejects(
      client.call(createToolKey, { body: { ...body, pairs: [theirs.id] } }),
      refusal('not_found', 404),
    )
    const made = await client.call(createToken, {
      body: { name: 'keys alone', role: 'admin', scopes: ['token:manage'], pairs: [id] },
    })
    const keysAlone = new ApiClient({ url: runtime().url, token: made.body.token })
    await assert.rejects(keysAlone.call(createToolKey, { body }), refusal('forbidden', 403))
    const limited = await client.call(createToken, {
      body: { name: 'one pair', role: 'admin', scopes: ['token:manage', 'pair:operate'], pairs: [id] },
    })
    const onePair = new ApiClient({ url: runtime().url, token: limited.body.token })
    await assert.rejects(onePair.call(createToolKey, { body }), refusal('forbidden', 403))
    assert.equal((await onePair.call(createToolKey, { body: { ...body, pairs: [id] } })).status, 201)
    await assert.rejects(
      client.call(toolCertificate, { body: { publicKey: 'none' } }),
      (error: unknown) => error instanceof Error && /409|422/.test(error.message),
    )
  })
}
