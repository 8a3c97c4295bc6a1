import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LinkIndex } from '../../node-agent/files/link-index.ts'
import { DirectoryNode } from '../../node-agent/files/local-tree.ts'
import { WorkQueue } from '../../node-agent/files/work-queue.ts'

/** What the primary keeps in mind of its tree: what the backup may not have, and which names share a file. */

test('a difference that a comparison finds in a file that waits already is waited for as part of the comparison', () => {
  const queue = new WorkQueue(() => 0)
  const dir = new DirectoryNode(null, '')
  queue.changed(dir, 'written to all the time', { lane: 'settling', isWritten: true })
  queue.directory(dir, { lane: 'live' })
  assert.equal(queue.hasUpTo(-1), false)
  // Else the backup would hear that all is repaired, and keep nothing of its own version any more.
  queue.changed(dir, 'written to all the time', { lane: 'bulk', since: -1 })
  assert.equal(queue.oldestSince(), -1)
  queue.drop(queue.waiting(dir, 'written to all the time')!)
  queue.directory(dir, { lane: 'bulk', since: -2 })
  assert.ok(queue.hasUpTo(-2))
})

test('of a name that was removed and made again before a cut the backup may still have what was there before', () => {
  const queue = new WorkQueue(() => 0)
  const dir = new DirectoryNode(null, '')
  const sent = ['removed', 'made again'].map(what => {
    queue.changed(dir, 'f', { lane: 'live', isNew: what === 'made again' })
    return queue.takeLive()!
  })
  queue.takeBack(sent)
  queue.takeLive()
  // Else its removal, before it had its turn, would be nobody's business.
  assert.equal(queue.waiting(dir, 'f')?.isNew ?? false, false)
  const last = queue.takeLive()
  assert.equal(last?.kind === 'name' && last.isNew, false)
  assert.equal(queue.length, 0)
})

test('names of files that are gone are let go, whether their inode numbers are used again or not', () => {
  const links = new LinkIndex()
  const dir = new DirectoryNode(null, '')
  const temporary = 1000
  for (let i = 0; i < temporary; i += 1) {
    links.noteOnly(1, dir, `same inode ${i}`)
    links.noteOnly(100 + i, dir, `inode of its own ${i}`)
  }
  links.note(2, dir, 'first')
  links.note(2, dir, 'second')
  assert.deepEqual(
    [...links.others(1, dir, '')].map(one => one.name),
    [`same inode ${temporary - 1}`],
  )
  links.beginRun()
  links.note(2, dir, 'second')
  links.note(2, dir, 'third')
  links.noteOnly(1, dir, 'there')
  links.endRun()
  while (links.sweepSome());
  assert.equal(links.size, 2)
  assert.deepEqual(
    [...links.others(2, dir, 'second')],
    [...links.others(2, dir, 'second')].filter(one => one.name === 'third'),
  )
  assert.ok(links.isShared(2))
})
