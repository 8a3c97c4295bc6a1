import assert from 'node:assert/strict'
import { test } from 'node:test'
import postgres from 'postgres'
import { takeInventory } from '../../../shared/contract/api/host-tabs.ts'
import {
  createEnrolmentToken,
  listEnrolmentTokens,
  withdrawEnrolmentToken,
} from '../../../shared/contract/api/hosts.ts'
import { routes } from '../../../shared/contract/api/index.ts'
import { listAlarms, listAudit, listEvents } from '../../../shared/contract/api/observation.ts'
import { getOperation, listOperations } from '../../../shared/contract/api/operations.ts'
import { createToken, getPermissions, listTokens, revokeToken } from '../../../shared/contract/api/organisations.ts'
import { getPair, listPairs, setUpPair } from '../../../shared/contract/api/pairs.ts'
import { permissions } from '../../../shared/contract/api/permissions.ts'
import type { Route } from '../../../shared/contract/api/route.ts'
import { createToolKey, listToolKeys, revokeToolKey, toolCertificate } from '../../../shared/contract/api/tool-keys.ts'
import { enrolledHost } from '../support/host.ts'
import { adoptedPair, settings } from '../support/pair.ts'
import { ApiClient, targetOf } from '../support/route-client.ts'
import { newTenant, type Runtime } from '../support/runtime.ts'
import { refusal } from './tenancy.ts'

export function isolationTests(runtime: () => Runtime): void {
  test('every route with an id answers a foreign one as if it were not there', async () => {
    const theirs = await adoptedPair(runtime())
    const { client: owner, id: pair, a } = theirs
    const operation = (await owner.call(listOperations, {})).body.data[0]!.id
    await a.send({ pair: null })
    const token = (await owner.call(listTokens, {})).body.data[0]!.id
    const alarm = (await owner.call(listAlarms, {})).body.data[0]?.id ?? operation
    const enrolment = await owner.call(createEnrolmentToken, { body: { name: 'gamma' } })
    const tool = { name: 'tool', publicKey: 'A'.repeat(43), verbs: ['prechecks' as const] }
    const toolKey = (await owner.call(createToolKey, { body: tool })).body.id
    const ids: Record<string, string> = {
      pair,
      host: a.identity.host,
      operation,
      token,
      alarm,
      toolKey,
      enrolmentToken: enrolment.body.id,
      vswitch: 'vs0',
    }
    const mine = await newTenant(runtime())
    const withIds = routes.filter(
      route =>
        route.path.includes('{') &&
        route.access !== 'host' &&
        route.access !== 'pair host' &&
        route.access !== 'instance' &&
        route.access !== 'public',
    )
    assert.ok(withIds.length >= 15)
    for (const route of withIds) {
      const response = await fetch(runtime().url + targetOf(route, { params: ids }), {
        method: route.method.toUpperCase(),
        headers: {
          authorization: `Bearer ${mine.token}`,
          'content-type': 'application/json',
          'idempotency-key': crypto.randomUUID(),
          'if-match': '"v1"',
        },
        ...(route.method !== 'get' &&
          route.body.safeParse(undefined).success === false && { body: JSON.stringify(bodies[route.id] ?? {}) }),
      })
      assert.equal(response.status, 404, `${route.id}: ${await response.text()}`)
    }
  })

  test('lists, events and alarms of one organisation hold nothing of another', async () => {
    await adoptedPair(runtime())
    const { client } = await newTenant(runtime())
    for (const route of [listPairs, listEvents, listAlarms, listOperations] as Route[])
      assert.deepEqual(((await client.call(route, {} as never)).body as { data: unknown[] }).data, [], route.id)
  })

  test('a token that is limited to one pair does not see another one of the same organisation', async () => {
    const { client, id } = await adoptedPair(runtime())
    const limited = async (pairs: string[]) => {
      const made = await client.call(createToken, { body: { name: 'limited', role: 'viewer', pairs } })
      return new ApiClient({ url: runtime().url, token: made.body.token })
    }
    const insider = await limited([id])
    assert.equal((await insider.call(listPairs, {})).body.data.length, 1)
    const outsider = await limited([await otherPair(client)])
    assert.deepEqual(
      (await outsider.call(listPairs, {})).body.data.map(one => one.name),
      ['invoices'],
    )
    await assert.rejects(outsider.call(getPair, { params: { pair: id } }), refusal('not_found', 404))
  })

  test('a foreign id in a body or query is not there either, and is not told from one that nobody has', async () => {
    const theirs = await adoptedPair(runtime())
    const { client } = await newTenant(runtime())
    const host = await enrolledHost(client, { name: 'mine', address: '10.9.0.1' })
    await host.send()
    const nobody = '01j00000000000000000000000'
    const answers = async (pair: string, foreign: string) => {
      const told = async (call: Promise<unknown>) =>
        call.then(
          () => 'done',
          (error: unknown) => String(error).replaceAll(pair, 'ID').replaceAll(foreign, 'ID'),
        )
      const hosts = { a: host.identity.host, b: foreign }
      return [
        await told(client.call(setUpPair, { body: { name: 'orders', hosts, settings } })),
        await told(client.call(createEnrolmentToken, { body: { name: 'other', replaces: foreign } })),
        await told(client.call(createToken, { body: { name: 'x', role: 'viewer', pairs: [pair] } })),
        await told(
          client.call(createToolKey, {
            body: { name: 'x', publicKey: 'A'.repeat(43), verbs: ['prechecks'], pairs: [pair] },
          }),
        ),
        JSON.stringify((await client.call(listOperations, { query: { pair } })).body),
        JSON.stringify((await client.call(listAlarms, { query: { pair } })).body),
        JSON.stringify((await client.call(listEvents, { query: { pair } })).body),
      ]
    }
    const foreign = await answers(theirs.id, theirs.a.identity.host)
    assert.deepEqual(foreign, await answers(nobody, nobody))
    for (const refused of foreign.slice(0, 4)) assert.match(refused, /404 not_found/)
    assert.equal((await client.call(listTokens, {})).body.data.length, 1)
  })

  test('whatever stands in an address, every route refuses it and none of them fails', async () => {
    const { token, client } = await newTenant(runtime())
    const host = await enrolledHost(client, { name: 'alpha', address: '10.9.0.1' })
    const cursor = (key: string) => Buffer.from(`1:${key}`).toString('base64url')
    const words = ['%00', 'a%00b', '%ff%fe', '..%2f..', "'%3b--", '9'.repeat(400)]
    const cursors = ['NaN', '1e400', '\0', '99999999999999999999', "'"].map(cursor)
    for (const route of routes) {
      const names = [...route.path.matchAll(/\{(\w+)\}/g)].map(match => match[1] ?? '')
      const params = Object.fromEntries(names.map(name => [name, host.identity.host]))
      const ask = async (target: string): Promise<void> => {
        const response = await fetch(runtime().url + target, {
          method: route.method.toUpperCase(),
          headers: {
            authorization: `Bearer ${token}`,
            'content-type': 'application/json',
            'idempotency-key': crypto.randomUUID(),
            'if-match': '"v1"',
          },
          ...(route.method !== 'get' && route.method !== 'delete' && { body: JSON.stringify(bodies[route.id] ?? {}) }),
        })
        assert.ok(response.status < 500, `${route.method} ${target}: ${response.status} ${await response.text()}`)
        await response.body?.cancel().catch(() => {})
      }
      for (const name of names)
        for (const word of words) await ask(targetOf({ path: route.path.replace(`{${name}}`, word) }, { params }))
      if (route.method !== 'get' || route.access === 'public' || route.access === 'host') continue
      const target = targetOf(route, { params })
      for (const one of cursors) await ask(`${target}?cursor=${one}`)
      for (const word of words) await ask(`${target}?kind=${word}&pair=${word}&after=${word}&limit=${word}`)
    }
  })

  test('a credential that is limited to some pairs gives, takes and sees nothing of the others, nor of the whole', async () => {
    const { client, id, a } = await adoptedPair(runtime())
    const made = await client.call(createToken, {
      body: { name: 'limited', role: 'admin', scopes: [...permissions], pairs: [id] },
    })
    const limited = new ApiClient({ url: runtime().url, token: made.body.token })
    const other = await enrolledHost(client, { name: 'other', address: '10.9.0.7' })
    const { body: wide } = await client.call(createToken, { body: { name: 'wide', role: 'viewer' } })
    const tool = { name: 'wide', publicKey: 'A'.repeat(43), verbs: ['prechecks' as const] }
    const { body: wideKey } = await client.call(createToolKey, { body: tool })
    const { body: mine } = await limited.call(getPermissions, {})
    assert.ok(!mine.permissions.includes('audit:read') && !mine.permissions.includes('organisation:manage'))
    const { body: ticket } = await client.call(createEnrolmentToken, { body: { name: 'later' } })
    assert.deepEqual((await limited.call(listEnrolmentTokens, {})).body.data, [])
    const refused: [string, number, () => Promise<unknown>][] = [
      ['forbidden', 403, () => limited.call(listAudit, {})],
      ['forbidden', 403, () => limited.call(createEnrolmentToken, { body: { name: 'new' } })],
      [
        'not_found',
        404,
        () => limited.call(createEnrolmentToken, { body: { name: 'new', replaces: other.identity.host } }),
      ],
      ['not_found', 404, () => limited.call(revokeToken, { params: { token: wide.record.id } })],
      ['not_found', 404, () => limited.call(revokeToolKey, { params: { toolKey: wideKey.id } })],
      ['not_found', 404, () => limited.call(withdrawEnrolmentToken, { params: { enrolmentToken: ticket.id } })],
      ['forbidden', 403, () => limited.call(toolCertificate, { body: { publicKey: 'any' } })],
      ['forbidden', 403, () => limited.call(createToken, { body: { name: 'x', role: 'viewer' } })],
    ]
    for (const [code, status, call] of refused) await assert.rejects(call(), refusal(code, status))
    assert.deepEqual((await limited.call(listToolKeys, {})).body.data, [])
    const seen = (await limited.call(listTokens, {})).body.data.map(one => one.name)
    assert.deepEqual(seen, ['limited'])
    const { body: own } = await limited.call(createToken, { body: { name: 'own', role: 'viewer', pairs: [id] } })
    await limited.call(revokeToken, { params: { token: own.record.id } })
    assert.equal((await client.call(listTokens, {})).body.data.find(one => one.name === 'wide')?.revokedAt, null)
    // What it asks of a host of its pair it can follow.
    const asked = await limited.call(takeInventory, { params: { host: a.identity.host } })
    const { body: followed } = await limited.call(getOperation, { params: { operation: asked.body.id } })
    assert.equal(followed.host, a.identity.host)
  })

  test('a query that forgot its organisation is shown nothing by the database itself', async () => {
    const { client } = await adoptedPair(runtime())
    assert.equal((await client.call(listPairs, {})).body.data.length, 1)
    const sql = postgres(runtime().databaseUrl, { max: 1 })
    try {
      for (const table of [
        'pair',
        'host',
        'operation',
        'event',
        'audit',
        'alarm',
        'command',
        'host_desired',
        'host_reported',
        'witness_vote',
        'tool_key',
      ]) {
        const [row] = await sql`select count(*)::int as rows from ${sql(table)}`
        assert.equal(row!.rows, 0, table)
      }
      await assert.rejects(sql`truncate audit`, /append-only/)
    } finally {
      await sql.end({ timeout: 1 })
    }
  })
}

/** A second pair of the same organisation, adopted. */
async function otherPair(client: ApiClient): Promise<string> {
  const made = async (name: string, address: string) => {
    const host = await enrolledHost(client, { name, address })
    await host.send()
    return host.identity.host
  }
  const hosts = { a: await made('gamma', '10.9.0.3'), b: await made('delta', '10.9.0.4') }
  const addresses = { a: { addresses: ['10.9.0.3'] }, b: { addresses: ['10.9.0.4'] } }
  const wish = { ...settings, vips: [], hosts: addresses }
  const { body } = await client.call(setUpPair, { body: { name: 'invoices', hosts, settings: wish, adopt: true } })
  return body.pair
}

/** What passes the rules of the body, so that the id alone decides. */
const reason = 'test'
const bodies: Record<string, unknown> = {
  renameHost: { name: 'mine' },
  putVswitch: { name: 'vs1', types: [], nics: [], addresses: [] },
  changeInitiatorName: { name: 'iqn.2026-01.example.host:a' },
  discoverTargets: { portal: '10.0.0.9' },
  retireHost: { reason },
  changeSettings: { profile: 'fast' },
  switchOver: { reason },
  takeOver: {
    host: 'b',
    expectedGen: 1,
    expectedEpoch: 1,
    reason,
    acknowledge: { otherHostIsOff: true, lossBytes: null },
  },
  beginMaintenance: { forMinutes: 5, reason },
  unpair: { reason },
  replaceMember: { host: 'b', reason },
  admitWitness: { reason },
  changeKeys: { reason },
  changeHostKeys: { reason },
}
