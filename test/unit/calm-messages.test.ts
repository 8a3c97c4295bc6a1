import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readCalmMessage } from '../../shared/contract/calm-messages.ts'
import { messageSchema } from '../../shared/contract/protocol.ts'
import { genMax, roundMax } from '../../shared/protocol/ballot.ts'
import type { Message } from '../../shared/protocol/types.ts'

const registered = { gen: 3, epoch: 7, version: 12, inc: 'a-1b.c:d_e', nonce: 2 ** 31, seq: 9 }
const calm: Message[] = [
  {
    kind: 'heartbeat',
    ...registered,
    timeline: 2,
    databaseUp: true,
    serving: true,
    holdsLease: true,
    leaseMs: 1000,
    note: 'steady',
  },
  {
    kind: 'ack',
    ...registered,
    promise: true,
    why: '',
    flushed: { timeline: 2, lsn: 2 ** 45 + 1 },
    streaming: true,
    confirmed: true,
    witness: 'yes',
    uplink: true,
    asks: 'nothing',
  },
]

/** Of every type, at and beyond each bound. */
const texts = ['', 'yes', 'no', 'steady', 'switching', 'leave', 'heartbeat', 'a', '-a', 'a b', 'a\n', 'ä', '1']
const numbers = [0, -0, 1, -1, 0.5, 1e300, 2 ** 53, 2 ** 53 - 1, Number.NaN, genMax, genMax + 1, roundMax, roundMax + 1]
const positions = [
  { timeline: 1 },
  { timeline: 1, lsn: 2, more: 3 },
  { timeline: -1, lsn: 2 },
  { timeline: 1, lsn: '2' },
]
const longTexts = ['a'.repeat(64), 'a'.repeat(65)]
const values: unknown[] = [undefined, null, true, false, [], [1], {}, ...texts, ...longTexts, ...numbers, ...positions]

for (const message of calm) {
  test(`a ${message.kind} of a pair in calm is read as the schema reads it`, () => {
    assert.deepEqual(readCalmMessage(message), message)
    assert.deepEqual(messageSchema.parse(message), message)
  })

  test(`a ${message.kind} with any field changed, gone or added is taken only where the schema takes it, and as it does`, () => {
    let taken = 0
    const fields = [...Object.keys(message), 'more', 'toString']
    for (const field of fields)
      for (const value of values) {
        const changed: Record<string, unknown> = { ...message, [field]: value }
        if (value === undefined) delete changed[field]
        const read = readCalmMessage(changed)
        if (read === null) continue
        taken += 1
        assert.deepEqual(read, messageSchema.parse(changed), `${field}: ${String(value)}`)
      }
    assert.ok(taken > 2 * values.length, `${taken} of ${fields.length * values.length} were taken`)
  })
}

test('what is no message of calm is left to the schema', () => {
  for (const value of [...values, { kind: 'resign', gen: 1, epoch: 1, version: 1 }, { kind: 'heartbeat' }])
    assert.equal(readCalmMessage(value), null)
})
