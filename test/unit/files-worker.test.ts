import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfig } from '../../node-agent/config.ts'
import { filesDefinitions } from '../../node-agent/files/core-side.ts'
import { exampleConfig } from './example-config.ts'

test('each tree’s wait for events has a thread of its own in the files worker, and the disk has some beside them', () => {
  const trees = Array.from({ length: 16 }, (_, i) => ({ name: `t${i}`, path: `/srv/t${i}` }))
  const config = parseConfig(JSON.stringify({ ...exampleConfig, sync: { port: 7401, trees } }), 'this test')
  const [worker] = filesDefinitions(config, { note: () => undefined, opened: () => undefined })
  assert.ok(Number(worker?.env?.UV_THREADPOOL_SIZE) > trees.length)
})
