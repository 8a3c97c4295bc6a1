import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { Applier } from '../../node-agent/files/applier.ts'
import { ConflictKeeper } from '../../node-agent/files/conflicts.ts'
import { type Meta, readMeta } from '../../node-agent/files/meta.ts'
import { keepNothing, Receiver } from '../../node-agent/files/receiver.ts'
import { recover } from '../../node-agent/files/recovery.ts'
import { encodeRedo, writeRedo } from '../../node-agent/files/redo.ts'
import { Staging } from '../../node-agent/files/staging.ts'
import { Tree } from '../../node-agent/files/tree.ts'
import { WorkFolder } from '../../node-agent/files/work-folder.ts'
import { statAt } from '../../node-agent/kernel/file-calls.ts'
import { mountLines } from '../../node-agent/kernel/mountinfo.ts'
import { type FilesPair, type Host, ownLoopback } from '../fixtures/files-pair.ts'
import { filesScene, same } from '../fixtures/files-scene.ts'
import { until } from '../fixtures/until.ts'

/** What could go wrong between two calls on the backup's side, and what could be lost by it. */

const scene = filesScene()
const mebibyte = 2 ** 20

/** A tree on a memory file system of that size. */
async function inSmallTree(
  size: string,
  work: (part: { root: string; tree: Tree; folder: WorkFolder; resize: (size: string) => void }) => Promise<void>,
): Promise<void> {
  const root = mkdtempSync('/var/tmp/understudy-small-')
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'understudy-test', root])
  const tree = new Tree(root)
  const folder = new WorkFolder(tree)
  try {
    const resize = (to: string): void => {
      execFileSync('mount', ['-o', `remount,size=${to}`, root])
    }
    await work({ root, tree, folder, resize })
  } finally {
    folder.close()
    tree.close()
    execFileSync('umount', ['--lazy', root])
    rmdirSync(root)
  }
}

function metaOf(tree: Tree, name: string): Meta {
  const stat = statAt(tree.rootFd, name)
  assert.ok(typeof stat !== 'number')
  const meta = readMeta({ dirFd: tree.rootFd, name }, stat)
  assert.ok(meta !== null && typeof meta !== 'number')
  return meta
}

test('a large file whose change stopped half way on a full disk gets no other name before the change is whole', async () => {
  await inSmallTree('11m', async ({ root, tree, folder, resize }) => {
    const blockBytes = 256 * 1024
    const blocks = 16
    writeFileSync(join(root, 'big'), '')
    truncateSync(join(root, 'big'), 8 * mebibyte)
    const before = metaOf(tree, 'big')
    const staging = new Staging(folder)
    const applier = new Applier({ tree, folder, staging, keeper: () => keepNothing(folder) })
    const base = { of: 'file', size: before.size, mtimeS: before.mtimeS, mtimeNs: before.mtimeNs } as const
    const meta = { ...before, mtimeS: before.mtimeS + 1 }
    staging.stream({ op: 'begin', stream: 1, path: 'big', meta, sparse: false, base })
    for (let at = 0; at < blocks; at += 1) {
      staging.stream({ op: 'data', stream: 1, offset: at * blockBytes, bytes: Buffer.alloc(blockBytes, 7) })
    }
    // Staged and written down there is room for it, in the file itself only for a part.
    assert.equal(await applier.patch(staging.end(1)), 'ENOSPC')
    assert.ok(readFileSync(join(root, 'big')).includes(7), 'some of it was written')
    fill(join(root, 'filler'))
    assert.equal(await applier.rename('big', 'other'), 'ENOSPC')
    assert.ok(existsSync(join(root, 'big')) && !existsSync(join(root, 'other')))
    resize('32m')
    assert.equal(await applier.rename('big', 'other'), null)
    const after = Buffer.concat([Buffer.alloc(4 * mebibyte, 7), Buffer.alloc(4 * mebibyte)])
    assert.ok(readFileSync(join(root, 'other')).equals(after))
    assert.deepEqual(readdirSync(folder.path), [])
    staging.close()
  })
})

/** Until there is no room for another page. */
function fill(path: string): void {
  assert.throws(() => {
    for (;;) appendFileSync(path, Buffer.alloc(4096, 1))
  }, /ENOSPC/)
}

test('a version that can’t be listed for lack of room stays where it is, and a restart knows what was kept', async () => {
  await inSmallTree('2m', async ({ root, tree, folder, resize }) => {
    for (const name of ['one', 'two', 'three']) writeFileSync(join(root, name), name)
    const own = { epoch: 3, provenUntilMs: 0, copy: '' }
    const area = join(folder.path, 'conflicts', '3')
    const listed = (): string[] =>
      readFileSync(join(area, 'manifest.jsonl'), 'utf8')
        .trim()
        .split('\n')
        .map(line => (JSON.parse(line) as { path: string }).path)
    const take = (keeper: ConflictKeeper, name: string): number => {
      const stat = statAt(tree.rootFd, name)
      assert.ok(typeof stat !== 'number')
      return keeper.take({ dirFd: tree.rootFd, name }, name, stat)
    }
    const keeper = new ConflictKeeper(folder, own)
    fill(join(root, 'filler'))
    assert.ok(take(keeper, 'one') < 0)
    assert.equal(readFileSync(join(root, 'one'), 'utf8'), 'one')
    resize('4m')
    assert.equal(take(keeper, 'one'), 0)
    assert.deepEqual(listed(), ['one'])
    keeper.close()
    // A crash in the middle of a line: nothing had been moved for it.
    appendFileSync(join(area, 'manifest.jsonl'), '{"path":"tw')
    const again = new ConflictKeeper(folder, own)
    assert.equal(again.kept, 1)
    assert.deepEqual(again.named, ['one'])
    assert.equal(take(again, 'two'), 0)
    assert.deepEqual(listed(), ['one', 'two'])
    assert.equal(readFileSync(join(area, 'files', 'two'), 'utf8'), 'two')
    assert.equal(again.kept, 2)
    again.close()
  })
})

test('versions that were kept before the worker was killed are in the event too', async () => {
  const it = await scene.started()
  writeFileSync(it.path('a', 'f'), 'before')
  await it.barrier('a')
  it.cut('a')
  for (const name of ['f', 'only-here']) writeFileSync(it.path('a', name), 'by the old primary')
  await it.host('a').kill()
  await it.role('b', { role: 'primary', epoch: 2 })
  // As a worker leaves it that is killed with one version out of the way and the comparison not over.
  const area = join(it.folder, 'a', '.tree.understudy-sync', 'conflicts', '1')
  mkdirSync(join(area, 'files'), { recursive: true })
  renameSync(it.path('a', 'f'), join(area, 'files', 'f'))
  writeFileSync(join(area, 'manifest.jsonl'), `${JSON.stringify({ path: 'f', kind: 'file', size: 18 })}\n`)
  await it.start('a')
  await it.role('a', { role: 'backup', epoch: 2 })
  await it.barrier('b')
  const event = /2 versions that the primary did not have are kept in .*: f, only-here$/
  await until(() => it.host('a').notes.some(note => event.test(note)))
  same(it, 'b')
})

test('one name of a file that takes another of its names on the backup leaves none behind that the primary has not', async () => {
  const it = await scene.started()
  const time = 1_650_000_000
  for (const name of ['x', 'y']) {
    writeFileSync(it.path('a', name), 'alike')
    utimesSync(it.path('a', name), time, time)
  }
  await it.barrier('a')
  rmSync(it.path('b', 'y'))
  linkSync(it.path('b', 'x'), it.path('b', 'y'))
  renameSync(it.path('a', 'x'), it.path('a', 'y'))
  await it.barrier('a')
  assert.deepEqual(readdirSync(it.path('b')), ['y'])
  same(it)
})

test('another mount below a directory that is removed keeps its files', async () => {
  const it = await scene.started()
  mkdirSync(it.path('a', 'd'))
  writeFileSync(it.path('a', 'd', 'f'), '')
  await it.barrier('a')
  mkdirSync(it.path('b', 'd', 'elsewhere'))
  execFileSync('mount', ['-t', 'tmpfs', 'understudy-test', it.path('b', 'd', 'elsewhere')])
  const fd = openSync(it.path('b', 'd', 'elsewhere'), 'r')
  try {
    const inMount = `/proc/self/fd/${fd}`
    mkdirSync(join(inMount, 'precious'))
    writeFileSync(join(inMount, 'precious', 'f'), 'of somebody else')
    rmSync(it.path('a', 'd'), { recursive: true })
    await it.barrier('a')
    assert.equal(existsSync(it.path('b', 'd')), false)
    const work = join(it.folder, 'b', '.tree.understudy-sync')
    // All that belongs to the tree is swept.
    await until(() => readdirSync(work).every(name => readdirSync(join(work, name)).join() === 'elsewhere'))
    assert.equal(readFileSync(join(inMount, 'precious', 'f'), 'utf8'), 'of somebody else')
  } finally {
    closeSync(fd)
    const mounts = mountLines(readFileSync('/proc/self/mountinfo', 'utf8'))
    for (const { point } of mounts) if (point.startsWith(`${it.folder}/b/`)) execFileSync('umount', [point])
  }
})

test('a primary’s tree that is moved away is not replicated and nothing is promised, until it is back', async () => {
  const it = await scene.started()
  writeFileSync(it.path('a', 'f'), 'kept')
  await it.barrier('a')
  const away = join(it.folder, 'a', 'away')
  renameSync(it.path('a'), away)
  await assert.rejects(it.barrier('a'), /tree is not the directory any more that is replicated: it was moved/)
  mkdirSync(it.path('a'))
  writeFileSync(it.path('a', 'elsewhere'), '')
  await assert.rejects(it.barrier('a'), /put it back, or restart the agent/)
  await until(async () => (await it.status('a')).state === 'diverged')
  assert.match((await it.status('a')).blocked ?? '', /not the directory any more/)
  assert.deepEqual(readdirSync(it.path('b')), ['f'])
  rmSync(it.path('a'), { recursive: true })
  renameSync(away, it.path('a'))
  writeFileSync(it.path('a', 'g'), 'after')
  await it.barrier('a')
  await until(async () => (await it.status('a')).state === 'in sync')
  same(it)
})

test('a backup’s copy that is moved away takes nothing more, and what is there then is filled anew', async () => {
  const it = await scene.started()
  writeFileSync(it.path('a', 'f'), 'kept')
  await it.barrier('a')
  const away = join(it.folder, 'b', 'away')
  renameSync(it.path('b'), away)
  writeFileSync(it.path('a', 'g'), 'after')
  await assert.rejects(it.barrier('a', 300), /not durable on the backup/)
  mkdirSync(it.path('b'))
  await it.barrier('a')
  same(it)
  assert.deepEqual(readdirSync(away), ['f'])
  assert.ok(statSync(it.path('b', 'f')).isFile())
})

/** Until when this host has written down that the other one has everything; 0: nothing is proven. */
function provenUntilMs(it: FilesPair, host: Host): number {
  const text = readFileSync(join(it.folder, host, 'state', 'files', 'data.json'), 'utf8')
  return (JSON.parse(text) as { ownChanges: { provenUntilMs: number } | null }).ownChanges?.provenUntilMs ?? 0
}

test('what a primary had is kept when it returns to a host that was set up anew meanwhile and had nothing', async () => {
  const it = await scene.started()
  mkdirSync(it.path('a', 'd'))
  for (const name of ['f', 'd/f']) writeFileSync(it.path('a', name), 'of years')
  await it.barrier('a')
  const changedMs = Date.now()
  await until(() => provenUntilMs(it, 'a') > changedMs)
  await Promise.all([it.host('a').kill(), it.host('b').kill()])
  for (const name of ['tree', 'state']) {
    rmSync(join(it.folder, 'b', name), { recursive: true })
    mkdirSync(join(it.folder, 'b', name))
  }
  await it.start('b')
  await it.role('b', { role: 'primary', epoch: 2 })
  mkdirSync(it.path('b', 'd'))
  await it.start('a')
  await it.role('a', { role: 'backup', epoch: 2 })
  await it.barrier('b')
  same(it, 'b')
  const area = join(it.folder, 'a', '.tree.understudy-sync', 'conflicts', '1', 'files')
  for (const name of ['f', 'd/f']) assert.equal(readFileSync(join(area, name), 'utf8'), 'of years')
})

test('a folder for half files that somebody else can write in is not taken: what lies there would be done in our name', async () => {
  const root = mkdtempSync('/var/tmp/understudy-foreign-')
  try {
    mkdirSync(join(root, 'tree'))
    writeFileSync(join(root, 'tree', 'program'), 'of the service', { mode: 0o700 })
    chownSync(join(root, 'tree', 'program'), 1234, 1234)
    const { ino, size } = statSync(join(root, 'tree', 'program'))
    const work = join(root, '.tree.understudy-sync')
    mkdirSync(work, { mode: 0o755 })
    const tree = new Tree(join(root, 'tree'))
    const meta = { ...metaOf(tree, 'program'), uid: 0, gid: 0, mode: 0o4755, size }
    writeFileSync(join(work, 'redo-x-1'), encodeRedo({ path: 'program', ino, meta, sparse: false, blocks: [] }))
    const part = { tree, keeper: keepNothing, note: () => undefined, onCompared: () => undefined }
    for (const [uid, mode] of [
      [1234, 0o755],
      [0, 0o777],
    ] as const) {
      chownSync(work, uid, uid)
      chmodSync(work, mode)
      await assert.rejects(Receiver.open(part), /others than this agent can write in it: see who has made it/)
    }
    assert.deepEqual(
      [statSync(join(root, 'tree', 'program')).uid, statSync(join(root, 'tree', 'program')).mode & 0o7777],
      [1234, 0o700],
    )
    tree.close()
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
})

test('a change that a crash has interrupted is not given up because its file can’t be opened at the moment', async () => {
  const root = mkdtempSync('/var/tmp/understudy-busy-')
  try {
    mkdirSync(join(root, 'tree'))
    const path = join(root, 'tree', 'program')
    copyFileSync('/bin/sleep', path)
    const tree = new Tree(join(root, 'tree'))
    const folder = new WorkFolder(tree)
    const { ino, size } = statSync(path)
    const blocks = [{ offset: size, bytes: Buffer.from('the rest of it') }]
    const meta = { ...metaOf(tree, 'program'), size: size + blocks[0]!.bytes.length }
    assert.equal(await writeRedo(folder.fresh('redo'), { path: 'program', ino, meta, sparse: false, blocks }), 0)
    const runs = spawn(path, ['60'])
    try {
      await assert.rejects(
        recover(tree, folder, () => undefined),
        /the change of program can't be completed/,
      )
    } finally {
      runs.kill('SIGKILL')
      await once(runs, 'exit')
    }
    await recover(tree, folder, () => undefined)
    assert.ok(readFileSync(path, 'latin1').endsWith('the rest of it'))
    folder.close()
    tree.close()
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
})

test('a directory takes the name of a file that is still there on the backup', async () => {
  await inSmallTree('2m', async ({ root, tree, folder }) => {
    writeFileSync(join(root, 'name'), 'a file')
    mkdirSync(join(root, 'folder'))
    writeFileSync(join(root, 'folder', 'f'), '')
    const applier = new Applier({ tree, folder, staging: new Staging(folder), keeper: () => keepNothing(folder) })
    assert.equal(await applier.rename('folder', 'name'), null)
    applier.settle()
    assert.deepEqual(readdirSync(join(root, 'name')), ['f'])
    assert.equal(await applier.flush(), null)
  })
})

test('a worker whose address or port is not free yet says so, and listens as soon as it is', async () => {
  const it = await scene.made()
  const other = createServer(socket => socket.destroy())
  await new Promise<void>(resolve => other.listen(it.port('b'), ownLoopback, resolve))
  await Promise.all([it.start('a'), it.start('b')])
  await it.role('a', { role: 'primary', epoch: 1 })
  const refused = new RegExp(`can't listen for files on ${ownLoopback}: .*EADDRINUSE`)
  await until(() => it.host('b').notes.some(note => refused.test(note)))
  await new Promise(resolve => other.close(resolve))
  await until(() =>
    it.role('b', { role: 'backup', epoch: 1 }).then(
      () => true,
      () => false,
    ),
  )
  writeFileSync(it.path('a', 'f'), 'arrives')
  await it.barrier('a')
  assert.equal(readFileSync(it.path('b', 'f'), 'utf8'), 'arrives')
})
