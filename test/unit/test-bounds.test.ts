import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'

const folder = mkdtempSync(join(tmpdir(), 'understudy-bounds-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const bounds = join(import.meta.dirname, '../fixtures/end-after-tests.ts')

/** Runs a test file as `test/run.ts` does, with shorter limits. Resolves to what the run said. */
function runFile(name: string, lines: string[]): Promise<{ code: number; said: string }> {
  const preload = join(folder, 'preload.ts')
  writeFileSync(
    preload,
    `import { endAfterTests } from ${JSON.stringify(bounds)}
    if (process.env.NODE_TEST_CONTEXT !== undefined) endAfterTests({ graceMs: 300 })`,
  )
  const file = join(folder, name)
  writeFileSync(
    file,
    ["import { test } from 'node:test'", "import { createServer } from 'node:net'", ...lines].join('\n'),
  )
  const { NODE_TEST_CONTEXT, ...env } = process.env
  const args = ['--disable-warning=ExperimentalWarning', `--import=${preload}`, '--test', '--test-reporter=spec']
  return new Promise(resolve => {
    execFile(
      process.execPath,
      [...args, '--test-timeout=300', file],
      { env, timeout: 60_000 },
      (error, stdout, stderr) =>
        resolve({ code: error === null ? 0 : Number(error.code ?? -1), said: `${stdout}${stderr}` }),
    )
  })
}

test('a test that hangs fails by its name, the others of its file are run, and the file ends', async () => {
  const { code, said } = await runFile('hangs.test.mjs', [
    "test('one that hangs', () => new Promise(() => setInterval(() => {}, 1000)))",
    "test('one that comes after it', () => {})",
  ])
  assert.equal(code, 1, said)
  assert.match(said, /✖ one that hangs/)
  assert.match(said, /test timed out after 300ms/)
  assert.match(said, /✔ one that comes after it/)
})

test('a file whose test leaves something open fails and is told what is open', async () => {
  const { code, said } = await runFile('leaves.test.mjs', [
    "test('one that leaves a server open', () => { createServer().listen(0, '127.0.0.1') })",
  ])
  assert.equal(code, 1, said)
  assert.match(
    said,
    /leaves\.test\.mjs: its tests are over for 0\.3 s and it does not end; still open: .*TCPServerWrap/,
  )
})

test('a file that closes what it opens ends by itself, and passes', async () => {
  const { code, said } = await runFile('closes.test.mjs', [
    "test('closes its server', async () => { const s = createServer().listen(0, '127.0.0.1'); await new Promise(r => s.close(r)) })",
  ])
  assert.equal(code, 0, said)
  assert.match(said, /✔ closes its server/)
})
