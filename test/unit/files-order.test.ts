import assert from 'node:assert/strict'
import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterEach, test } from 'node:test'
import { Proof } from '../../node-agent/files/proof.ts'
import { RoleFile, type RoleRecord } from '../../node-agent/files/role-file.ts'
import { WorkQueue } from '../../node-agent/files/work-queue.ts'
import { FilesWire, type WireOptions } from '../fixtures/files-wire.ts'
import { until } from '../fixtures/until.ts'

/** What is promised and shown while changes overtake each other: names that change before what was said of them has gone. */

let wire: FilesWire | null = null
afterEach(async () => {
  await wire?.end()
  wire = null
})

type Prepare = Parameters<typeof FilesWire.make>[0]

async function made(prepare: Prepare, options?: WireOptions): Promise<FilesWire> {
  wire = await FilesWire.make(prepare, options)
  return wire
}

const nothing = (): void => undefined

test('a barrier is answered although what it waited for last ended without an answer of the backup', async () => {
  // Each look at the clock takes as long as a starved process would: names are taken in one step at a time.
  let now = 0
  const it = await made(nothing, { exclude: ['*.tmp'], now: () => (now += 3) })
  const outside = join(it.folder, 'outside')
  mkdirSync(outside)
  for (let i = 0; i < 10_000; i += 1) closeSync(openSync(join(outside, `${i}.tmp`), 'w'))
  it.answers = () => 'done'
  renameSync(outside, it.path('a', 'moved in'))
  let isAnswered = false
  void it.barrier().then(() => {
    isAnswered = true
  })
  await until(() => isAnswered)
  assert.ok(it.indexOf('directory', 'moved in') >= 0)
})

test('what was written before a barrier is waited for under the name that it got since', async () => {
  const it = await made(at => writeFileSync(at('old'), 'before'))
  it.hold()
  writeFileSync(it.path('a', 'new'), 'written')
  writeFileSync(it.path('a', 'old'), 'changed')
  const barrier = it.barrier()
  renameSync(it.path('a', 'new'), it.path('a', 'new 2'))
  renameSync(it.path('a', 'old'), it.path('a', 'old 2'))
  it.look()
  assert.equal(await it.isAnswered(barrier), false)
  it.release()
  await barrier
  assert.equal(readFileSync(it.path('b', 'new 2'), 'utf8'), 'written')
  assert.equal(readFileSync(it.path('b', 'old 2'), 'utf8'), 'changed')
})

test('what was moved out of the tree before a barrier is gone on the backup when it is answered', async () => {
  let laterMs = 0
  const it = await made(at => writeFileSync(at('f'), ''), { now: () => performance.now() + laterMs })
  it.hold()
  renameSync(it.path('a', 'f'), join(it.folder, 'f'))
  const barrier = it.barrier()
  // Long enough that no other half of a rename comes any more.
  laterMs = 1000
  it.look()
  assert.equal(await it.isAnswered(barrier), false)
  it.release()
  await barrier
  assert.equal(existsSync(it.path('b', 'f')), false)
})

test('a file that takes the name of one that waits to be sent, and is then written to, arrives as it was written', async () => {
  const it = await made(at => {
    for (const name of ['f', 'target']) writeFileSync(at(name), `${name}, long ago`)
  })
  it.hold()
  writeFileSync(it.path('a', 'target'), 'changed')
  it.look()
  renameSync(it.path('a', 'f'), it.path('a', 'target'))
  it.look()
  writeFileSync(it.path('a', 'target'), 'the last word')
  it.look()
  it.release()
  await it.barrier()
  assert.deepEqual(readdirSync(it.path('b')), ['target'])
  assert.equal(readFileSync(it.path('b', 'target'), 'utf8'), 'the last word')
})

test('a file that is renamed while it is written to is there under one of its names at every moment', async () => {
  const it = await made(at => writeFileSync(at('f'), 'before'))
  const fd = openSync(it.path('a', 'f'), 'a')
  writeSync(fd, ', and more')
  await it.barrier()
  it.hold()
  renameSync(it.path('a', 'f'), it.path('a', 'g'))
  it.look()
  it.release()
  closeSync(fd)
  await it.barrier()
  const [arrives, goes] = [it.indexOf('put', 'g'), it.indexOf('remove', 'f')]
  assert.ok(arrives >= 0 && arrives < goes, `the new name was operation ${arrives}, the old one’s removal ${goes}`)
  assert.deepEqual(readdirSync(it.path('b')), ['g'])
})

test('a directory that took the name of a file and was removed at once is not left on the backup', async () => {
  const it = await made(at => {
    writeFileSync(at('name'), '')
    mkdirSync(at('folder'))
  })
  it.hold()
  rmSync(it.path('a', 'name'))
  it.look()
  renameSync(it.path('a', 'folder'), it.path('a', 'name'))
  it.look()
  rmdirSync(it.path('a', 'name'))
  it.look()
  it.release()
  await it.barrier()
  assert.deepEqual(readdirSync(it.path('b')), [])
})

test('a file that was moved unseen is there under its new name before a comparison removes the old one', async () => {
  const it = await made(at => {
    for (const folder of ['from', 'to']) mkdirSync(at(folder))
    writeFileSync(at('to', 'f'), 'promised')
  })
  // For whoever compares it is all the same which of the two sides was changed.
  renameSync(it.path('b', 'to', 'f'), it.path('b', 'from', 'f'))
  it.sent.length = 0
  it.sender.compare('missed')
  await it.barrier()
  const [arrives, goes] = [it.indexOf('put', 'to/f'), it.indexOf('remove', 'from/f')]
  assert.ok(arrives >= 0 && arrives < goes, `the new name was operation ${arrives}, the old one’s removal ${goes}`)
  assert.deepEqual(readdirSync(it.path('b', 'from')), [])
})

test('a file that the backup could not remove is removed although it was made and removed once more meanwhile', async () => {
  let laterMs = 0
  const it = await made(at => writeFileSync(at('f'), 'before'), { now: () => performance.now() + laterMs })
  it.answers = message => {
    if (message.op !== 'remove') return null
    // Nothing more goes until the answer is there.
    it.hold()
    writeFileSync(it.path('a', 'f'), 'once more')
    it.look()
    return 'EIO'
  }
  rmSync(it.path('a', 'f'))
  it.look()
  await until(() => it.indexOf('remove', 'f') >= 0)
  it.answers = () => null
  await until(() => it.sender.status().blocked !== null)
  rmSync(it.path('a', 'f'))
  it.look()
  laterMs = 5000
  it.release()
  await it.barrier()
  assert.deepEqual(readdirSync(it.path('b')), [])
})

test('comparisons that are asked for one after the other, as events are lost, are made once', async () => {
  const directories = 20
  const it = await made(at => {
    for (let i = 0; i < directories; i += 1) mkdirSync(at(`d${i}`))
  })
  it.sent.length = 0
  it.hold()
  for (let i = 0; i < 20; i += 1) it.sender.compare('missed')
  it.release()
  await it.barrier()
  const compared = it.sent.filter(one => one.op === 'compare').length
  assert.equal(compared, directories + 1)
})

test('what happened while this process did not run is no older than when it was last looked for', async () => {
  let now = 1000
  const queue = new WorkQueue(() => now)
  queue.unseenSinceMs = 1000
  now = 9000
  const mark = queue.nextMark()
  assert.equal(queue.ageMs(mark), 0)
  assert.equal(queue.happenedAfterMs(mark), 1000)
  let laterMs = 0
  const it = await made(nothing, { now: () => performance.now() + laterMs })
  it.look()
  it.hold()
  writeFileSync(it.path('a', 'f'), 'during a stop of five seconds')
  laterMs = 5000
  const wallMs = Date.now()
  assert.ok(it.sender.provenUntilMs(wallMs) <= wallMs - 5000 + 2000, 'it may be of the beginning of those seconds')
})

test('of a directory with files of before that is moved into the tree nothing goes while a return would let it go', async () => {
  const it = await made(nothing, { mayBeSent: changedMs => proof.mayBeSent(changedMs) })
  const state = join(it.folder, 'state')
  mkdirSync(state)
  const file = await RoleFile.open(state, 'data')
  const proof = new Proof({ file, epoch: 1, name: 'data', note: nothing })
  const onDisk = (): number => {
    const { ownChanges } = JSON.parse(readFileSync(join(state, 'data.json'), 'utf8')) as RoleRecord
    return ownChanges?.provenUntilMs ?? 0
  }
  const outside = join(it.folder, 'outside')
  mkdirSync(join(outside, 'below'), { recursive: true })
  for (const name of ['f', 'below/f']) writeFileSync(join(outside, name), 'of before')
  proof.look({ isInPlace: true, isAttached: true, provenUntilMs: () => Date.now() + 60_000 })
  await until(() => existsSync(join(state, 'data.json')) && onDisk() > Date.now())
  const proven: number[] = []
  it.answers = message => {
    if (message.op === 'put' || (message.op === 'directory' && message.path !== '')) proven.push(onDisk())
    return null
  }
  renameSync(outside, it.path('a', 'moved in'))
  await it.barrier()
  assert.equal(readFileSync(it.path('b', 'moved in', 'below', 'f'), 'utf8'), 'of before')
  assert.deepEqual(new Set(proven), new Set([0]))
  await file.close()
})

test('what a directory hides at one place by a pattern arrives when it gets another, and is hidden there again', async () => {
  const it = await made(
    at => {
      mkdirSync(at('a', 'hidden', 'deep'), { recursive: true })
      writeFileSync(at('a', 'hidden', 'deep', 'f'), 'written while it was hidden')
    },
    { exclude: ['a/hidden'] },
  )
  assert.deepEqual(readdirSync(it.path('b', 'a')), [])
  renameSync(it.path('a', 'a'), it.path('a', 'b'))
  await it.barrier()
  const there = it.path('b', 'b', 'hidden', 'deep', 'f')
  assert.equal(readFileSync(there, 'utf8'), 'written while it was hidden')
  writeFileSync(it.path('a', 'b', 'hidden', 'deep', 'f'), 'changed')
  await it.barrier()
  assert.equal(readFileSync(there, 'utf8'), 'changed')
  renameSync(it.path('a', 'b'), it.path('a', 'a'))
  await it.barrier()
  writeFileSync(it.path('a', 'a', 'hidden', 'deep', 'g'), 'nobody’s business')
  await it.barrier()
  it.sender.compare('missed')
  await it.barrier()
  assert.deepEqual(readdirSync(it.path('b', 'a', 'hidden', 'deep')), ['f'])
})

test('one more name of a file with thousands is sent without a look at all of them', async () => {
  const names = 3500
  const it = await made(at => writeFileSync(at('f'), 'of many names'))
  const before = process.threadCpuUsage()
  for (let i = 0; i < names; i += 1) linkSync(it.path('a', 'f'), it.path('a', `name ${i}`))
  await it.barrier()
  const { user, system } = process.threadCpuUsage(before)
  assert.equal(statSync(it.path('b', 'f')).nlink, names + 1)
  // A look at all of them for each, six million looks, would take 15 s and more; this takes one.
  assert.ok(user + system < 6e6, `${(user + system) / 1e6} s`)
})

test('what the backup refuses of a file is said although it took another change of it in the same answer', async () => {
  const it = await made(nothing)
  let isAnswered = false
  const refuse = (seq: number): void => {
    it.answers = () => null
    it.sender.receive({ op: 'ack', seq, nacks: [{ seq, code: 'EOPNOTSUPP', path: 'f' }] })
    isAnswered = true
  }
  it.answers = message => {
    if (message.op === 'attributes') queueMicrotask(() => refuse(message.seq))
    return 'later'
  }
  writeFileSync(it.path('a', 'f'), '')
  it.look()
  await until(() => it.indexOf('put', 'f') >= 0)
  chmodSync(it.path('a', 'f'), 0o600)
  it.look()
  await until(() => isAnswered)
  assert.deepEqual(it.sender.status().problems, ['f: the backup refuses it: EOPNOTSUPP'])
})
