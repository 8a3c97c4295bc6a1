import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { ControlMemory } from '../../node-agent/control/memory.ts'

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
