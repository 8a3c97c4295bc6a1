import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { FilesPair } from '../fixtures/files-pair.ts'
import { filesScene, same } from '../fixtures/files-scene.ts'
import { until } from '../fixtures/until.ts'

/** What lies at the edge of what is replicated: paths that are too long, other mounts, files larger than any. */

const scene = filesScene()
const mebibyte = 2 ** 20

/** A path of so many bytes below the tree, made step by step as the kernel wants it. */
function makeDeep(pair: FilesPair, bytes: number): void {
  const program = `for (let left = ${bytes}; left > 0; left -= 201) {
    fs.mkdirSync('${deepName}')
    process.chdir('${deepName}')
  }
  fs.writeFileSync('file', 'deep')`
  execFileSync(process.execPath, ['-e', program], { cwd: pair.path('a') })
}
const deepName = 'd'.repeat(200)

function bind(from: string, to: string): void {
  execFileSync('mount', ['--bind', from, to])
  scene.atEnd(async () => {
    execFileSync('umount', ['--lazy', to])
  })
}

test('directories deeper than any path may be are said, and hold up nothing', async () => {
  const it = await scene.started()
  makeDeep(it, 5000)
  writeFileSync(it.path('a', 'beside'), 'arrives')
  await it.barrier('a')
  assert.equal(readFileSync(it.path('b', 'beside'), 'utf8'), 'arrives')
  const { problems } = await it.status('a')
  assert.ok(
    problems.some(one => /^d+\/.*: its path has more than 4000 bytes/.test(one)),
    String(problems),
  )
  await it.host('a').kill()
  await it.start('a')
  await it.role('a', { role: 'primary', epoch: 1 })
  await it.barrier('a')
  assert.ok((await it.status('a')).problems.some(one => /its path has more than 4000 bytes/.test(one)))
  execFileSync('rm', ['-r', it.path('a', deepName)])
  await it.barrier('a')
  await it.host('a').ask('scrub', {})
  await until(async () => (await it.status('a')).comparison.last?.why === 'scrub')
  same(it)
  assert.deepEqual((await it.status('a')).problems, [])
})

test('something that is mounted below the tree is said on either side, and the rest goes on', async () => {
  const it = await scene.started()
  const elsewhere = join(it.folder, 'elsewhere')
  mkdirSync(elsewhere)
  writeFileSync(join(elsewhere, 'of others'), '')
  for (const name of ['here', 'there']) {
    mkdirSync(it.path('a', name))
    writeFileSync(it.path('a', name, 'file'), name)
  }
  await it.barrier('a')
  bind(elsewhere, it.path('a', 'here'))
  await it.host('a').ask('scrub', {})
  await until(async () => (await it.status('a')).comparison.last?.why === 'scrub')
  await it.barrier('a')
  assert.ok((await it.status('a')).problems.some(one => /^here: something is mounted there/.test(one)))
  await it.host('b').kill()
  bind(elsewhere, it.path('b', 'there'))
  await it.start('b')
  await it.role('b', { role: 'backup', epoch: 1 })
  writeFileSync(it.path('a', 'there', 'file'), 'changed')
  await until(async () =>
    (await it.status('a')).problems.some(one => /^there.*: the backup refuses it: EXDEV/.test(one)),
  )
  writeFileSync(it.path('a', 'beside'), 'goes on')
  await until(() => existsSync(it.path('b', 'beside')))
  assert.equal(readFileSync(it.path('b', 'here', 'file'), 'utf8'), 'here', 'nobody has said that it is gone')
  assert.deepEqual(readdirSync(elsewhere), ['of others'])
})

test('a large file of the seed that is on its way is not “in sync”, whatever is written beside it', async () => {
  const it = await scene.made({ bulkMbPerS: 4 })
  writeFileSync(it.path('a', 'large'), Buffer.alloc(4 * mebibyte, 7))
  await it.startBoth()
  await until(async () => (await it.status('a')).sentBytes > mebibyte)
  writeFileSync(it.path('a', 'beside'), 'live')
  await until(() => existsSync(it.path('b', 'beside')))
  for (;;) {
    const { state } = await it.status('a')
    if (existsSync(it.path('b', 'large'))) break
    assert.notEqual(state, 'in sync')
    await new Promise(resolve => setTimeout(resolve, 10))
  }
  await it.barrier('a')
  same(it)
})

test('a file of more than a tebibyte, nearly all of it a hole, goes by what is in it', async () => {
  const it = await scene.started()
  const path = it.path('a', 'image')
  const size = 2 ** 40 + 123 * mebibyte
  const fd = openSync(path, 'w')
  truncateSync(path, size)
  for (const at of [0, 2 ** 31 - 5, 2 ** 32 - 5, 2 ** 40]) writeSync(fd, Buffer.from(`at ${at}`), 0, undefined, at)
  closeSync(fd)
  await it.barrier('a', 60_000)
  const again = openSync(path, 'r+')
  writeSync(again, Buffer.from('changed'), 0, undefined, 2 ** 33)
  closeSync(again)
  await it.barrier('a', 60_000)
  const there = statSync(it.path('b', 'image'))
  assert.equal(there.size, size)
  assert.ok(there.blocks * 512 < 8 * mebibyte)
  const read = openSync(it.path('b', 'image'), 'r')
  for (const [at, text] of [
    [2 ** 31 - 5, `at ${2 ** 31 - 5}`],
    [2 ** 33, 'changed'],
    [2 ** 40, `at ${2 ** 40}`],
  ] as const) {
    const bytes = Buffer.alloc(text.length)
    readSync(read, bytes, 0, bytes.length, at)
    assert.equal(bytes.toString(), text)
  }
  closeSync(read)
})

test('a large file with holes keeps them where it is copied for a change: with other names, or with too much changed', async () => {
  const it = await scene.started()
  const path = it.path('a', 'image')
  writeFileSync(path, Buffer.alloc(3 * mebibyte, 1))
  truncateSync(path, 128 * mebibyte)
  linkSync(path, it.path('a', 'other name'))
  await it.barrier('a')
  const fd = openSync(path, 'r+')
  writeSync(fd, Buffer.from('changed'), 0, undefined, 100 * mebibyte)
  writeSync(fd, Buffer.alloc(mebibyte), 0, undefined, mebibyte)
  closeSync(fd)
  await it.barrier('a')
  same(it)
  assert.ok(statSync(it.path('b', 'image')).blocks * 512 < 8 * mebibyte)
  // More than is written in place.
  unlinkSync(it.path('a', 'other name'))
  const again = openSync(path, 'r+')
  writeSync(again, Buffer.alloc(20 * mebibyte, 2), 0, undefined, 50 * mebibyte)
  closeSync(again)
  await it.barrier('a')
  same(it)
  assert.ok(statSync(it.path('b', 'image')).blocks * 512 < 32 * mebibyte)
})

const isUserOfOwn = spawnSync('unshare', ['--user', '--map-root-user', 'true']).status === 0
const skip = isUserOfOwn ? false : 'this machine gives no namespaces of users'

test('with fewer watches than directories nothing is promised that was not looked at, and it is told', {
  skip,
}, async () => {
  const it = await scene.made()
  const watches = 10
  for (let i = 0; i < 2 * watches; i += 1) mkdirSync(it.path('a', `d${i}`))
  // In a namespace of its own a user has a limit of his own.
  const program = join(it.folder, 'with few watches')
  const inside = `echo ${watches} > /proc/sys/user/max_inotify_watches && exec "${process.execPath}" "$@"`
  writeFileSync(program, `#!/bin/sh\nexec unshare --user --map-root-user sh -c '${inside}' sh "$@"\n`, { mode: 0o755 })
  await Promise.all([it.start('a', program), it.start('b')])
  await it.role('b', { role: 'backup', epoch: 1 })
  await it.role('a', { role: 'primary', epoch: 1 })
  await it.barrier('a')
  for (let i = 0; i < 2 * watches; i += 1) writeFileSync(it.path('a', `d${i}`, 'file'), `in ${i}`)
  await it.barrier('a')
  for (let i = 0; i < 2 * watches; i += 1) assert.equal(readFileSync(it.path('b', `d${i}`, 'file'), 'utf8'), `in ${i}`)
  assert.ok(it.host('a').notes.some(note => /the limit of watches is used up after \d+ directories/.test(note)))
  const { state } = await it.status('a')
  assert.notEqual(state, 'in sync')
  // One is asked for after the other, faster than everything can be compared, until the first is answered.
  for (let i = 0; i < 250; i += 1) mkdirSync(it.path('a', `more${i}`))
  await it.barrier('a', 60_000)
  writeFileSync(it.path('a', 'd1', 'last'), '')
  let isAnswered = false
  const first = it.barrier('a', 60_000).finally(() => {
    isAnswered = true
  })
  const others: Promise<boolean>[] = []
  while (!isAnswered) {
    const answered = it.barrier('a', 20).then(
      () => true,
      () => false,
    )
    others.push(answered)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
  await first
  assert.ok(existsSync(it.path('b', 'd1', 'last')))
  await Promise.all(others)
  await it.barrier('a', 60_000)
})
