import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { filesScene, same } from '../fixtures/files-scene.ts'

/** Directories with more names than can be looked at in one go. */

const scene = filesScene()
/** `UNDERSTUDY_WIDE=300000` measures what nobody wants to wait for each time. */
const names = Number(process.env.UNDERSTUDY_WIDE ?? 12_000)
/** Of a loop's work; a listing in one go is 0.38 to 0.48 of it, one by parts 0.04 to 0.1. */
const shareMax = 0.3
const limitMs = 400_000

test('a directory with very many names is taken in, compared and moved without holding up anything else', async () => {
  const it = await scene.made()
  const wide = it.path('a', 'wide')
  fill(wide, names)
  execFileSync('cp', ['--archive', wide, it.path('b', 'wide')])
  rmSync(it.path('b', 'wide', 'some-name-7'))
  writeFileSync(it.path('b', 'wide', 'surplus'), '')
  await Promise.all([it.start('a'), it.start('b')])
  await Promise.all([it.busy('a'), it.busy('b')])
  await it.role('b', { role: 'backup', epoch: 1 })
  await it.role('a', { role: 'primary', epoch: 1 })
  await it.barrier('a', limitMs)
  const busy = await Promise.all([it.busy('a'), it.busy('b')])
  const { last } = (await it.status('a')).comparison
  assert.deepEqual({ files: last?.files, differences: last?.differences }, { files: names + 1, differences: 2 })
  same(it)
  for (const { busiestMs, totalMs } of busy) {
    assert.ok(busiestMs < totalMs * shareMax, `${busiestMs} of ${totalMs} ms without a turn for anything else`)
  }
  // Out of the tree; and another one into it, as something new.
  renameSync(wide, join(it.folder, 'wide'))
  const other = join(it.folder, 'other')
  fill(other, 2500)
  renameSync(other, it.path('a', 'other'))
  await it.barrier('a', limitMs)
  same(it)
})

function fill(folder: string, count: number): void {
  mkdirSync(folder)
  for (let i = 0; i < count; i += 1) closeSync(openSync(join(folder, `some-name-${i}`), 'w'))
}
