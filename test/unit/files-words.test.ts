import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type ShownTree, treeState } from '../../node-agent/cli/show-tree.ts'

const cases: [string, ShownTree, string][] = [
  ['a copy that has everything', { state: 'in sync', behindChanges: 0 }, 'in sync'],
  [
    'a lag in changes, bytes and seconds',
    { state: 'behind', behindChanges: 3, behindBytes: 12_600, behindS: 0.21 },
    'behind by 3 changes, about 12.3 KiB, 0.2 s',
  ],
  [
    'a single change that waits for long',
    { state: 'behind', behindChanges: 1, behindBytes: 0, behindS: 300 },
    'behind by 1 change, about 0 bytes, 5 minutes',
  ],
  [
    'a seed with its estimate',
    { state: 'seeding', behindChanges: 900, seed: { percent: 40, leftS: 61 } },
    'seeding 40 %, about 61 s left',
  ],
  [
    'a seed that just began',
    { state: 'seeding', seed: { percent: 0, leftS: null } },
    'seeding 0 %, how long is not known yet',
  ],
  [
    'a tree that was moved away',
    { state: 'diverged', blocked: 'it is elsewhere' },
    'diverged: what is written is not replicated',
  ],
  ['a difference', { state: 'diverged' }, 'diverged: differences were found and are repaired'],
  [
    'a backup that is away',
    { state: 'no backup', behindChanges: 2, behindBytes: 3 * 2 ** 30, behindS: 9000 },
    'no backup is connected; it will be behind by 2 changes, about 3.0 GiB, 3 hours',
  ],
]
for (const [what, tree, words] of cases) {
  test(`the state of a tree in words: ${what}`, () => assert.equal(treeState(tree), words))
}
