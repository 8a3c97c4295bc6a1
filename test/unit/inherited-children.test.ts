import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'

/** Starts a child, becomes another program with the same process id, and says whether the child's end was taken. */
const program = (part: 'first' | 'second'): string => `
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
if ('${part}' === 'first') {
  const { pid } = spawn('sleep', ['0.3'], { stdio: 'ignore' })
  process.execve(process.execPath, [...process.argv0 ? [process.execPath] : [], '--input-type=module', '--eval', process.env.SECOND, String(pid)], process.env)
} else {
  const { takeInheritedChildren } = await import(process.env.CHILDREN)
  takeInheritedChildren()
  const pid = process.argv.at(-1)
  await new Promise(resolve => setTimeout(resolve, 1500))
  process.stdout.write(existsSync('/proc/' + pid) ? 'left' : 'taken')
}`

test('a child that an earlier program of this process started is not left as a zombie', () => {
  const env = {
    ...process.env,
    NODE_OPTIONS: '--disable-warning=ExperimentalWarning',
    SECOND: program('second'),
    CHILDREN: join(import.meta.dirname, '../../node-agent/kernel/inherited-children.ts'),
  }
  const args = ['--input-type=module', '--eval', program('first')]
  const { stdout, stderr } = spawnSync(process.execPath, args, { env, encoding: 'utf8', timeout: 30_000 })
  assert.equal(stdout, 'taken', stderr)
})
