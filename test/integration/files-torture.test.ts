import assert from 'node:assert/strict'
import { test } from 'node:test'
import { torture } from '../torture/files-torture.ts'

/** Long enough for each kind of fault; the long form is `npm run torture:files`. */
const durationMs = 20_000

test('under random changes, cuts, kills and takeovers no acknowledged barrier is lost and the trees end up the same', async () => {
  const seed = 20_261_126
  const said: string[] = []
  const result = await torture({ seed, durationMs, writers: 2, say: line => said.push(line) }).catch(error => {
    throw new Error(`seed ${seed}, after ${said.join(', ')}: ${error instanceof Error ? error.message : error}`)
  })
  assert.equal(result.differences, '', `seed ${seed}, ${JSON.stringify(result.faults)}`)
  assert.ok(result.barriers > 0, 'no barrier was acknowledged at all')
})
