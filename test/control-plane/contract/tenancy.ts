import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createEnrolmentToken, listHosts } from '../../../shared/contract/api/hosts.ts'
import { getAuditHead, listAudit, signedAuditHead, verifyAudit } from '../../../shared/contract/api/observation.ts'
import {
  createAdministratorToken,
  createToken,
  getOrganisation,
  getPermissions,
  listOrganisations,
  listTokens,
  renameOrganisation,
  revokeToken,
} from '../../../shared/contract/api/organisations.ts'
import type { TrustDocument } from '../../../shared/contract/documents.ts'
import { verifyDocument } from '../../../shared/contract/signing.ts'
import { ApiClient, ApiProblem } from '../support/route-client.ts'
import { newTenant, type Runtime } from '../support/runtime.ts'

export const refusal = (code: string, status: number) => (error: unknown) => {
  assert.ok(error instanceof ApiProblem, String(error))
  assert.equal(`${error.problem.status} ${error.problem.code}`, `${status} ${code}`, error.message)
  return true
}

export function tenancyTests(runtime: () => Runtime): void {
  test('a token is narrowed by its scopes, widens nothing, and opens nothing after it was revoked', async () => {
    const { client } = await newTenant(runtime())
    const made = await client.call(createToken, {
      body: { name: 'ci', role: 'operator', scopes: ['pair:read', 'token:manage'] },
    })
    const narrow = new ApiClient({ url: runtime().url, token: made.body.token })
    const { body: mine } = await narrow.call(getPermissions, {})
    assert.deepEqual(mine.permissions, ['pair:read'])
    await assert.rejects(narrow.call(listHosts, {}), refusal('forbidden', 403))
    await assert.rejects(narrow.call(createToken, { body: { name: 'more', role: 'admin' } }), refusal('forbidden', 403))
    await client.call(revokeToken, { params: { token: made.body.record.id } })
    await assert.rejects(narrow.call(getPermissions, {}), refusal('unauthenticated', 401))
    const { body: list } = await client.call(listTokens, {})
    assert.equal(list.data.filter(one => one.revokedAt !== null).length, 1)
  })

  test('a manager of tokens cannot give away what he has not', async () => {
    const { client } = await newTenant(runtime())
    const made = await client.call(createToken, {
      body: { name: 'tokens only', role: 'admin', scopes: ['token:manage'] },
    })
    const manager = new ApiClient({ url: runtime().url, token: made.body.token })
    await assert.rejects(manager.call(createToken, { body: { name: 'x', role: 'admin' } }), refusal('forbidden', 403))
    await manager.call(createToken, { body: { name: 'x', role: 'admin', scopes: ['token:manage'] } })
  })

  test('without a credential, or with a wrong one, nothing is told', async () => {
    for (const token of [null, 'understudy_wrong', 'e30.e30.e30']) {
      const nobody = new ApiClient({ url: runtime().url, token })
      await assert.rejects(nobody.call(listHosts, {}), refusal('unauthenticated', 401))
    }
    // No host is named so, and the database cannot even be asked for it.
    const header = Buffer.from(JSON.stringify({ alg: 'EdDSA', kid: '\0' })).toString('base64url')
    const response = await fetch(`${runtime().url}/agent/v1/desired`, {
      headers: { authorization: `Understudy ${header}.e30.e30` },
    })
    assert.equal(response.status, 401, await response.text())
  })

  test('an organisation in which nobody has a token any more gets one of whoever runs the control plane, and its audit tells', async () => {
    const { client, organisation, token } = await newTenant(runtime(), 'locked out')
    for (const { id } of (await client.call(listTokens, {})).body.data)
      await client.call(revokeToken, { params: { token: id } })
    await assert.rejects(client.call(getPermissions, {}), refusal('unauthenticated', 401))
    const instance = new ApiClient({ url: runtime().url, token: runtime().instanceToken })
    const known: string[] = []
    for (let cursor: string | undefined; ; ) {
      const { body } = await instance.call(listOrganisations, { query: { ...(cursor !== undefined && { cursor }) } })
      known.push(...body.data.filter(one => one.name === 'locked out').map(one => one.id))
      if (body.nextCursor === null) break
      cursor = body.nextCursor
    }
    assert.ok(known.includes(organisation))
    const asked = { params: { organisation }, idempotencyKey: `again-${organisation}` }
    const { body: made } = await instance.call(createAdministratorToken, asked)
    await assert.rejects(instance.call(createAdministratorToken, asked), refusal('conflict', 409))
    const back = new ApiClient({ url: runtime().url, token: made.token })
    const { body: audit } = await back.call(listAudit, {})
    const last = audit.data.at(-1)
    assert.deepEqual([last?.action, last?.outcome], ['createAdministratorToken', 'done'])
    assert.match(last?.actor ?? '', /\(instance\)$/)
    for (const one of [back, client])
      await assert.rejects(one.call(createAdministratorToken, { params: { organisation } }))
    await assert.rejects(back.call(listOrganisations, {}), refusal('forbidden', 403))
    await assert.rejects(
      instance.call(createAdministratorToken, { params: { organisation: '01j00000000000000000000000' } }),
      refusal('not_found', 404),
    )
    // The scheme of the header is of either case.
    for (const [scheme, status] of [
      ['bearer', 200],
      ['BEARER', 200],
      ['basic', 401],
    ] as const) {
      const answer = await fetch(`${runtime().url}/v1/me/permissions`, {
        headers: { authorization: `${scheme} ${made.token}` },
      })
      assert.equal(answer.status, status, scheme)
    }
    assert.notEqual(made.token, token)
  })

  test('the same Idempotency-Key thirty times at once makes one token', async () => {
    const { client } = await newTenant(runtime())
    const body = { name: 'alpha' }
    const answers = await Promise.allSettled(
      Array.from({ length: 30 }, () =>
        client.call(createToken, { body: { name: 'one', role: 'viewer' }, idempotencyKey: 'the-same-key' }),
      ),
    )
    const made = answers.filter(one => one.status === 'fulfilled')
    assert.equal(made.length, 1, 'the secret is shown once; the others are told that it was')
    for (const one of answers) if (one.status === 'rejected') refusal('conflict', 409)(one.reason)
    const { body: tokens } = await client.call(listTokens, {})
    assert.equal(tokens.data.filter(one => one.name === 'one').length, 1)
    await client.call(createEnrolmentToken, { body, idempotencyKey: 'another-key' })
    await assert.rejects(
      client.call(createEnrolmentToken, { body: { name: 'beta' }, idempotencyKey: 'another-key' }),
      refusal('idempotency_key_reused', 422),
    )
  })

  test('a change without If-Match is refused with 428, over a stale one with 412, and nothing is lost', async () => {
    const { client } = await newTenant(runtime())
    const first = await client.call(getOrganisation, {})
    await assert.rejects(client.call(renameOrganisation, { body: { name: 'x' } }), refusal('if_match_missing', 428))
    const renamed = await client.call(renameOrganisation, { body: { name: 'mine' }, ifMatch: first.etag! })
    await assert.rejects(
      client.call(renameOrganisation, { body: { name: 'yours' }, ifMatch: first.etag! }),
      refusal('stale', 412),
    )
    assert.equal((await client.call(getOrganisation, {})).body.name, 'mine')
    assert.notEqual(renamed.etag, first.etag)
  })

  test('every violation is listed with its field and rule, and an unknown field is one', async () => {
    const { client } = await newTenant(runtime())
    const body = { name: '', role: 'king', expiresInDays: 0, extra: 1 } as never
    await assert.rejects(client.call(createToken, { body }), (error: unknown) => {
      refusal('invalid', 422)(error)
      const fields = (error as ApiProblem).problem.violations?.map(one => `${one.field} ${one.rule}`).sort()
      assert.deepEqual(fields, [
        'body.expiresInDays too_small',
        'body.extra unknown_field',
        'body.name too_small',
        'body.role invalid_value',
      ])
      assert.match((error as Error).message, /body\.role: must be one of "viewer", "operator", "admin"/)
      assert.match((error as Error).message, /body\.name: must have at least 1 characters/)
      return true
    })
    const query = { limit: 1000 }
    await assert.rejects(client.call(listTokens, { query }), /query\.limit: must be at most 200/)
  })

  test('a body that is no JSON, too large, or of another type is refused before anything else is done', async () => {
    const { token } = await newTenant(runtime())
    const post = (body: string, type = 'application/json') =>
      fetch(`${runtime().url}/v1/tokens`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': type, 'idempotency-key': crypto.randomUUID() },
        body,
      })
    assert.equal((await post('{"name":')).status, 400)
    assert.equal((await post('{"name":"\\u0000"}')).status, 400)
    assert.equal((await post('{}', 'text/plain')).status, 415)
    assert.equal((await post(`{"name":"${'x'.repeat(200_000)}"}`)).status, 413)
  })

  test('lists come in pages that neither repeat nor miss', async () => {
    const { client } = await newTenant(runtime())
    for (let at = 0; at < 5; at++) await client.call(createToken, { body: { name: `t${at}`, role: 'viewer' } })
    const names: string[] = []
    let cursor: string | undefined
    for (;;) {
      const { body } = await client.call(listTokens, { query: { limit: 2, ...(cursor !== undefined && { cursor }) } })
      names.push(...body.data.map(one => one.name))
      if (body.nextCursor === null) break
      cursor = body.nextCursor
    }
    assert.deepEqual(names, ['first administrator', 't0', 't1', 't2', 't3', 't4'])
    await assert.rejects(client.call(listTokens, { query: { cursor: 'rubbish' } }), refusal('invalid', 422))
  })

  test('the audit tells what was done and what was refused, in a chain that holds', async () => {
    const { client } = await newTenant(runtime())
    const made = await client.call(createToken, { body: { name: 'eve', role: 'viewer' } })
    const eve = new ApiClient({ url: runtime().url, token: made.body.token })
    await assert.rejects(eve.call(createEnrolmentToken, { body: { name: 'mine' } }), refusal('forbidden', 403))
    const { body } = await client.call(listAudit, {})
    assert.deepEqual(
      body.data.map(one => `${one.action} ${one.outcome}`),
      ['createOrganisation done', 'createToken done', 'createEnrolmentToken refused'],
    )
    assert.match(body.data[2]!.actor, /eve/)
    const { body: proof } = await client.call(verifyAudit, {})
    assert.deepEqual([proof.intact, proof.entries, proof.head], [true, 3, body.data[2]!.hash])
  })

  test('the chain of the audit holds also while it is written to', async () => {
    const { client } = await newTenant(runtime())
    let over = false
    const changing = Array.from({ length: 4 }, async () => {
      while (!over) await client.call(createEnrolmentToken, { body: { name: 'x' } })
    })
    for (let times = 0; times < 40; times++) {
      const { body } = await client.call(verifyAudit, {})
      assert.deepEqual(body.firstFault, null)
    }
    over = true
    await Promise.all(changing)
  })

  test('a signed head of the audit that was kept elsewhere shows a chain that was written anew', async () => {
    const { client, organisation } = await newTenant(runtime())
    const { body: head } = await client.call(getAuditHead, {})
    const { keys } = JSON.parse(
      Buffer.from((JSON.parse(head.trust) as { payload: string }).payload, 'base64url').toString(),
    ) as TrustDocument
    const verified = await verifyDocument(
      head.signed,
      'auditHead',
      kid => keys.find(key => key.kid === kid)?.publicKey ?? null,
    )
    assert.ok(verified.ok)
    const kept = signedAuditHead.parse(verified.payload)
    assert.deepEqual([kept.organisation, kept.seq, kept.hash], [organisation, 1, head.hash])
    await client.call(createToken, { body: { name: 'later', role: 'viewer' } })
    const { seq, hash } = kept
    assert.equal((await client.call(verifyAudit, { query: { seq, hash } })).body.intact, true)
    const other = await client.call(verifyAudit, { query: { seq, hash: 'f'.repeat(64) } })
    assert.deepEqual([other.body.intact, other.body.firstFault?.seq], [false, 1])
    const cutOff = await client.call(verifyAudit, { query: { seq: 9, hash } })
    assert.deepEqual([cutOff.body.intact, cutOff.body.firstFault?.seq], [false, 3])
  })
}
