import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { endLeftover } from '../../control-plane/entry/local/postgres.ts'
import { until } from '../fixtures/until.ts'

test('a postmaster that has ended is waited for until its process id is free, since PostgreSQL takes a zombie for alive', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-leftover-'))
  // A shell that becomes a program which never asks for the end of its child; before that end, or the shell would ask.
  const parent = spawn('sh', ['-c', 'sleep 0.5 & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    const [line] = (await once(parent.stdout, 'data')) as [Buffer]
    const pid = line.toString().trim()
    await until(() => / Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8')))
    writeFileSync(join(folder, 'postmaster.pid'), `${pid}\n${folder}\n`)
    const waited = endLeftover(folder).then(() => 'free')
    const meanwhile = new Promise(resolve => setTimeout(resolve, 1000, 'a zombie'))
    assert.equal(await Promise.race([waited, meanwhile]), 'a zombie')
    parent.kill('SIGKILL')
    assert.equal(await waited, 'free')
  } finally {
    parent.kill('SIGKILL')
    rmSync(folder, { recursive: true })
  }
})
