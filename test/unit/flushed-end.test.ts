import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FlushedEnd } from '../../node-agent/postgres/flushed-end.ts'

const at = (lsn: number, timeline = 1) => ({ timeline, lsn })

test('a flush position in the middle of a record is not where the log is read on from', () => {
  const end = new FlushedEnd()
  end.note({ end: at(100), flushed: at(96) })
  assert.equal(end.position, null)
  end.note({ end: at(300), flushed: at(256) })
  assert.deepEqual(end.position, at(100))
  end.note({ end: at(300), flushed: at(300) })
  assert.deepEqual(end.position, at(300))
})

test('an end that waits for its flush is not overtaken by newer ones that wait too', () => {
  const end = new FlushedEnd()
  end.note({ end: at(100), flushed: at(50) })
  end.note({ end: at(200), flushed: at(60) })
  end.note({ end: at(300), flushed: at(120) })
  assert.deepEqual(end.position, at(100))
})

test('another timeline begins anew', () => {
  const end = new FlushedEnd()
  end.note({ end: at(100), flushed: at(100) })
  end.note({ end: at(120, 2), flushed: at(110, 2) })
  assert.equal(end.position, null)
})
