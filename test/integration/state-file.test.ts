import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { createDisk, destroyDisk, fillDisk } from '../../infra/lab/disk.ts'
import {
  createStateFile,
  openStateFile,
  readState,
  type StateFile,
  type StateFileOptions,
  stateName,
} from '../../node-agent/state-file/state-file.ts'
import { emptyDurable } from '../fixtures/durable.ts'
import { until } from '../fixtures/until.ts'

interface Log {
  persisted: number[]
  failed: { seq: number; why: string }[]
}

function folderOf(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'usl-state-'))
  context.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

function optionsOf(folder: string): StateFileOptions & Log {
  const log: Log = { persisted: [], failed: [] }
  return {
    folder,
    now: () => performance.now(),
    onPersisted: seq => log.persisted.push(seq),
    onFailed: (seq, why) => log.failed.push({ seq, why }),
    ...log,
  }
}

async function create(context: TestContext, folder: string): Promise<{ file: StateFile; log: StateFileOptions & Log }> {
  const log = optionsOf(folder)
  const made = await createStateFile(log, emptyDurable)
  assert.ok(made.ok, made.ok ? '' : made.why)
  context.after(() => made.file.close(100))
  return { file: made.file, log }
}

const durable = (n: number) => ({ ...emptyDurable, lastOwn: n })
const lastOwn = (folder: string): number | string => {
  const read = readState(folder)
  return read.ok ? read.durable.lastOwn : read.code
}

/** The writer is the only child with the folder in its arguments. */
function writerPid(folder: string): number {
  return Number(
    execFileSync('pgrep', ['-f', `writer.ts ${folder}`])
      .toString()
      .trim(),
  )
}

test('a state that was persisted is there after a restart', async context => {
  const folder = folderOf(context)
  const { file, log } = await create(context, folder)
  file.persist(1, durable(1))
  await until(() => log.persisted.length === 1)
  assert.equal(lastOwn(folder), 1)
  assert.equal(file.pendingMs(), 0)
  await file.close(1000)
  const again = await openStateFile(optionsOf(folder))
  assert.ok(again.ok)
  assert.equal(again.durable.lastOwn, 1)
  await again.file.close(1000)
  assert.equal(statSync(join(folder, stateName)).mode & 0o777, 0o600)
})

test('many states at once are confirmed in order, and only when that or a later one is on disk', async context => {
  const folder = folderOf(context)
  const log = optionsOf(folder)
  const onDisk: number[] = []
  log.onPersisted = seq => {
    log.persisted.push(seq)
    onDisk.push(Number(lastOwn(folder)))
  }
  const made = await createStateFile(log, emptyDurable)
  assert.ok(made.ok)
  for (let seq = 1; seq <= 200; seq++) made.file.persist(seq, durable(seq))
  await until(() => log.persisted.length === 200)
  assert.deepEqual(
    log.persisted,
    Array.from({ length: 200 }, (_, i) => i + 1),
  )
  for (const [i, seq] of log.persisted.entries()) assert.ok(onDisk[i]! >= seq, `${seq} confirmed, ${onDisk[i]} on disk`)
  await made.file.close(1000)
})

test('a missing state is not made anew', async context => {
  const folder = folderOf(context)
  const opened = await openStateFile(optionsOf(folder))
  assert.equal(opened.ok ? '' : opened.code, 'missing')
  assert.deepEqual(readdirSync(folder), ['lock'])
})

test('a damaged state is refused by name, kept as it is, and not overwritten by init', async context => {
  const folder = folderOf(context)
  const { file } = await create(context, folder)
  await file.close(1000)
  const path = join(folder, stateName)
  const bytes = readFileSync(path)
  bytes[bytes.length - 10]! ^= 1
  writeFileSync(path, bytes)
  const opened = await openStateFile(optionsOf(folder))
  assert.equal(opened.ok ? '' : opened.code, 'damaged')
  assert.match(opened.ok ? '' : opened.why, new RegExp(`${path} is damaged: .*no vote until it is removed`))
  const created = await createStateFile(optionsOf(folder), emptyDurable)
  assert.equal(created.ok ? '' : created.code, 'exists')
  assert.deepEqual(readFileSync(path), bytes)
})

test('a temporary file left by a crash is ignored and removed', async context => {
  const folder = folderOf(context)
  const { file } = await create(context, folder)
  await file.close(1000)
  writeFileSync(join(folder, 'state.tmp'), 'half a sta')
  const opened = await openStateFile(optionsOf(folder))
  assert.ok(opened.ok)
  await opened.file.close(1000)
  assert.deepEqual(readdirSync(folder).sort(), ['lock', 'state', 'state.spare'])
})

test('on a full disk a state is still written, into the room that was kept for it', async context => {
  const disk = mkdtempSync(join(tmpdir(), 'usl-state-disk-'))
  await createDisk(disk, 16)
  context.after(async () => {
    await destroyDisk(disk)
    rmSync(disk, { recursive: true, force: true })
  })
  const { file, log } = await create(context, disk)
  fillDisk(disk)
  assert.throws(() => writeFileSync(join(disk, 'other'), 'x'.repeat(5000)), /ENOSPC/)
  file.persist(1, durable(1))
  await until(() => log.persisted.length === 1 || log.failed.length === 1)
  assert.deepEqual(log.failed, [])
  assert.equal(lastOwn(disk), 1)
  file.persist(2, durable(2))
  await until(() => log.persisted.length === 2 || log.failed.length === 1)
  assert.deepEqual(log.failed, [])
  await file.close(1000)
})

test('a tmpfs is refused before anything is written to it', async context => {
  const folder = mkdtempSync('/dev/shm/usl-')
  context.after(() => rmSync(folder, { recursive: true }))
  const created = await createStateFile(optionsOf(folder), emptyDurable)
  assert.equal(created.ok ? '' : created.code, 'location')
  assert.deepEqual(readdirSync(folder), [])
})

test('a second agent with the same state refuses, and may have it when the first is gone', async context => {
  const folder = folderOf(context)
  const { file } = await create(context, folder)
  const second = await openStateFile(optionsOf(folder))
  assert.equal(second.ok ? '' : second.code, 'locked')
  assert.match(second.ok ? '' : second.why, /in use by another process/)
  await file.close(1000)
  const third = await openStateFile(optionsOf(folder))
  assert.ok(third.ok)
  await third.file.close(1000)
})

/** An agent in a process of its own, to be killed. */
async function startHolder(folder: string): Promise<ChildProcess> {
  const script = `
    import { openStateFile } from ${JSON.stringify(new URL('../../node-agent/state-file/state-file.ts', import.meta.url).href)}
    const opened = await openStateFile({ folder: ${JSON.stringify(folder)}, now: () => performance.now(), onPersisted() {}, onFailed() {} })
    console.log(opened.ok ? 'open' : opened.why)`
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let said = ''
  child.stdout.on('data', chunk => {
    said += chunk
  })
  await until(() => said.includes('\n'))
  assert.equal(said, 'open\n')
  return child
}

test('SIGKILL of an agent frees its state at once', async context => {
  const folder = folderOf(context)
  const { file } = await create(context, folder)
  await file.close(1000)
  const holder = await startHolder(folder)
  assert.equal((await openStateFile(optionsOf(folder))).ok, false)
  holder.kill('SIGKILL')
  await until(async () => {
    const opened = await openStateFile(optionsOf(folder))
    if (opened.ok) await opened.file.close(1000)
    return opened.ok
  })
})

test('a state stays locked while a writer of a killed agent still hangs, so that it cannot overwrite newer states', async context => {
  const folder = folderOf(context)
  const { file } = await create(context, folder)
  await file.close(1000)
  const holder = await startHolder(folder)
  const pid = writerPid(folder)
  process.kill(pid, 'SIGSTOP')
  holder.kill('SIGKILL')
  await new Promise(resolve => holder.once('exit', resolve))
  const opened = await openStateFile(optionsOf(folder))
  assert.match(opened.ok ? '' : opened.why, /a writer of an earlier one that still hangs/)
  process.kill(pid, 'SIGCONT')
  await until(async () => {
    const again = await openStateFile(optionsOf(folder))
    if (again.ok) await again.file.close(1000)
    return again.ok
  })
})

test('a disk that hangs never blocks the caller, shows how long it hangs, and is caught up with afterwards', async context => {
  const folder = folderOf(context)
  const { file, log } = await create(context, folder)
  const pid = writerPid(folder)
  process.kill(pid, 'SIGSTOP')
  for (let seq = 1; seq <= 500; seq++) file.persist(seq, durable(seq))
  await sleep(60)
  assert.deepEqual(log.persisted, [])
  assert.ok(file.pendingMs() >= 50)
  process.kill(pid, 'SIGCONT')
  await until(() => log.persisted.length === 500)
  assert.equal(lastOwn(folder), 500)
  assert.deepEqual(log.failed, [])
})

test('closing does not wait longer than it was told for a disk that hangs', async context => {
  const folder = folderOf(context)
  const { file, log } = await create(context, folder)
  process.kill(writerPid(folder), 'SIGSTOP')
  file.persist(1, durable(1))
  const startMs = performance.now()
  await file.close(50)
  assert.ok(performance.now() - startMs < 5000)
  assert.deepEqual(log.persisted, [])
})

test('a writer that dies is a failed write, and nothing is confirmed after it', async context => {
  const folder = folderOf(context)
  const { file, log } = await create(context, folder)
  const pid = writerPid(folder)
  process.kill(pid, 'SIGSTOP')
  file.persist(1, durable(1))
  process.kill(pid, 'SIGKILL')
  await until(() => log.failed.length === 1)
  file.persist(2, durable(2))
  await sleep(20)
  assert.deepEqual(log.persisted, [])
  assert.equal(log.failed.length, 1)
  assert.equal(log.failed[0]!.seq, 1)
  assert.match(log.failed[0]!.why, /can't be written: its writer ended \(SIGKILL\)/)
})

test('a write that the disk refuses is a failed write that says why', async context => {
  const folder = folderOf(context)
  const { file, log } = await create(context, folder)
  // A folder in place of the temporary file: the next open of it fails, also for root.
  execFileSync('mkdir', [join(folder, 'state.tmp')])
  file.persist(1, durable(1))
  await until(() => log.failed.length === 1)
  assert.match(log.failed[0]!.why, /can't be written: EISDIR/)
  assert.deepEqual(log.persisted, [])
  assert.equal(lastOwn(folder), 0)
  chmodSync(folder, 0o700)
})
