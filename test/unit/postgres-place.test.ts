import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import postgres from 'postgres'
import { placeOf } from '../../control-plane/db/client.ts'
import { postgresPlace } from '../../shared/postgres-place.ts'

test('a database at an IPv6 address is asked there, as a place and in an address', async () => {
  const server = createServer()
  server.listen(0, '::1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.on('connection', socket => socket.on('error', () => {}))
  const asked = async (ask: () => Promise<unknown>): Promise<string | undefined> => {
    const connected = once(server, 'connection')
    ask().catch(() => {})
    const [socket] = (await connected) as [Socket]
    return socket.localAddress
  }
  const options = { max: 1, backoff: false, user: 'nobody' } as const
  const url = `postgres://[::1]:${port}/nothing`
  for (const sql of [
    postgres({ ...postgresPlace({ host: '::1', port }), ...options }),
    postgres(url, { ...placeOf(url), ...options }),
  ]) {
    assert.equal(await asked(() => sql`select 1`), '::1')
    await sql.end({ timeout: 0 })
  }
  server.close()
})
