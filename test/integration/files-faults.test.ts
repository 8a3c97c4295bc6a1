import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import {
  appendFileSync,
  closeSync,
  copyFileSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { connect } from 'node:tls'
import {
  decodeFromReceiver,
  decodeFromSender,
  encode,
  type FromReceiver,
  type Operation,
} from '../../node-agent/files/messages.ts'
import { recover } from '../../node-agent/files/recovery.ts'
import { type Redo, writeRedo } from '../../node-agent/files/redo.ts'
import { openBelow } from '../../node-agent/files/set-up-check.ts'
import { Tree } from '../../node-agent/files/tree.ts'
import { WorkFolder } from '../../node-agent/files/work-folder.ts'
import { type FilesPair, ownLoopback } from '../fixtures/files-pair.ts'
import { filesScene, writeWhole } from '../fixtures/files-scene.ts'
import { until } from '../fixtures/until.ts'

/** Disks that are full, queues that overflow, crashes in the middle of a change, and whoever wants out of the tree. */

const scene = filesScene()
const mebibyte = 2 ** 20

async function withSmallDisk(host: 'a' | 'b', size: string): Promise<FilesPair> {
  const pair = await scene.made()
  scene.mount(host, '-t', 'tmpfs', '-o', `size=${size}`, 'understudy-test')
  await pair.startBoth()
  await pair.barrier('a')
  return pair
}

test('a full disk on the backup is told, harms nothing on the primary, and what is missing follows when there is room', async () => {
  const it = await withSmallDisk('b', '8m')
  writeFileSync(it.path('a', 'before'), 'arrived')
  await it.barrier('a')
  for (let i = 0; i < 40; i += 1) writeWhole(it, `f${i}`, Buffer.alloc(mebibyte / 2, i))
  writeWhole(it, 'large', Buffer.alloc(3 * mebibyte, 7))
  await until(async () => /ENOSPC/.test((await it.status('a')).blocked ?? ''))
  await assert.rejects(it.barrier('a', 300), /not durable/)
  writeWhole(it, 'meanwhile', Buffer.from('the primary goes on'))
  for (const name of readdirSync(it.path('b'))) {
    if (name.startsWith('.understudy')) continue
    assert.equal(lstatSync(it.path('b', name)).size, lstatSync(it.path('a', name)).size, `${name} is cut short`)
  }
  execFileSync('mount', ['-o', 'remount,size=64m', it.path('b')])
  await it.barrier('a')
  for (const name of readdirSync(it.path('a'))) {
    assert.ok(readFileSync(it.path('b', name)).equals(readFileSync(it.path('a', name))), name)
  }
  assert.ok(it.host('a').notes.some(note => note.includes('ENOSPC')))
})

test('a file that the backup can not take, with an attribute that its file system lacks, is said and holds up no other', async () => {
  const it = await scene.made()
  scene.mount('b', '-t', 'ramfs', 'understudy-test')
  await it.startBoth()
  await it.barrier('a')
  writeFileSync(it.path('a', 'marked'), 'with an attribute')
  execFileSync('setfattr', ['-n', 'user.note', '-v', 'x', it.path('a', 'marked')])
  writeFileSync(it.path('a', 'plain'), 'without')
  await until(async () => (await it.status('a')).problems.some(one => /^marked: the backup refuses it: E/.test(one)))
  await until(() => readdirSync(it.path('b')).includes('plain'))
  assert.equal((await it.status('a')).blocked, null)
  await assert.rejects(it.barrier('a', 300), /marked: the backup refuses it/)
  execFileSync('setfattr', ['-x', 'user.note', it.path('a', 'marked')])
  await it.barrier('a')
  assert.equal(readFileSync(it.path('b', 'marked'), 'utf8'), 'with an attribute')
  assert.deepEqual((await it.status('a')).problems, [])
})

test('a tree whose partition is not mounted is not open, on neither side: nothing is removed and nothing put beside it', async () => {
  const it = await withSmallDisk('b', '8m')
  writeFileSync(it.path('a', 'file'), 'kept')
  await it.barrier('a')
  scene.mount('a', '-t', 'tmpfs', 'understudy-test')
  await Promise.all([it.host('a').kill(), it.host('b').kill()])
  await it.startBoth()
  writeFileSync(it.path('a', 'in the mount'), 'x')
  await it.barrier('a')
  await Promise.all([it.host('a').kill(), it.host('b').kill()])
  for (const host of ['a', 'b'] as const) scene.unmount(host)
  await Promise.all([it.start('a'), it.start('b')])
  for (const [host, role] of [
    ['b', 'backup'],
    ['a', 'primary'],
  ] as const) {
    await assert.rejects(
      it.role(host, { role, epoch: 2 }),
      /nothing is mounted on \S+tree, where its partition belongs/,
    )
  }
  assert.deepEqual(readdirSync(it.path('b')), [])
  assert.deepEqual(readdirSync(it.path('a')), ['file'])
  scene.mount('b', '-t', 'tmpfs', '-o', 'size=8m', 'understudy-test')
  await until(async () => (await it.status('b')).state === 'receiving')
})

test('of two trees one goes on while the disk of the other is full, and a barrier is for the tree that it names', async () => {
  const it = await scene.made({}, { also: ['logs'] })
  const small = join(it.folder, 'b', 'logs')
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'understudy-test', small])
  scene.atEnd(async () => {
    execFileSync('umount', [small])
  })
  await it.startBoth()
  const wait = (tree: string, limitMs: number): Promise<unknown> => it.host('a').ask('wait', { tree, limitMs })
  for (let i = 0; i < 8; i += 1) writeFileSync(join(it.folder, 'a', 'logs', `f${i}`), Buffer.alloc(mebibyte, i))
  await until(async () => {
    const { trees } = await it.host('a').ask<{ trees: { tree: string; blocked: string | null }[] }>('status')
    return /ENOSPC/.test(trees.find(one => one.tree === 'logs')?.blocked ?? '')
  })
  await assert.rejects(wait('logs', 300), /logs is \d+ changes behind: the backup can't write: ENOSPC/)
  writeFileSync(it.path('a', 'f'), 'goes on')
  await wait('data', 20_000)
  assert.equal(readFileSync(it.path('b', 'f'), 'utf8'), 'goes on')
  await assert.rejects(it.barrier('a', 300), /not durable/)
  execFileSync('mount', ['-o', 'remount,size=32m', small])
  await it.barrier('a')
  assert.deepEqual(readdirSync(small).filter(name => name.startsWith('f')).length, 8)
})

test('a full disk below the worker’s own notes is said, replication goes on, and roles change again when there is room', async () => {
  const it = await scene.made()
  const state = join(it.folder, 'a', 'state')
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'understudy-test', state])
  scene.atEnd(async () => {
    execFileSync('umount', [state])
  })
  await it.startBoth()
  await it.barrier('a')
  const { pid } = it.host('a')
  assert.throws(() => {
    for (;;) appendFileSync(join(state, 'filler'), Buffer.alloc(4096, 1))
  }, /ENOSPC/)
  // What is proven is written down each second while something changes.
  await until(async () => {
    writeFileSync(it.path('a', 'f'), String(Math.random()))
    await it.barrier('a')
    return it.host('a').notes.some(note => /what this host knows of its copy can't be written: ENOSPC/.test(note))
  })
  await assert.rejects(it.role('a', { role: 'backup', epoch: 2 }), /ENOSPC/)
  rmSync(join(state, 'filler'))
  await until(async () => (await it.status('a')).state === 'receiving')
  await it.role('b', { role: 'primary', epoch: 2 })
  await it.barrier('b')
  assert.equal(it.host('a').pid, pid)
  assert.equal(it.differences('b'), '')
})

test('a full disk on the primary is its service’s matter: what was written arrives as it is', async () => {
  const it = await withSmallDisk('a', '4m')
  writeFileSync(it.path('a', 'fits'), Buffer.alloc(3 * mebibyte, 1))
  assert.throws(() => writeFileSync(it.path('a', 'does not'), Buffer.alloc(3 * mebibyte, 2)), /ENOSPC/)
  await it.barrier('a')
  for (const name of ['fits', 'does not']) {
    assert.ok(readFileSync(it.path('b', name)).equals(readFileSync(it.path('a', name))), name)
  }
})

test('events that the kernel could not queue lead to a comparison, and nothing is missed', async () => {
  const pair = await scene.started()
  const limit = Number(readFileSync('/proc/sys/fs/inotify/max_queued_events', 'utf8'))
  process.kill(pair.host('a').pid, 'SIGSTOP')
  // Each file that is made, written and closed is three events.
  for (let i = 0; i < limit * 0.36; i += 1) {
    if (i % 1000 === 0) mkdirSync(pair.path('a', `d${i / 1000}`))
    writeFileSync(pair.path('a', `f${i}`), `${i}`)
  }
  process.kill(pair.host('a').pid, 'SIGCONT')
  await pair.barrier('a', 120_000)
  assert.equal(pair.differences(), '')
  assert.ok(pair.host('a').notes.some(note => note.includes('overflowed')))
})

test('a directory of the backup that somebody exchanges for a link leads nothing out of the tree', async () => {
  const pair = await scene.made()
  await pair.startBoth()
  mkdirSync(pair.path('a', 'd/e'), { recursive: true })
  writeFileSync(pair.path('a', 'd/e/f'), 'inside')
  await pair.barrier('a')
  const outside = join(pair.folder, 'outside')
  mkdirSync(join(outside, 'e'), { recursive: true })
  rmSync(pair.path('b', 'd'), { recursive: true })
  symlinkSync(outside, pair.path('b', 'd'))
  writeFileSync(pair.path('a', 'd/e/f'), 'changed')
  writeFileSync(pair.path('a', 'd/e/g'), 'new')
  rmSync(pair.path('a', 'd/e/f'))
  await pair.barrier('a')
  assert.deepEqual(readdirSync(join(outside, 'e')), [])
  await pair.host('a').ask('scrub', {})
  await pair.barrier('a')
  assert.deepEqual(readdirSync(outside), ['e'])
})

test('no path of the other host leads out of the tree, whatever it is made of', () => {
  const put = (path: string): Buffer => encode({ op: 'remove', seq: 1, path } satisfies Operation).subarray(4)
  for (const path of ['..', '../x', 'a/../../x', '/etc/passwd', 'a//b', 'a/./b', 'a\0b', '.understudy-sync/x', 'a/']) {
    assert.throws(() => decodeFromSender(put(path)), /the path/, path)
  }
  assert.throws(() => decodeFromSender(put('x'.repeat(256))), /not a name/)
  assert.throws(() => decodeFromSender(put('x/'.repeat(3000))), /bytes/)
  for (const path of ['a', 'a/b', '...', 'a\nb', '\xff\xfe', ' ', '-rf']) {
    assert.equal((decodeFromSender(put(path)) as { path: string }).path, path)
  }
})

test('what the other host names in a directory is a name in it: no path over a link that somebody has made there', () => {
  const asked = { seq: 1, path: 'd' }
  const part = { index: 1, count: 2 }
  const listing = (name: string, path = 'd'): Operation => ({
    ...asked,
    op: 'listing',
    path,
    part,
    own: null,
    entries: [{ name, meta: { ...plain, size: 0 } }],
  })
  const ties = (name: string): Operation => ({ ...asked, op: 'ties', ties: [{ name, to: 'other' }] })
  const want = (name: string): FromReceiver => ({ ...asked, op: 'want', names: [name], surplus: [], doubtful: [] })
  for (const name of ['', '.', '..', 'link/etc/shadow', '/etc/shadow', 'a\0b']) {
    for (const operation of [listing(name), ties(name)])
      assert.throws(() => decodeFromSender(encode(operation).subarray(4)), /the name/, name)
    for (const what of ['names', 'surplus', 'doubtful'])
      assert.throws(() => decodeFromReceiver(encode({ ...want('f'), [what]: [name] }).subarray(4)), /the name/, name)
  }
  // At the root it is ours; anywhere else somebody's, as in a copy of another tree.
  const ours = '.understudy-sync'
  assert.throws(() => decodeFromSender(encode(listing(ours, '')).subarray(4)), /the name/)
  assert.deepEqual(decodeFromSender(encode(listing(ours)).subarray(4)), listing(ours))
  assert.deepEqual(decodeFromReceiver(encode(want(ours)).subarray(4)), want(ours))
})

test('strangers at the port are refused, which is said once and not as often as they come', async () => {
  const pair = await scene.started()
  const stranger = (): Promise<void> =>
    new Promise(resolve => {
      const socket = connect({ host: ownLoopback, port: pair.port('b'), rejectUnauthorized: false })
      socket.on('error', () => undefined)
      socket.once('close', () => resolve())
    })
  for (let i = 0; i < 5; i += 1) await stranger()
  await until(() => pair.host('b').notes.some(note => note.includes('a connection for files was refused')))
  writeFileSync(pair.path('a', 'f'), 'goes on')
  await pair.barrier('a')
  assert.equal(pair.host('b').notes.filter(note => note.includes('was refused')).length, 1)
})

test('after a crash at any step of a change in place a file is the version before or the one after', async () => {
  const folder = mkdtempSync('/var/tmp/understudy-redo-')
  try {
    mkdirSync(join(folder, 'tree'))
    const path = join(folder, 'tree', 'file')
    const blocks = [1, 3].map(at => ({ offset: at * 4096, bytes: Buffer.alloc(4096, 100 + at) }))
    const before = Buffer.alloc(5 * 4096, 1)
    const after = Buffer.from(before)
    for (const { offset, bytes } of blocks) bytes.copy(after, offset)
    const notes: string[] = []
    /** What of the redo file is on disk, and what of it is in the file. */
    const states: [redoShare: number, written: number][] = [
      [0, 0],
      [0.3, 0],
      [0.99, 0],
      [1, 0],
      [1, 1],
      [1, 2],
    ]
    for (const [share, written] of states) {
      writeFileSync(path, before)
      const tree = new Tree(join(folder, 'tree'))
      const work = new WorkFolder(tree)
      const meta = { ...plain, size: after.length }
      const redo: Redo = { path: 'file', ino: lstatSync(path).ino, meta, sparse: false, blocks }
      const at = work.fresh('redo')
      assert.equal(await writeRedo(at, redo), 0)
      const redoPath = join(work.path, at.name)
      truncateSync(redoPath, Math.floor(lstatSync(redoPath).size * share))
      const fd = openSync(path, 'r+')
      for (const { offset, bytes } of blocks.slice(0, written)) writeSync(fd, bytes, 0, bytes.length / 2, offset)
      closeSync(fd)
      await recover(tree, work, note => notes.push(note))
      const expected = share === 1 ? after : before
      assert.ok(readFileSync(path).equals(expected), `redo ${share * 100} % on disk, ${written} blocks half written`)
      assert.deepEqual(readdirSync(work.path), [])
      // Once more, as after a crash in the recovery itself.
      await recover(tree, work, note => notes.push(note))
      assert.ok(readFileSync(path).equals(expected))
      work.close()
      tree.close()
    }
    assert.equal(notes.length, 3)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test('a set-up names the processes that have files open below a tree', async () => {
  const folder = mkdtempSync('/var/tmp/understudy-open-')
  mkdirSync(join(folder, 'below'))
  const fd = openSync(join(folder, 'below', 'f'), 'w')
  const [byFile, byFolder] = [
    spawn('sleep', ['60'], { stdio: ['ignore', fd, 'ignore'] }),
    spawn('sleep', ['60'], { cwd: join(folder, 'below'), stdio: 'ignore' }),
  ]
  // A container, in which the same path leads to something else.
  const hide = 'mount -t tmpfs tmpfs "$1" && mkdir "$1/below" && cd "$1/below" && exec sleep 60'
  const program = join(folder, 'below', 'nap')
  copyFileSync('/bin/sleep', program)
  const byProgram = spawn(program, ['60'], { stdio: 'ignore' })
  const elsewhere = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', hide, 'sh', folder])
  try {
    await until(() => readlinkSync(`/proc/${elsewhere.pid}/cwd`).endsWith('/below'))
    await until(() => openBelow(folder).length === 3)
    const expected = [`nap (${byProgram.pid})`, ...[byFile.pid, byFolder.pid].map(pid => `sleep (${pid})`)]
    assert.deepEqual(openBelow(folder).sort(), expected.sort())
    assert.deepEqual(openBelow(mkdtempSync(`${folder}/other-`)), [])
  } finally {
    closeSync(fd)
    for (const child of [byFile, byFolder, byProgram, elsewhere]) child.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
})

const plain = {
  kind: 'file',
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtimeS: 1_700_000_000,
  mtimeNs: 5,
  linked: false,
  attributes: [],
  target: '',
} as const
