import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Decisions } from '../../node-agent/decisions.ts'

/** Wide: each is some milliseconds. */
const limitMs = 30_000

async function begun(stateDir: string): Promise<Decisions> {
  const decisions = new Decisions({ stateDir, maxBytes: 2000, now: () => ({ wallMs: 1, bootMs: 1 }) })
  await decisions.load()
  return decisions
}

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-decisions-'))
  t.after(() => rmSync(folder, { recursive: true }))
  return folder
}

test('decisions go on being written when somebody has removed their file', async t => {
  const folder = folderOf(t)
  const path = join(folder, 'decisions.jsonl')
  const decisions = await begun(folder)
  decisions.add(1, 'x'.repeat(400))
  decisions.add(1, 'y'.repeat(400))
  decisions.add(1, 'z'.repeat(400))
  await decisions.flush(limitMs)
  rmSync(path)
  decisions.add(1, 'after it was removed')
  await decisions.flush(limitMs)
  assert.ok(existsSync(path) && readFileSync(path, 'utf8').includes('after it was removed'))
  assert.equal(decisions.dropped, 0)
})

test('the first decision after a loss of power is not lost to the half line that the last one left', async t => {
  const folder = folderOf(t)
  appendFileSync(join(folder, 'decisions.jsonl'), '{"id":1,"wallMs":1,"bootMs":1,"epoch":1,"why":"whole"}\n{"id":2,"wa')
  const first = await begun(folder)
  first.add(1, 'the first after it')
  await first.flush(limitMs)
  const whys = (await begun(folder)).newest(10).map(one => one.why)
  assert.deepEqual(whys, ['whole', 'the first after it'])
})

test('what a full disk has only room for in part is counted as lost, and the next line does not go with it', async t => {
  const folder = folderOf(t)
  const decisions = await begun(folder)
  decisions.add(1, 'whole')
  await decisions.flush(limitMs)
  const room = statSync(join(folder, 'decisions.jsonl')).size + 20
  const sizeLimit = (bytes: string): unknown =>
    execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${bytes}:`])
  sizeLimit(String(room))
  decisions.add(1, 'cut short')
  await decisions.flush(limitMs)
  sizeLimit('unlimited')
  decisions.add(1, 'with room again')
  await decisions.flush(limitMs)
  assert.equal(decisions.dropped, 1)
  const whys = (await begun(folder)).newest(10).map(one => one.why)
  assert.deepEqual(whys, ['whole', 'with room again'])
  assert.deepEqual(decisions.newest(0), [])
})
