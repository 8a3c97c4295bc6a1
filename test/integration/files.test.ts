import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { filesScene, same } from '../fixtures/files-scene.ts'
import { until } from '../fixtures/until.ts'

/** Two files workers, each in its own process, on a real file system, with TLS between them. */

const { made, started } = filesScene()

test('a tree that was there before is seeded, and what is surplus on the backup is removed', async () => {
  const pair = await made()
  for (let i = 0; i < 300; i += 1) {
    mkdirSync(pair.path('a', `d${i % 7}`), { recursive: true })
    writeFileSync(pair.path('a', `d${i % 7}`, `f${i}`), 'x'.repeat(i * 10))
  }
  mkdirSync(pair.path('b', 'old', 'deep'), { recursive: true })
  writeFileSync(pair.path('b', 'old', 'deep', 'file'), 'of an earlier life')
  mkdirSync(pair.path('b', 'd1'))
  writeFileSync(pair.path('b', 'd1', 'f1'), 'stale')
  await pair.startBoth()
  await pair.barrier('a')
  same(pair)
  const { state, comparison } = await pair.status('a')
  assert.equal(state, 'in sync')
  assert.equal(comparison.last?.why, 'seed')
})

test('a seed keeps to its rate, and what changes meanwhile overtakes it', async () => {
  // Slow, so that it is far from its end however long a busy machine takes for what overtakes it.
  const pair = await made({ bulkMbPerS: 1 })
  const files = 48
  for (let i = 0; i < files; i += 1) writeFileSync(pair.path('a', `seed${i}`), Buffer.alloc(2 ** 20, i))
  const beganMs = performance.now()
  await pair.startBoth()
  await until(() => existsSync(pair.path('b', 'seed0')))
  writeFileSync(pair.path('a', 'live'), 'overtakes')
  await until(() => existsSync(pair.path('b', 'live')))
  const seeded = readdirSync(pair.path('b')).filter(name => name.startsWith('seed')).length
  assert.ok(seeded < files, 'it came after all of the seed')
  const { sentBytes, state } = await pair.status('a')
  assert.equal(state, 'seeding')
  const allowed = ((performance.now() - beganMs) / 1000) * 1e6 + 2 * 2 ** 20
  assert.ok(
    sentBytes <= allowed,
    `${sentBytes} bytes were sent, ${Math.round(allowed)} at most are in keeping with the rate`,
  )
})

test('every kind of file arrives with owner, mode, times, attributes and access lists', async () => {
  const it = await started()
  mkdirSync(it.path('a', 'x/y/z'), { recursive: true })
  mkdirSync(it.path('a', 'empty'))
  writeFileSync(it.path('a', 'x/y/z/f'), 'hello')
  symlinkSync('nowhere/at all', it.path('a', 'x/link'))
  linkSync(it.path('a', 'x/y/z/f'), it.path('a', 'x/second-name'))
  writeFileSync(Buffer.concat([Buffer.from(`${it.path('a')}/`), Buffer.from([0xff, 0xfe, 0x20, 0x0a])]), 'not UTF-8')
  writeFileSync(it.path('a', 'set-id'), '#!')
  spawnSync('chown', ['1234:4321', it.path('a', 'set-id')])
  chmodSync(it.path('a', 'set-id'), 0o4751)
  utimesSync(it.path('a', 'x/y/z/f'), 1000, 2000.25)
  for (const command of [
    ['setfattr', '-n', 'user.note', '-v', 'kept', it.path('a', 'x/y/z/f')],
    ['setfacl', '-m', 'u:1:rw,d:g:2:r', it.path('a', 'empty')],
  ]) {
    const { status, stderr } = spawnSync(command[0]!, command.slice(1), { encoding: 'utf8' })
    assert.equal(status, 0, stderr)
  }
  await it.barrier('a')
  same(it)
  assert.equal(lstatSync(it.path('b', 'x/second-name')).ino, lstatSync(it.path('b', 'x/y/z/f')).ino)
  spawnSync('setfattr', ['-x', 'user.note', it.path('a', 'x/y/z/f')])
  chmodSync(it.path('a', 'empty'), 0o711)
  appendFileSync(it.path('a', 'x/second-name'), ', through the other name')
  await it.barrier('a')
  same(it)
})

test('renames, replacements of one kind by another and removals arrive, and a renamed directory is renamed', async () => {
  const it = await started()
  for (let i = 0; i < 500; i += 1) {
    mkdirSync(it.path('a', `d${i % 5}`), { recursive: true })
    writeFileSync(it.path('a', `d${i % 5}`, `f${i}`), `${i}`)
  }
  await it.barrier('a')
  const inode = statSync(it.path('b', 'd0/f0')).ino
  renameSync(it.path('a', 'd0'), it.path('a', 'moved'))
  renameSync(it.path('a', 'd1/f1'), it.path('a', 'moved/f1'))
  renameSync(it.path('a', 'd2'), it.path('a', 'moved/below'))
  rmSync(it.path('a', 'd3'), { recursive: true })
  writeFileSync(it.path('a', 'd3'), 'a file where a directory was')
  rmSync(it.path('a', 'd4/f4'))
  mkdirSync(it.path('a', 'd4/f4'))
  symlinkSync('d1', it.path('a', 'tmp-link'))
  renameSync(it.path('a', 'tmp-link'), it.path('a', 'd4/f9'))
  await it.barrier('a')
  same(it)
  assert.equal(statSync(it.path('b', 'moved/f0')).ino, inode, 'it was copied instead of renamed')
})

test('names exchanged in a loop by several writers end up the same', async () => {
  const it = await started()
  for (const name of ['one', 'two', 'three']) {
    mkdirSync(it.path('a', name))
    writeFileSync(it.path('a', name, 'is'), name)
  }
  for (let round = 0; round < 50; round += 1) {
    renameSync(it.path('a', 'one'), it.path('a', 'free'))
    renameSync(it.path('a', 'two'), it.path('a', 'one'))
    writeFileSync(it.path('a', 'one', `r${round}`), `${round}`)
    renameSync(it.path('a', 'three'), it.path('a', 'two'))
    renameSync(it.path('a', 'free'), it.path('a', 'three'))
    if (round % 10 === 0) await it.barrier('a')
  }
  await it.barrier('a')
  same(it)
})

test('a large file goes by changed blocks: appended, overwritten, cut, with holes', async () => {
  const it = await started()
  const size = 40 * 2 ** 20
  const content = Buffer.alloc(size)
  for (let at = 0; at < size; at += 997) content[at] = at & 0xff
  writeFileSync(it.path('a', 'big'), content)
  await it.barrier('a')
  same(it)
  const before = (await it.host('a').ask<{ trees: { sentBytes: number }[] }>('status')).trees[0]!.sentBytes
  appendFileSync(it.path('a', 'big'), Buffer.alloc(4096, 7))
  const fd = openSync(it.path('a', 'big'), 'r+')
  writeSync(fd, Buffer.alloc(4096, 9), 0, 4096, size / 2)
  closeSync(fd)
  await it.barrier('a')
  same(it)
  const sent = (await it.host('a').ask<{ trees: { sentBytes: number }[] }>('status')).trees[0]!.sentBytes - before
  assert.ok(sent < 4 * 2 ** 20, `${sent} bytes were sent for two changes of 4 KiB`)
  truncateSync(it.path('a', 'big'), size / 4 + 11)
  spawnSync('truncate', ['-s', '64M', it.path('a', 'holes')])
  await it.barrier('a')
  same(it)
  assert.equal(statSync(it.path('b', 'holes')).blocks, 0)
})

test('a large file that is written in one go crosses the link once', async () => {
  const it = await started()
  const size = 96 * 2 ** 20
  const shares: number[] = []
  // Its writer may be kept waiting so long that it looks as if it had ended: not each time.
  while (shares.length < 5 && !shares.some(share => share < 1.02)) {
    const before = (await it.status('a')).sentBytes
    const name = `big${shares.length}`
    // Another program, since one call that writes all of it holds up its own.
    const write = 'require("node:fs").writeFileSync(process.argv[1], Buffer.alloc(Number(process.argv[2]), 1))'
    await promisify(execFile)(process.execPath, ['-e', write, it.path('a', name), String(size)])
    await it.barrier('a')
    shares.push(((await it.status('a')).sentBytes - before) / size)
  }
  assert.ok(
    shares.some(share => share < 1.02),
    `it was sent ${shares.map(share => share.toFixed(2)).join(', ')} times`,
  )
})

test('of a file that is replaced again and again only whole versions are ever seen', async () => {
  const it = await started()
  const seen = new Set<string>()
  const end = performance.now() + 1500
  let number = 0
  while (performance.now() < end) {
    number += 1
    const content = Buffer.alloc(200_000, number & 0xff)
    writeFileSync(it.path('a', '.f.tmp'), content)
    renameSync(it.path('a', '.f.tmp'), it.path('a', 'f'))
    await new Promise(resolve => setTimeout(resolve, 3))
    for (const name of readdirSync(it.path('b'))) seen.add(name)
    if (!existsSync(it.path('b', 'f'))) continue
    const there = readFileSync(it.path('b', 'f'))
    assert.equal(there.length, content.length)
    assert.ok(there.equals(Buffer.alloc(200_000, there[0])), 'a mixture of two versions was visible')
  }
  await it.barrier('a')
  same(it)
  for (const name of readdirSync(it.path('b'))) seen.add(name)
  // The temporary name did exist here for a moment, so it may be seen; nothing else may.
  assert.deepEqual(
    [...seen].filter(name => name !== '.f.tmp'),
    ['f'],
  )
})

test('what is excluded stays where it is, and sockets and FIFOs are said', async () => {
  const it = await started({ exclude: ['cache', '*.tmp', '/logs/**/debug'], include: ['keep.tmp'] })
  mkdirSync(it.path('a', 'cache/below'), { recursive: true })
  mkdirSync(it.path('a', 'logs/x'), { recursive: true })
  for (const name of ['cache/below/f', 'a.tmp', 'keep.tmp', 'logs/x/debug', 'logs/x/info']) {
    writeFileSync(it.path('a', name), name)
  }
  writeFileSync(it.path('b', 'mine.tmp'), 'the backup’s own')
  spawnSync('mkfifo', [it.path('a', 'fifo')])
  renameSync(it.path('a', 'a.tmp'), it.path('a', 'a'))
  await it.barrier('a')
  const list = (folder: string): string[] => readdirSync(it.path('b', folder)).sort()
  assert.deepEqual(list('.'), ['a', 'keep.tmp', 'logs', 'mine.tmp'])
  assert.deepEqual(list('logs/x'), ['info'])
  await until(async () => (await it.status('a')).problems.some(one => /fifo: sockets, FIFOs/.test(one)))
})

test('after a cut the log goes on where it was, and what changed meanwhile follows', async () => {
  const it = await started()
  for (let i = 0; i < 200; i += 1) writeFileSync(it.path('a', `f${i}`), `${i}`)
  it.cut('a')
  mkdirSync(it.path('a', 'new'))
  for (let i = 0; i < 100; i += 1) renameSync(it.path('a', `f${i}`), it.path('a', 'new', `f${i}`))
  renameSync(it.path('a', 'new'), it.path('a', 'newer'))
  for (let i = 150; i < 200; i += 1) rmSync(it.path('a', `f${i}`))
  await assert.rejects(it.barrier('a', 300), /not durable on the backup within 300 ms.*no backup/)
  it.mend('a')
  await it.barrier('a')
  same(it)
})

test('a receiver refuses a sender of another epoch, and a sender goes on when its backup hears of the epoch', async () => {
  const it = await started()
  writeFileSync(it.path('a', 'f'), '1')
  await it.barrier('a')
  await it.role('b', { role: 'backup', epoch: 2 })
  writeFileSync(it.path('a', 'f'), '2')
  await until(async () => JSON.stringify(await it.status('a')).includes('epoch 2 here, the sender is of epoch 1'))
  assert.equal(readFileSync(it.path('b', 'f'), 'utf8'), '1')
  await assert.rejects(it.role('b', { role: 'backup', epoch: 1 }), /epoch 1 is older than 2/)
  await it.role('a', { role: 'primary', epoch: 2 })
  await it.barrier('a')
  same(it)
})

test('a returning primary’s own changes go to the conflict area, and then it has what the new primary has', async () => {
  const it = await started()
  mkdirSync(it.path('a', 'd'))
  for (const name of ['kept', 'changed', 'd/f', 'stale']) writeFileSync(it.path('a', name), 'before')
  await it.barrier('a')
  it.cut('a')
  writeFileSync(it.path('a', 'changed'), 'by the old primary, never acknowledged')
  writeFileSync(it.path('a', 'd/only-here'), 'by the old primary')
  await it.host('a').kill()
  await it.role('b', { role: 'primary', epoch: 2 })
  writeFileSync(it.path('b', 'changed'), 'by the new primary')
  writeFileSync(it.path('b', 'stale'), 'the new primary went on')
  await it.start('a')
  await it.role('a', { role: 'backup', epoch: 2 })
  await it.barrier('b')
  same(it, 'b')
  await until(() => it.host('a').notes.some(note => note.includes('are kept in')))
  const area = join(it.folder, 'a', '.tree.understudy-sync', 'conflicts', '1')
  assert.equal(readFileSync(join(area, 'files/changed'), 'utf8'), 'by the old primary, never acknowledged')
  assert.equal(readFileSync(join(area, 'files/d/only-here'), 'utf8'), 'by the old primary')
  const manifest = readFileSync(join(area, 'manifest.jsonl'), 'utf8')
  assert.match(manifest, /"path":"changed"/)
  assert.match(manifest, /"path":"d\/only-here"/)
  assert.equal((await it.status('a')).unresolved, null)
})

test('after a drained change of roles nothing is a conflict', async () => {
  const it = await started()
  for (let i = 0; i < 50; i += 1) writeFileSync(it.path('a', `f${i}`), `${i}`)
  await it.barrier('a')
  await it.role('a', { role: 'backup', epoch: 2 })
  await it.role('b', { role: 'primary', epoch: 2 })
  writeFileSync(it.path('b', 'f1'), 'by the new primary')
  rmSync(it.path('b', 'f2'))
  await it.barrier('b')
  same(it, 'b')
  assert.equal(existsSync(join(it.folder, 'a', '.tree.understudy-sync', 'conflicts')), false)
})

test('a change on the backup by somebody else is found by a scrub, told and repaired', async () => {
  const it = await started()
  mkdirSync(it.path('a', 'd'))
  for (const name of ['f', 'd/g', 'd/h']) writeFileSync(it.path('a', name), 'right')
  await it.barrier('a')
  await until(async () => (await it.status('a')).state === 'in sync')
  writeFileSync(it.path('b', 'd/g'), 'wrong')
  rmSync(it.path('b', 'f'))
  writeFileSync(it.path('b', 'd/surplus'), 'wrong')
  await it.host('a').ask('scrub', {})
  await until(async () => (await it.status('a')).comparison.last?.why === 'scrub')
  await it.barrier('a')
  same(it)
  assert.equal((await it.status('a')).comparison.last?.differences, 3)
  assert.equal(it.host('a').notes.filter(note => note.includes('differs on the backup')).length, 3)
})

test('both sides’ processes killed with -9 in the middle lose nothing and leave no temporary files', async () => {
  const it = await started()
  const write = (round: number): void => {
    for (let i = 0; i < 100; i += 1) writeFileSync(it.path('a', `f${i}`), `${round} ${i}`)
    writeFileSync(it.path('a', 'big'), Buffer.alloc(3 * 2 ** 20, round))
  }
  for (let round = 0; round < 3; round += 1) {
    write(round)
    await it.host(round === 1 ? 'a' : 'b').kill()
    write(round + 10)
    const again = round === 1 ? 'a' : 'b'
    await it.start(again)
    await it.role(again, { role: again === 'a' ? 'primary' : 'backup', epoch: 1 })
    await it.barrier('a')
    same(it)
  }
  const left = readdirSync(join(it.folder, 'b', '.tree.understudy-sync')).filter(name => !name.startsWith('gone-'))
  assert.deepEqual(left, [])
})

test('a barrier that is waited for when its host’s role ends is answered then, and not when patience is over', async () => {
  const it = await started()
  it.cut('a')
  writeFileSync(it.path('a', 'f'), 'nowhere else')
  const waited = it.barrier('a', 600_000)
  const answered = assert.rejects(
    waited,
    /^Error: this host is backup of epoch 2 since the barrier was asked for: what was/,
  )
  await it.role('a', { role: 'backup', epoch: 2 })
  await answered
  await assert.rejects(it.barrier('a'), /data is not written on this host: ask the primary/)
  const opening = it.role('a', { role: 'primary', epoch: 3 })
  await assert.rejects(it.barrier('a'), /data is not open yet on this host, which becomes primary: ask again/)
  await opening
})
