import assert from 'node:assert/strict'
import { test } from 'node:test'
import postgres from 'postgres'
import { routes } from '../../../shared/contract/api/index.ts'
import { listAlarms, listEvents } from '../../../shared/contract/api/observation.ts'
import { listOperations } from '../../../shared/contract/api/operations.ts'
import { createToken, listTokens } from '../../../shared/contract/api/organisations.ts'
import { getPair, listPairs } from '../../../shared/contract/api/pairs.ts'
import type { Route } from '../../../shared/contract/api/route.ts'
import { createToolKey } from '../../../shared/contract/api/tool-keys.ts'
import { adoptedPair } from '../support/pair.ts'
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
    const tool = { name: 'tool', publicKey: 'A'.repeat(43), verbs: ['prechecks' as const] }
    const toolKey = (await owner.call(createToolKey, { body: tool })).body.id
    const ids: Record<string, string> = {
      pair,
      host: a.identity.host,
      operation,
      token,
      alarm,
      toolKey,
      vswitch: 'vs0',
    }
    const mine = await newTenant(runtime())
    const withIds = routes.filter(
      route =>
        route.path.includes('{') &&
        route.access !== 'host' &&
        route.access !== 'pair host' &&
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
    const outsider = await limited(['01j00000000000000000000000'])
    assert.deepEqual((await outsider.call(listPairs, {})).body.data, [])
    await assert.rejects(outsider.call(getPair, { params: { pair: id } }), refusal('not_found', 404))
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
}
