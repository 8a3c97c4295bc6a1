import assert from 'node:assert/strict'
import { test } from 'node:test'
import postgres from 'postgres'
import { placeOf } from '../../control-plane/db/client.ts'
import { postgresPlace } from '../../shared/postgres-place.ts'

test('a database at an IPv6 address is asked there, as a place and in an address', async () => {
  // Nobody listens: whether it is asked or the machine has no IPv6, the kernel says no to the address that was wanted.
  const port = 1
  const options = { max: 1, backoff: false, user: 'nobody' } as const
  const url = `postgres://[::1]:${port}/nothing`
  for (const sql of [
    postgres({ ...postgresPlace({ host: '::1', port }), ...options }),
    postgres(url, { ...placeOf(url), ...options }),
  ]) {
    await assert.rejects(async () => sql`select 1`, { syscall: 'connect', address: '::1', port })
    await sql.end({ timeout: 0 })
  }
})
