import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { ControlLink } from '../../node-agent/control/link.ts'
import { Carrier, type RelayAnswer, type RelayRequest } from '../../node-agent/control/relay.ts'
import { getHost } from '../../shared/contract/api/hosts.ts'
import { getOperation } from '../../shared/contract/api/operations.ts'
import { changeSettings, getPair, switchOver } from '../../shared/contract/api/pairs.ts'
import type { DesiredDocument } from '../../shared/contract/api/settings.ts'
import { temporaryFolder } from './support/folder.ts'
import { pairReport, type TestHost } from './support/host.ts'
import { emptySummary, untilWithin } from './support/link.ts'
import { adoptedPair } from './support/pair.ts'
import { type NodeRuntime, nodeRuntime } from './support/runtime.ts'

/** A host that gets through neither to the broker nor by HTTPS, beside a peer that carries for it: well, or with bad intent. */
let runtime: NodeRuntime
const links: ControlLink[] = []
before(async () => {
  runtime = await nodeRuntime()
})
after(async () => {
  for (const link of links) await link.close()
  await runtime?.close()
})

const cut: typeof fetch = () => Promise.reject(new Error('no route to the control plane'))

async function cutOff(host: TestHost, relay: (request: RelayRequest) => Promise<RelayAnswer>) {
  const applied: DesiredDocument[] = []
  const notes: string[] = []
  const run: string[] = []
  const link = await ControlLink.open({
    identity: host.identity,
    folder: temporaryFolder(),
    fetch: cut,
    relay,
    host: {
      present: async () => ({ gen: 1, epoch: 1, node: 'a' }),
      state: async () => ({
        pair: pairReport({ role: 'primary', primary: 'a' }),
        agent: { version: '0.1.0', startedAt: new Date().toISOString() },
      }),
      run: async command => {
        run.push(command.verb)
        return { phase: 'done', message: 'it is done' }
      },
      apply: async wish => {
        applied.push(wish)
        return { ok: true }
      },
    },
    policy: { refuse: [] },
    nowMs: Date.now,
    random: () => 0.5,
    note: why => notes.push(why),
    settled: () => {},
    unknown: async () => {},
    inventory: async () => ({ summary: emptySummary, network: {}, storage: {} }),
  })
  links.push(link)
  await link.start()
  return { link, applied, notes, run }
}

const until = untilWithin(60)

test('a host that is cut off gets its wish and a command through its peer, and its signed answer and report go back the same way', async () => {
  const { client, id, a, b } = await adoptedPair(runtime)
  const carrier = new Carrier({ url: b.identity.url })
  const { link, applied, run } = await cutOff(a, request => carrier.carry(request))
  await until('the wish has come', async () => applied.some(wish => wish.host === a.identity.host))
  assert.equal(link.state().throughPeer, true)
  const begun = await client.call(switchOver, { params: { pair: id }, body: { reason: 'update' } })
  assert.ok('id' in begun.body)
  const { id: operation } = begun.body
  await until('the command is answered', async () => {
    const { body } = await client.call(getOperation, { params: { operation } })
    return body.steps[0]?.state === 'done'
  })
  assert.deepEqual(run, ['switchover'])
  const { body } = await client.call(getHost, { params: { host: a.identity.host } })
  assert.equal(body.connected, 'yes')
})

test('a peer that swaps, changes or holds back documents gets nothing applied but what was signed for this host, and nothing older', async () => {
  const { client, id, a, b } = await adoptedPair(runtime)
  const honest = new Carrier({ url: a.identity.url })
  const foreign = await b.cloud.pull()
  assert.ok(foreign.ok && foreign.value !== null)
  const others = foreign.value
  interface Documents {
    desired: string
    commands: string[]
  }
  let evil: (real: Documents) => object = real => ({ ...real, desired: others.desired, commands: [] })
  let first: string | null = null
  let pulls = 0
  const { applied, notes } = await cutOff(a, async request => {
    const answer = await honest.carry({ ...request, ifNoneMatch: null })
    if (request.path !== '/agent/v1/desired') return answer
    pulls++
    const real = JSON.parse(answer.body) as Documents
    first ??= real.desired
    return { ...answer, etag: `"${pulls}"`, body: JSON.stringify(evil(real)) }
  })
  await until('the foreign document is refused', async () => notes.some(why => why.includes('meant for host')))
  assert.deepEqual(applied, [])
  evil = real => {
    const jws = JSON.parse(real.desired) as { payload: string }
    const wish = JSON.parse(Buffer.from(jws.payload, 'base64url').toString()) as DesiredDocument
    const payload = Buffer.from(JSON.stringify({ ...wish, generation: 99 })).toString('base64url')
    return { ...real, desired: JSON.stringify({ ...jws, payload }) }
  }
  await until('the forged document is refused', async () =>
    notes.some(why => why.startsWith('a desired document is refused') && !why.includes('meant for host')),
  )
  assert.deepEqual(applied, [])
  const { etag } = await client.call(getPair, { params: { pair: id } })
  await client.call(changeSettings, { params: { pair: id }, body: { protectedPorts: [5432, 8080] }, ifMatch: etag! })
  evil = real => real
  const newest = await until<DesiredDocument>('the newest wish is applied', async () => applied.at(-1) ?? null)
  assert.deepEqual(newest.pair?.settings.protectedPorts, [5432, 8080])
  const times = applied.length
  evil = real => ({ ...real, desired: first })
  await until('the older document is refused', async () => notes.some(why => /generation 1 is refused/.test(why)))
  assert.equal(applied.length, times)
})

test('a peer carries what a link needs, to its own control plane, bounded, and nothing else', async () => {
  const { a } = await adoptedPair(runtime)
  const asked: string[] = []
  let release: () => void = () => {}
  const held = new Promise<void>(resolve => {
    release = resolve
  })
  let size = 10
  const carrier = new Carrier({
    url: a.identity.url,
    fetch: async input => {
      asked.push(String(input))
      await held
      return new Response('x'.repeat(size))
    },
  })
  const good = {
    method: 'GET',
    path: '/agent/v1/desired',
    authorization: 'Understudy a.b.c',
    ifNoneMatch: null,
    body: null,
  }
  for (const wrong of [
    { ...good, path: '/v1/pairs' },
    { ...good, path: '/agent/v1/certificate' },
    { ...good, path: '//elsewhere.example/agent/v1/desired' },
    { ...good, method: 'DELETE' },
    { ...good, authorization: 'Bearer token' },
    { ...good, body: 'x'.repeat(50_000) },
    { ...good, url: 'https://elsewhere.example' },
    null,
  ])
    await assert.rejects(carrier.carry(wrong), /is not carried/)
  assert.deepEqual(asked, [])
  const four = [1, 2, 3, 4].map(() => carrier.carry(good))
  await assert.rejects(carrier.carry(good), /4 requests are being carried already/)
  release()
  await Promise.all(four)
  assert.ok(asked.every(url => url === `${a.identity.url}/agent/v1/desired`))
  size = 60_000
  await assert.rejects(carrier.carry(good), /60000 bytes is more than travels/)
})
