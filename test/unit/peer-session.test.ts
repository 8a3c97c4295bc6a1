import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { Session } from '../../node-agent/peer/session.ts'
import { parsePacket } from '../../node-agent/peer/wire.ts'

function sessions(): { a: Session; b: Session; pairTag: Buffer } {
  const pairTag = randomBytes(8)
  const common = {
    pairKey: randomBytes(32),
    pairTag,
    randomOf: { a: randomBytes(16), b: randomBytes(16) },
    version: 1,
    peer: { start: 'one', agentVersion: '1' },
  }
  return { a: new Session({ ...common, self: 'a' }), b: new Session({ ...common, self: 'b' }), pairTag }
}

test('packets are opened by the other host in their order, whenever ciphers were made ahead, and no nonce is used twice', () => {
  const { a, b, pairTag } = sessions()
  const body = Buffer.from('the same in each packet')
  const seen = new Set<string>()
  for (let number = 0; number < 400; number++) {
    // Never at first, then with each packet, then so rarely that what was made ahead is used up in between.
    if (number > 50 && (number < 100 || number % 97 === 0)) a.prepare()
    const packet = parsePacket(a.seal(body), [pairTag])
    assert.ok(packet.type === 'data')
    assert.equal(packet.counter, number)
    assert.equal(packet.session, b.tag)
    seen.add(packet.sealed.toString('hex'))
    const opened = b.open(packet)
    assert.deepEqual(opened, { ok: true, body })
    assert.deepEqual(b.open(packet), { ok: false, why: 'replayed' })
  }
  assert.equal(seen.size, 400)
  assert.equal(a.packetsSent, 400)
})
