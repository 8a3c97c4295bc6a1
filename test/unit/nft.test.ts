import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Batch } from '../../node-agent/gate/nft.ts'
import { MessageWriter, type NetlinkSocket } from '../../node-agent/kernel/netlink.ts'

/** A socket from which so many acknowledgements come back, and no error. */
function socketThatAcknowledges(acks: number): NetlinkSocket {
  let seq = 0
  const socket = {
    nextSeq: () => ++seq,
    request: () => ({ acks, errors: [], messages: [], done: false }),
  }
  return socket as unknown as NetlinkSocket
}

test('a transaction counts as applied only when each of its steps was acknowledged', () => {
  const set = { family: 'inet', table: 'understudy', set: 'open' } as const
  const commit = (acks: number) =>
    new Batch(socketThatAcknowledges(acks), new MessageWriter())
      .deleteElement('guard', set, Buffer.alloc(4))
      .createElement('grant', set, { key: Buffer.alloc(4), timeoutMs: 100 })
      .commit()
  assert.equal(commit(2).ok, true)
  assert.equal(commit(1).ok, false)
  // Whatever was sent, nobody heard of it: the answer may have been lost, or the request.
  assert.equal(commit(0).ok, false)
})
