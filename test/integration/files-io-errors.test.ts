import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import type { FilesPair } from '../fixtures/files-pair.ts'
import { filesScene, same, writeWhole } from '../fixtures/files-scene.ts'
import { dropFromMemory, LoopDisk } from '../fixtures/loop-disk.ts'
import { until } from '../fixtures/until.ts'

/** Disks that answer with EIO, on either side: real ones, of loop devices whose file has no room or has lost its end. */

const scene = filesScene()
const skip = existsSync('/dev/loop-control') ? false : 'this machine has no loop devices'
const mebibyte = 2 ** 20
const recoversWithinMs = 30_000

/** Whatever has a name on the backup has it with the primary's contents. */
function expectWhole(pair: FilesPair): void {
  for (const name of readdirSync(pair.path('b'))) {
    if (name.startsWith('.understudy') || name === 'lost+found') continue
    const [here, there] = [readFileSync(pair.path('a', name)), readFileSync(pair.path('b', name))]
    assert.ok(here.equals(there), `${name} is not whole on the backup`)
  }
}

test('a disk of the backup that fails at the flush is told, shows no half file, and what is missing follows when it is well', {
  skip,
}, async () => {
  const it = await scene.made()
  const disk = new LoopDisk({ sizeMb: 64, backedMb: 12 })
  scene.atEnd(() => disk.remove())
  scene.mount('b', ...disk.mountArguments)
  await it.startBoth()
  writeFileSync(it.path('a', 'before'), 'arrived')
  await it.barrier('a')
  for (let at = 0; at < 20; at += 1) writeWhole(it, `small${at}`, Buffer.alloc(mebibyte / 2, at + 1))
  writeWhole(it, 'large', Buffer.alloc(5 * mebibyte, 7))
  await until(async () => (await it.status('a')).blocked === "the backup can't write: EIO", recoversWithinMs)
  await assert.rejects(it.barrier('a', 300), /not durable on the backup .*: the backup can't write: EIO/)
  writeWhole(it, 'meanwhile', Buffer.from('the primary goes on'))
  expectWhole(it)
  disk.grow(96)
  await it.barrier('a', recoversWithinMs)
  assert.equal((await it.status('a')).blocked, null)
  // From the disk, not from what the kernel still has in memory.
  for (const name of ['large', 'small19', 'meanwhile']) dropFromMemory(it.path('b', name))
  expectWhole(it)
  assert.ok(existsSync(it.path('b', 'large')) && existsSync(it.path('b', 'small19')))
  assert.equal(readFileSync(it.path('b', 'meanwhile'), 'utf8'), 'the primary goes on')
})

test('a file that the disk of the primary does not give back is told, no other waits for it, and it follows when it can be read', {
  skip,
}, async () => {
  const it = await scene.made()
  const disk = new LoopDisk({ sizeMb: 32, backedMb: 48 })
  scene.atEnd(() => disk.remove())
  scene.mount('a', ...disk.mountArguments)
  mkdirSync(it.path('a', 'folder'))
  writeFileSync(it.path('a', 'folder', 'small'), 'can be read')
  writeFileSync(it.path('a', 'folder', 'broken'), Buffer.alloc(4 * mebibyte, 5))
  disk.breakEndOf(it.path('a', 'folder', 'broken'))
  assert.throws(() => readFileSync(it.path('a', 'folder', 'broken')), /EIO/)
  await it.startBoth()
  await until(
    async () => (await it.status('a')).problems.some(one => /^folder\/broken: it can't be read: .*EIO/.test(one)),
    recoversWithinMs,
  )
  await until(() => existsSync(it.path('b', 'folder', 'small')), recoversWithinMs)
  writeFileSync(it.path('a', 'folder', 'later'), 'is sent meanwhile')
  await until(() => existsSync(it.path('b', 'folder', 'later')), recoversWithinMs)
  assert.ok(!existsSync(it.path('b', 'folder', 'broken')), 'no half of it is shown')
  await assert.rejects(it.barrier('a', 300), /folder\/broken: it can't be read/)
  disk.restore()
  await it.barrier('a', recoversWithinMs)
  assert.deepEqual((await it.status('a')).problems, [])
  same(it)
})

test('names that the disk of the primary does not give back are not taken for removed: it is told, and they are there when it is well', {
  skip,
}, async () => {
  const it = await scene.made()
  const disk = new LoopDisk({ sizeMb: 32, backedMb: 48 })
  scene.atEnd(() => disk.remove())
  scene.mount('a', ...disk.mountArguments)
  // One in a single block, where the kernel leaves out what it can't read; one with an index of names, where it fails.
  const folders = [
    ['few', 5],
    ['many', 300],
  ] as const
  for (const [folder, files] of folders) {
    mkdirSync(it.path('a', folder))
    for (let at = 0; at < files; at += 1) writeFileSync(it.path('a', folder, `a rather long name ${at}`), String(at))
  }
  await it.startBoth()
  await it.barrier('a')
  for (const [folder, files] of folders) {
    await Promise.all([it.host('a').kill(), it.host('b').kill()])
    disk.breakNamesOf(it.path('a', folder))
    scene.unmount('a')
    scene.mount('a', ...disk.mountArguments)
    await it.startBoth()
    await until(async () => (await it.status('a')).problems.some(one => one.startsWith(folder)), recoversWithinMs)
    writeFileSync(it.path('a', `beside ${folder}`), 'goes on')
    await until(() => existsSync(it.path('b', `beside ${folder}`)), recoversWithinMs)
    assert.equal(readdirSync(it.path('b', folder)).length, files)
    await assert.rejects(it.barrier('a', 300), /not durable/)
    disk.restore()
    await it.barrier('a', recoversWithinMs)
    assert.deepEqual((await it.status('a')).problems, [])
    same(it)
  }
})
