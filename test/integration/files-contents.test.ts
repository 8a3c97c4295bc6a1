import assert from 'node:assert/strict'
import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { filesScene, same } from '../fixtures/files-scene.ts'
import { until } from '../fixtures/until.ts'

/** What sizes and times do not tell: contents that differ under both alike, files that are on their way, ties. */

const { started } = filesScene()
const mebibyte = 2 ** 20

/** Writes into a file without a trace in its size and time. */
function alter(path: string, text: string, at: number): void {
  const { atime, mtime } = statSync(path)
  const fd = openSync(path, 'r+')
  writeSync(fd, Buffer.from(text), 0, text.length, at)
  closeSync(fd)
  utimesSync(path, atime, mtime)
}

test('contents that changed on the backup under the same size and time are found by reading them, told and repaired', async () => {
  const it = await started()
  const oldTime = 1_600_000_000
  for (const name of ['small', 'large', 'untouched']) {
    writeFileSync(it.path('a', name), Buffer.alloc(name === 'large' ? 5 * mebibyte : 5000, name))
    utimesSync(it.path('a', name), oldTime, oldTime)
  }
  await it.barrier('a')
  alter(it.path('b', 'small'), 'rot', 100)
  alter(it.path('b', 'large'), 'rot', 3 * mebibyte)
  await it.host('a').ask('scrub', {})
  await until(async () => (await it.status('a')).comparison.last?.why === 'scrub')
  assert.match(it.differences(), /small/, 'a comparison of sizes and times can not know')
  await it.host('a').ask('scrub', { what: 'contents' })
  await until(async () => (await it.status('a')).contents.last !== null)
  await it.barrier('a')
  same(it)
  const { contents, state } = await it.status('a')
  assert.equal(contents.last?.files, 3)
  assert.equal(contents.last?.differences, 2)
  assert.equal(state, 'in sync')
  assert.equal(it.host('a').notes.filter(note => note.includes('differ on the backup')).length, 2)
})

test('a returning primary’s version with the size and time of the new one’s is told apart by its contents, and kept', async () => {
  const it = await started()
  const time = 1_700_000_000
  writeFileSync(it.path('a', 'both'), 'before')
  writeFileSync(it.path('a', 'alike'), 'the same on both')
  await it.barrier('a')
  it.cut('a')
  writeFileSync(it.path('a', 'both'), 'mine!!')
  await it.host('a').kill()
  await it.role('b', { role: 'primary', epoch: 2 })
  writeFileSync(it.path('b', 'both'), 'theirs')
  writeFileSync(it.path('a', 'alike'), 'the same on both')
  for (const host of ['a', 'b'] as const) {
    for (const name of ['both', 'alike']) utimesSync(it.path(host, name), time, time)
  }
  await it.start('a')
  await it.role('a', { role: 'backup', epoch: 2 })
  await it.barrier('b')
  assert.equal(readFileSync(it.path('a', 'both'), 'utf8'), 'theirs')
  same(it, 'b')
  await until(() => it.host('a').notes.some(note => note.includes('are kept in')))
  const area = join(it.folder, 'a', '.tree.understudy-sync', 'conflicts', '1', 'files')
  assert.equal(readFileSync(join(area, 'both'), 'utf8'), 'mine!!')
  assert.equal(existsSync(join(area, 'alike')), false, 'what both have is no conflict')
})

test('a large file that gets another name while it is on its way arrives under it in its new version', async () => {
  const it = await started()
  for (let round = 0; round < 2; round += 1) {
    const before = (await it.status('a')).sentBytes
    writeFileSync(it.path('a', 'first'), Buffer.alloc(12 * mebibyte, round))
    if (round === 0) await it.barrier('a')
    else await until(async () => (await it.status('a')).sentBytes > before + mebibyte)
    renameSync(it.path('a', 'first'), it.path('a', `second${round}`))
    await it.barrier('a')
    same(it)
    writeFileSync(it.path('a', 'first'), Buffer.alloc(12 * mebibyte, 100 + round))
    await it.barrier('a')
  }
})

test('a tie that only the backup has carries no change from one file to the other', async () => {
  const it = await started()
  const time = 1_650_000_000
  for (const name of ['x', 'y']) {
    writeFileSync(it.path('a', name), Buffer.alloc(2 * mebibyte, 'x'))
    utimesSync(it.path('a', name), time, time)
  }
  await it.barrier('a')
  rmSync(it.path('b', 'y'))
  linkSync(it.path('b', 'x'), it.path('b', 'y'))
  const fd = openSync(it.path('a', 'x'), 'r+')
  writeSync(fd, Buffer.from('changed'), 0, 7, mebibyte)
  closeSync(fd)
  await it.barrier('a')
  same(it)
  rmSync(it.path('b', 'y'))
  linkSync(it.path('b', 'x'), it.path('b', 'y'))
  chmodSync(it.path('a', 'x'), 0o600)
  await it.barrier('a')
  assert.equal(statSync(it.path('b', 'x')).mode & 0o777, 0o600)
  assert.notEqual(statSync(it.path('b', 'x')).ino, statSync(it.path('b', 'y')).ino)
})

test('names that were tied wrongly on the backup are tied as on the primary by a comparison', async () => {
  const it = await started()
  const time = 1_650_000_000
  for (const group of ['g', 'h']) {
    writeFileSync(it.path('a', `${group}1`), 'alike')
    linkSync(it.path('a', `${group}1`), it.path('a', `${group}2`))
    utimesSync(it.path('a', `${group}1`), time, time)
  }
  await it.barrier('a')
  same(it)
  // Two groups of two again, but others.
  rmSync(it.path('b', 'g2'))
  rmSync(it.path('b', 'h2'))
  linkSync(it.path('b', 'g1'), it.path('b', 'h2'))
  linkSync(it.path('b', 'h1'), it.path('b', 'g2'))
  assert.notEqual(it.differences(), '')
  await it.host('a').ask('scrub', {})
  await until(async () => (await it.status('a')).comparison.last?.why === 'scrub')
  await it.barrier('a')
  same(it)
})
