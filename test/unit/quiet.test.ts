import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Quiet } from '../../node-agent/quiet.ts'

test('every other turn is left out once nothing has happened for a while, and none before', () => {
  const quiet = new Quiet()
  quiet.happened(5000)
  const turns = (from: number): boolean[] => [0, 100, 200, 300].map(ms => quiet.leavesOut(from + ms))
  assert.deepEqual(turns(5100), [false, false, false, false])
  assert.deepEqual(turns(25_000), [true, false, true, false])
  quiet.happened(25_400)
  assert.deepEqual(turns(25_500), [false, false, false, false])
})
