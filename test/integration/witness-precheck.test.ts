import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { witnessReached } from '../../node-agent/control/witness-precheck.ts'
import { witnessIn } from '../fixtures/witness.ts'

test('a precheck says whether the witness is there, is the one that is meant, and how long the way to it takes', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-witness-'))
  const witness = await witnessIn(folder)
  const url = `https://127.0.0.1:${witness.port}`
  const { fingerprint } = witness.identity
  const asked = (change: { fingerprint?: string; limitMs?: number; url?: string } = {}) =>
    witnessReached({ url, fingerprint, limitMs: 4_000, ...change })
  try {
    const near = await asked()
    assert.equal(near.severity, 'passed', near.measured)
    assert.match(near.measured, /^[\d.]+ ms there and back, [\d.]+ ms at most of 10$/)
    assert.match(near.limit, /answers within 4000 ms, which the profile admits for a vote/)
    // No answer over TCP and TLS comes within a microsecond.
    assert.equal((await asked({ limitMs: 0.001 })).severity, 'blocking')
    const other = await asked({ fingerprint: 'ab'.repeat(32) })
    assert.equal(other.severity, 'blocking')
    assert.match(other.measured, /another witness, or somebody in between/)
  } finally {
    await witness.close()
  }
  const gone = await asked()
  assert.equal(gone.severity, 'blocking')
  assert.match(gone.measured, /ECONNREFUSED/)
  rmSync(folder, { recursive: true, force: true })
})
