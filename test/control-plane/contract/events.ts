import assert from 'node:assert/strict'
import { test } from 'node:test'

import { routes } from '../../../shared/contract/api/index.ts'
import { listEvents } from '../../../shared/contract/api/observation.ts'
import { enrolledHost } from '../support/host.ts'
import { newTenant, type Runtime } from '../support/runtime.ts'

/** Reads the stream until `count` events came, or time is over. */
async function readStream(part: {
  url: string
  token: string
  lastEventId?: number
  count: number
}): Promise<number[]> {
  const abort = new AbortController()
  const response = await fetch(`${part.url}/v1/events/stream`, {
    headers: {
      authorization: `Bearer ${part.token}`,
      ...(part.lastEventId !== undefined && { 'last-event-id': String(part.lastEventId) }),
    },
    signal: abort.signal,
  })
  assert.equal(response.headers.get('content-type'), 'text/event-stream')
  const ids: number[] = []
  const timer = setTimeout(() => abort.abort(), 15_000)
  let text = ''
  try {
    for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
      text += chunk
      const complete = text.split('\n\n')
      text = complete.pop() ?? ''
      for (const block of complete) {
        const id = /^id: (\d+)$/m.exec(block)?.[1]
        if (id !== undefined) ids.push(Number(id))
      }
      if (ids.length >= part.count) break
    }
  } catch (error) {
    if (!abort.signal.aborted) throw error
  } finally {
    clearTimeout(timer)
    abort.abort()
  }
  return ids
}

export function eventTests(runtime: () => Runtime): void {
  test('the event stream resumes where a client stopped, without gap or repetition', async () => {
    const { client, token } = await newTenant(runtime())
    const host = await enrolledHost(client, { name: 'alpha', address: '10.9.0.1' })
    const send = async (from: number, count: number): Promise<void> => {
      const events = Array.from({ length: count }, (_, at) => ({
        id: `01j0000000000000000000${String(from + at).padStart(4, '0')}`,
        at: new Date().toISOString(),
        kind: 'test',
        severity: 'info' as const,
        message: `${from + at}`,
      }))
      assert.ok((await host.cloud.events(events)).ok)
    }
    await send(1, 5)
    const first = await readStream({ url: runtime().url, token, lastEventId: 0, count: 4 })
    await send(6, 5)
    const rest = await readStream({ url: runtime().url, token, lastEventId: first.at(-1)!, count: 11 - first.length })
    assert.deepEqual(
      [...first, ...rest],
      Array.from({ length: 11 }, (_, at) => at + 1),
    )
    const { body } = await client.call(listEvents, { query: { limit: 200 } })
    assert.deepEqual(
      body.data.map(one => one.id),
      [...first, ...rest],
    )
  })

  test('a position that was never given is answered with 410', async () => {
    const { token } = await newTenant(runtime())
    const response = await fetch(`${runtime().url}/v1/events/stream`, {
      headers: { authorization: `Bearer ${token}`, 'last-event-id': '999' },
    })
    assert.equal(response.status, 410)
    await response.body?.cancel()
  })

  test('the documents describe every route, and the page to browse them loads nothing from elsewhere', async () => {
    const { url } = runtime()
    const api = (await (await fetch(`${url}/openapi.json`)).json()) as {
      openapi: string
      paths: Record<string, Record<string, { operationId: string }>>
    }
    assert.equal(api.openapi, '3.1.0')
    const described = Object.values(api.paths).flatMap(methods => Object.values(methods).map(one => one.operationId))
    assert.deepEqual(described.sort(), routes.map(route => route.id).sort())
    const asynchronous = (await (await fetch(`${url}/asyncapi.json`)).json()) as { asyncapi: string; channels: object }
    assert.deepEqual([asynchronous.asyncapi, Object.keys(asynchronous.channels).length], ['3.0.0', 9])
    const page = await fetch(`${url}/docs`)
    assert.match(page.headers.get('content-security-policy') ?? '', /default-src 'none'/)
    const text = await page.text()
    assert.doesNotMatch(text, /(src|href)="https?:/)
    for (const [, path = ''] of text.matchAll(/(?:src|href)="(docs\.\w+)"/g)) {
      const answer = await fetch(`${url}/${path}`)
      assert.equal(answer.status, 200, path)
      // Whether it is a script at all: it is a text to everybody but a browser.
      if (path.endsWith('.js')) new Function(await answer.text())
    }
    const problem = (await (await fetch(`${url}/v1/hosts`)).json()) as { type: string; code: string }
    const explained = await fetch(url + problem.type, { redirect: 'manual' })
    const place = new URL(explained.headers.get('location') ?? '', explained.url)
    assert.deepEqual([place.pathname, place.hash], ['/docs', `#problem-${problem.code}`])
    assert.ok(text.includes(`id="${place.hash.slice(1)}"`))
  })

  test('a method that a path does not know, and a path that is none, are problem documents with the request’s id', async () => {
    const response = await fetch(`${runtime().url}/v1/nothing`, { headers: { 'x-request-id': 'given-by-client' } })
    assert.equal(response.status, 404)
    assert.equal(response.headers.get('content-type'), 'application/problem+json')
    assert.equal(response.headers.get('request-id'), 'given-by-client')
    const put = await fetch(`${runtime().url}/v1/pairs/01j00000000000000000000000`, { method: 'PUT' })
    assert.deepEqual([put.status, put.headers.get('allow')], [405, 'GET'])
    assert.match(await put.text(), /knows no PUT; it knows GET/)
  })
}
