import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { bootMs, monotonicMs, readBootId } from '../../node-agent/kernel/clock.ts'
import {
  type Answer,
  attributeMap,
  attributes,
  MessageWriter,
  messages,
  NETLINK_ROUTE,
  NetlinkSocket,
  textOf,
} from '../../node-agent/kernel/netlink.ts'

test('the clocks go forward and agree up to the time in suspend', () => {
  const first = bootMs()
  assert(bootMs() >= first)
  // Whoever is kept from the processor between two looks sees the second one later.
  const before = Number(process.hrtime.bigint()) / 1e6
  const monotonic = monotonicMs()
  const after = Number(process.hrtime.bigint()) / 1e6
  assert(monotonic >= before - 1 && monotonic <= after + 1)
  assert(bootMs() >= monotonic - 1)
})

test('leases are counted from the boot on, not on a clock that somebody can set', () => {
  // proc_uptime(5): seconds since boot, time in suspend included.
  const uptimeMs = () => Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1000
  const before = uptimeMs()
  const at = bootMs()
  const after = uptimeMs()
  // It is told in hundredths of a second.
  assert.ok(at >= before - 20 && at <= after + 20, `${at} ms, but the uptime went from ${before} to ${after} ms`)
})

test('the boot id is read from where it is said to be, and a file without one is refused', t => {
  const folder = mkdtempSync(join(tmpdir(), 'us-boot-id-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'boot_id')
  writeFileSync(path, 'da561ba0-3dde-4ba3-826c-8cf3a27900f5\n')
  assert.equal(readBootId(path), 'da561ba0-3dde-4ba3-826c-8cf3a27900f5')
  writeFileSync(path, '\n')
  assert.throws(() => readBootId(path), /no boot id/)
  assert.throws(() => readBootId(join(folder, 'none')), /ENOENT/)
})

test('a netlink message is written with nested and padded attributes, and read back', () => {
  const w = new MessageWriter(1024)
  w.begin({ type: 7, flags: 0, seq: 9 }).raw(Buffer.from([1, 2, 3, 4]))
  w.text(1, 'table').nest(2, inner =>
    inner
      .be32(1, -3)
      .be64(2, 5n)
      .attribute(3, Buffer.from([9])),
  )
  w.end().begin({ type: 8, flags: 0, seq: 10 }).end()
  const [first, second] = [...messages(w.bytes())]
  assert.equal(first?.type, 7)
  assert.equal(second?.seq, 10)
  const outer = attributeMap(first!.body, 4)
  assert.equal(textOf(outer.get(1)), 'table')
  const inner = attributeMap(outer.get(2)!)
  assert.equal(inner.get(1)?.readInt32BE(), -3)
  assert.equal(inner.get(2)?.readBigUInt64BE(), 5n)
  assert.deepEqual(inner.get(3), Buffer.from([9]))
})

test('netlink data that contradicts its lengths is read up to there and no further', () => {
  const good = new MessageWriter(64).begin({ type: 7, flags: 0, seq: 1 }).text(1, 'x').end().bytes()
  const cut = good.subarray(0, good.length - 2)
  assert.deepEqual([...messages(cut)], [])
  assert.deepEqual([...attributes(Buffer.from([2, 0, 1, 0]))], [])
  assert.deepEqual([...attributes(Buffer.from([200, 0, 1, 0, 5]))], [])
})

test('a list that ended early or changed while it was read is asked for again, and never passes for a whole one', t => {
  const whole: Answer = { acks: 0, errors: [], messages: [], done: true, interrupted: false }
  const refused: Answer = { ...whole, errors: [{ seq: 1, errno: 16 }], done: false }
  const dump = (...answers: Answer[]) => {
    const socket = new NetlinkSocket(NETLINK_ROUTE)
    t.after(() => socket.close())
    socket.request = () => answers.shift() ?? { ...whole, interrupted: true }
    return socket.dump(Buffer.alloc(0))
  }
  assert.equal(dump({ ...whole, done: false }, { ...whole, interrupted: true }, whole), whole)
  assert.equal(dump(refused, whole), refused)
  assert.throws(() => dump(), /not whole in 5 attempts/)
})
