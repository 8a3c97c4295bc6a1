import assert from 'node:assert/strict'
import { test } from 'node:test'
import { torture } from './files-torture.ts'

/**
 * Seeds that once ended with differing trees, each for some seconds; `npm run torture:files` is the long form. What they
 * found has scenarios of its own in test/integration/files-contents.test.ts, since a seed does not repeat the timing.
 *
 * - 20261126: a change of mode that went to one of two names which were separate files on the backup; a directory's
 *   time sent before the large file in it had ended
 * - 2: a file written through one of its names while the directory of the other was being compared
 * - 7, 10: a seed that fell behind its writers, one question for hashes after the other
 */
const seeds = [20_261_126, 2, 7, 10]
const durationMs = 10_000

for (const seed of seeds) {
  test(`random changes under cuts, kills and takeovers end with equal trees: seed ${seed}`, async () => {
    const said: string[] = []
    const result = await torture({ seed, durationMs, writers: 3, say: line => said.push(line) })
    assert.equal(result.differences, '', said.join('\n'))
  })
}
