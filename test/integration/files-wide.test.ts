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
/** Of CPU time. Without pauses it was 3 000 for 20 000 names. */
const busyMaxMs = 250
const limitMs = 400_000

test('a directory with very many names is taken in, compared and moved without holding up anything else', async () => {
  const it = await scene.made()
  const wide = it.path('a', 'wide')
  mkdirSync(wide)
  for (let i = 0; i < names; i += 1) closeSync(openSync(join(wide, `some-name-${i}`), 'w'))
  execFileSync('cp', ['--archive', wide, it.path('b', 'wide')])
  rmSync(it.path('b', 'wide', 'some-name-7'))
  writeFileSync(it.path('b', 'wide', 'surplus'), '')
  await Promise.all([it.start('a'), it.start('b')])
  const busiest = [await it.busiestMs('a'), await it.busiestMs('b')]
  await it.role('b', { role: 'backup', epoch: 1 })
  await it.role('a', { role: 'primary', epoch: 1 })
  await it.barrier('a', limitMs)
  const { last } = (await it.status('a')).comparison
  assert.deepEqual({ files: last?.files, differences: last?.differences }, { files: names + 1, differences: 2 })
  same(it)
  // Out of the tree, and into it as something new.
  renameSync(wide, join(it.folder, 'wide'))
  await it.barrier('a', limitMs)
  renameSync(join(it.folder, 'wide'), it.path('a', 'again'))
  await it.barrier('a', limitMs)
  same(it)
  busiest.push(await it.busiestMs('a'), await it.busiestMs('b'))
  assert.ok(Math.max(...busiest) < busyMaxMs, `without a turn for others: ${busiest.join(', ')} ms of CPU time`)
})
