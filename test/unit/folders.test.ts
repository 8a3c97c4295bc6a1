import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { existingAbove, makeFolder } from '../../node-agent/folders.ts'

test('a folder is made with those above it, and is no matter where it is there', t => {
  const home = mkdtempSync(join(tmpdir(), 'us-folders-'))
  t.after(() => rmSync(home, { recursive: true }))
  const path = join(home, 'one', 'two')
  assert.equal(existingAbove(path), home)
  assert.equal(makeFolder(path, 0o700), join(home, 'one'))
  assert.equal(statSync(path).mode & 0o777, 0o700)
  assert.equal(makeFolder(path, 0o700), undefined)
  assert.equal(existingAbove(path), path)
})

test('where no folder can be made the attempt ends, with the path and the remedy', t => {
  const home = mkdtempSync(join(tmpdir(), 'us-folders-'))
  t.after(() => rmSync(home, { recursive: true }))
  writeFileSync(join(home, 'file'), '')
  symlinkSync(join(home, 'nowhere'), join(home, 'link'))
  // Node's own recursive mkdir never comes back from the first.
  assert.throws(
    () => makeFolder('/proc/understudy/state'),
    /\/proc\/understudy\/state cannot be made .*ENOENT.*local disk/,
  )
  assert.throws(() => makeFolder(join(home, 'file')), /it is a file/)
  assert.throws(() => makeFolder(join(home, 'file', 'below')), /ENOTDIR/)
  assert.throws(() => makeFolder(join(home, 'link')), /EEXIST/)
})
