import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkLocation } from '../../node-agent/state-file/location.ts'
import { decodeRecord, encodeRecord } from '../../node-agent/state-file/record.ts'
import { stateFormat } from '../../node-agent/state-file/state-file.ts'
import { encodeFrame, FrameReader } from '../../node-agent/state-file/writer-frames.ts'
import type { Durable } from '../../shared/protocol/types.ts'
import { emptyDurable } from '../fixtures/durable.ts'

const full: Durable = {
  ...emptyDurable,
  promised: 2 ** 40 + 17,
  acc: {
    ballot: 2 ** 40 + 17,
    value: { gen: 1, version: 9, epoch: 3, primary: 'a', successor: true, voters: { a: 'inc-a-1', w: 'w.1' } },
  },
  wSeen: { 'w.1': 33 },
  leaseMs: 1000,
  maxFlushed: { timeline: 2, lsn: 2 ** 45 },
}

test('a state is read back as it was written', () => {
  assert.deepEqual(decodeRecord(stateFormat, encodeRecord(stateFormat, full)), { ok: true, value: full })
})

test('a state with any one byte changed is refused', () => {
  const bytes = encodeRecord(stateFormat, full)
  for (let at = 0; at < bytes.length; at++) {
    for (const flip of [1, 0x20, 0x80]) {
      const damaged = Buffer.from(bytes)
      damaged[at]! ^= flip
      assert.equal(decodeRecord(stateFormat, damaged).ok, false, `byte ${at} changed by ${flip} was not noticed`)
    }
  }
})

test('a state cut at any length, or with bytes after its end, is refused', () => {
  const bytes = encodeRecord(stateFormat, full)
  for (let length = 0; length < bytes.length; length++) {
    assert.equal(decodeRecord(stateFormat, bytes.subarray(0, length)).ok, false, `cut at ${length}`)
  }
  assert.equal(decodeRecord(stateFormat, Buffer.concat([bytes, Buffer.from('\n')])).ok, false)
  assert.equal(decodeRecord(stateFormat, Buffer.concat([bytes, bytes])).ok, false)
  assert.equal(decodeRecord(stateFormat, Buffer.alloc(4096)).ok, false)
})

test('a state of another format version is refused with both numbers', () => {
  const decoded = decodeRecord(stateFormat, encodeRecord({ ...stateFormat, version: 2 }, full))
  assert.deepEqual(decoded, { ok: false, why: 'it has format version 2, this program knows version 1' })
})

test('a record of another kind is not taken for a state', () => {
  assert.equal(decodeRecord(stateFormat, encodeRecord({ ...stateFormat, kind: 'witness-row' }, full)).ok, false)
})

test('a state whose fields have the wrong shape is refused by the name of the field', () => {
  const decoded = decodeRecord(stateFormat, encodeRecord(stateFormat, { ...full, promised: -1 }))
  assert.match(decoded.ok ? '' : decoded.why, /its field promised is wrong/)
})

test('frames to the writer survive any division into chunks', () => {
  const stream = Buffer.concat([
    encodeFrame({ number: 1, bytes: Buffer.from('one') }),
    encodeFrame({ number: 2 ** 40, bytes: Buffer.alloc(0) }),
    encodeFrame({ number: 3, bytes: Buffer.alloc(5000, 7) }),
  ])
  for (const size of [1, 7, 13, 4096, stream.length]) {
    const reader = new FrameReader()
    const seen: [number, number][] = []
    for (let at = 0; at < stream.length; at += size) {
      for (const frame of reader.push(stream.subarray(at, at + size))) seen.push([frame.number, frame.bytes.length])
    }
    assert.deepEqual(seen, [
      [1, 3],
      [2 ** 40, 0],
      [3, 5000],
    ])
  }
})

const overlay = 0x794c7630
const ext4 = 0xef53
const tmpfs = 0x01021994
const mounts = (options: string): string =>
  ['1 0 254:0 / / rw - ext4 /dev/vda rw', `2 1 0:30 / /tmp rw - overlay overlay rw,lowerdir=/l,${options}`].join('\n')
const check = (options: string, upper: number | null) =>
  checkLocation('/tmp', {
    magicOf: path => {
      if (path === '/tmp') return overlay
      if (upper === null) throw new Error('ENOENT')
      return upper
    },
    mounts: () => mounts(options),
  })

test('a tmpfs is refused as a place for the state', () => {
  const result = checkLocation('/dev/shm')
  assert.equal(result.ok, false)
  assert.match(result.ok ? '' : result.why, /\/dev\/shm lies on a tmpfs/)
})

test('an overlay is as good as its upper layer, and refused where that is not visible', () => {
  assert.deepEqual(check('upperdir=/up,workdir=/w', ext4), { ok: true })
  const onTmpfs = check('upperdir=/up,workdir=/w', tmpfs)
  assert.match(onTmpfs.ok ? '' : onTmpfs.why, /upper layer \/up is a tmpfs/)
  assert.equal(check('upperdir=/up', null).ok, false)
  assert.equal(check('workdir=/w', ext4).ok, false)
})
