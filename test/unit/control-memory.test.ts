import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { ControlMemory, journalOf } from '../../node-agent/control/memory.ts'

const folder = mkdtempSync(join(tmpdir(), 'understudy-memory-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const bootOf = (path: string): number => (JSON.parse(readFileSync(path, 'utf8')) as { boot: number }).boot

test('what a link learns after it was closed does not reach the memory that the next link has taken over', async () => {
  const path = join(folder, 'memory.json')
  const first = await ControlMemory.open(path)
  await first.close()
  // As an answer that was on its way does.
  let wentOn = false
  const goOn = (): void => {
    wentOn = true
  }
  first.change({ boot: 77 }).then(goOn, goOn)
  const second = await ControlMemory.open(path)
  for (let generation = 1; generation <= 20; generation++) await second.change({ generation })
  assert.equal(bootOf(path), 2)
  assert.equal(wentOn, false, 'the course that waited for it has gone on')
  await second.close()
})

test('a memory that cannot be written at its opening leaves nothing open', async () => {
  const below = join(folder, 'below')
  mkdirSync(join(below, 'memory.json.tmp'), { recursive: true })
  await assert.rejects(ControlMemory.open(join(below, 'memory.json')), /EISDIR/)
  const held = readdirSync('/proc/self/fd').filter(fd => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === below
    } catch {
      return false
    }
  })
  assert.deepEqual(held, [])
})

const seen = (jti: string, ack: string) => ({ jti, expiresAt: 10, ack, told: false })

test('commands that were remembered since the file was written whole are there after a crash, each with its last answer', async () => {
  const path = join(folder, 'journal.json')
  const memory = await ControlMemory.open(path)
  await memory.remember(seen('one', 'begins'), 0)
  await memory.remember(seen('two', 'begins'), 0)
  await memory.remember(seen('one', 'done'), 0)
  memory.told('one')
  await memory.remember(seen('two', 'failed'), 0)
  assert.equal(readFileSync(path, 'utf8').includes('begins'), false, 'the file was not written for them')
  // As a crash leaves it: nothing is closed.
  const next = await ControlMemory.open(path)
  assert.deepEqual(next.present.seen, [{ ...seen('one', 'done'), told: true }, seen('two', 'failed')])
  await memory.close()
  await next.close()
})

test('a journal that is full gives way to the whole file, and what it held in an earlier round never comes back', async () => {
  const path = join(folder, 'full.json')
  const memory = await ControlMemory.open(path)
  const long = 'x'.repeat(60_000)
  for (let at = 0; at < 9; at++) await memory.remember(seen(`c${at}`, `${at}${long}`), 0)
  const held = memory.present.seen
  const again = await ControlMemory.open(path)
  assert.deepEqual(again.present.seen, held)
  await again.remember(seen('c0', 'short'), 0)
  const third = await ControlMemory.open(path)
  assert.equal(third.seen('c0')?.ack, 'short')
  assert.equal(third.present.seen.length, 9)
  for (const one of [memory, again, third]) await one.close()
})

test('an entry that a crash tore is not there, and those before it are', async () => {
  const path = join(folder, 'torn.json')
  const memory = await ControlMemory.open(path)
  await memory.remember(seen('one', 'begins'), 0)
  const before = readFileSync(journalOf(path))
  await memory.remember(seen('one', 'done'), 0)
  const whole = readFileSync(journalOf(path))
  const changed = [...whole.keys()].filter(at => whole[at] !== before[at])
  for (const at of [changed[0], changed[Math.floor(changed.length / 2)], changed.at(-1)]) {
    const torn = join(folder, `torn-at-${at}.json`)
    writeFileSync(torn, readFileSync(path), { mode: 0o600 })
    writeFileSync(journalOf(torn), Buffer.concat([whole.subarray(0, at), before.subarray(at)]), { mode: 0o600 })
    const next = await ControlMemory.open(torn)
    assert.equal(next.seen('one')?.ack, 'begins')
    await next.close()
  }
  await memory.close()
})

test('what could not be written is not held and may come again; the next write is whole, and nothing from before is missed', async () => {
  const path = join(folder, 'failing.json')
  const memory = await ControlMemory.open(path)
  await memory.remember(seen('one', 'begins'), 0)
  mkdirSync(`${path}.tmp`)
  await assert.rejects(memory.change({ generation: 7, desired: 'wish' }), /EISDIR/)
  assert.deepEqual([memory.present.generation, memory.present.desired], [0, null])
  // The end of what was begun is known here all the same.
  await assert.rejects(memory.remember(seen('one', 'done'), 0), /EISDIR/)
  await assert.rejects(memory.remember(seen('two', 'begins'), 0), /EISDIR/)
  assert.deepEqual([memory.seen('one')?.ack, memory.seen('two')], ['done', null])
  rmSync(`${path}.tmp`, { recursive: true })
  await memory.remember(seen('three', 'begins'), 0)
  const next = await ControlMemory.open(path)
  assert.deepEqual(next.present.seen, [seen('one', 'done'), seen('three', 'begins')])
  assert.equal(next.present.generation, 0)
  await memory.close()
  await next.close()
})
