import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addressBytes, addressText, sameAddress } from '../../node-agent/kernel/address.ts'
import { ANNOUNCE_AT_MS, type Announced, Announcer, dueAnnouncement } from '../../node-agent/vip/announce.ts'
import {
  arpProbe,
  bareAck,
  duplicateSolicitation,
  gratuitousArp,
  internetChecksum,
  readArp,
  readNeighbour,
  unsolicitedAdvertisement,
} from '../../node-agent/vip/frames.ts'

const MAC = '52:54:00:00:09:01'
const VIP: Announced = { iface: 'lan0', mac: MAC, address: '10.9.0.100' }

test('announcements are repeated at the times of the schedule, then end', () => {
  const sentMs: number[] = []
  let nowMs = 5000
  const announcer = new Announcer(() => {
    sentMs.push(nowMs - 5000)
    return 0
  })
  announcer.start([VIP], nowMs)
  for (; nowMs < 25_000; nowMs += 10) announcer.tick(nowMs)
  assert.deepEqual(sentMs, [...ANNOUNCE_AT_MS])
  assert.equal(announcer.active, false)
})

test('announcements that were missed are not made up for all at once', () => {
  const { due, round } = dueAnnouncement({ startedMs: 0, sent: 1 }, 1500)
  assert.equal(due, true)
  assert.deepEqual(round, { startedMs: 0, sent: 4 })
  assert.equal(dueAnnouncement(round!, 1500).due, false)
  assert.equal(dueAnnouncement({ startedMs: 0, sent: 1 }, 60_000).round, undefined)
})

test('cancelled, nothing more is announced; started again, it begins anew', () => {
  let sent = 0
  const announcer = new Announcer(() => {
    sent++
    return 0
  })
  announcer.start([VIP], 0)
  announcer.cancel()
  announcer.tick(100)
  assert.equal(sent, 1)
  announcer.start([VIP], 200)
  announcer.tick(300)
  assert.equal(sent, 3)
})

test('an announcement that can not be sent is counted', () => {
  const announcer = new Announcer(() => 1)
  assert.deepEqual(announcer.start([VIP, VIP], 0), { failed: 2 })
})

test('addresses go from text to bytes and back', () => {
  const pairs = [
    ['10.9.0.100', '10.9.0.100'],
    ['::', '::'],
    ['::1', '::1'],
    ['fd09:0:0:0::100', 'fd09::100'],
    ['FD09::1:0:0:1', 'fd09::1:0:0:1'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2:3:4:5:6'],
    ['fd09::', 'fd09::'],
    ['1:0:2:3:4:5:6:7', '1:0:2:3:4:5:6:7'],
    ['::ffff:10.9.0.1', '10.9.0.1'],
    ['64:ff9b::10.9.0.1', '64:ff9b::a09:1'],
  ] as const
  for (const [text, usual] of pairs) assert.equal(addressText(addressBytes(text)), usual)
  assert(sameAddress('fd09::100', 'fd09:0000::0100'))
  assert.throws(() => addressBytes('10.9.0.256'), /no IPv4 or IPv6 address/)
})

test('gratuitous ARP names the address as sender and target, as request and as reply', () => {
  const packets = gratuitousArp(MAC, VIP.address).map(readArp)
  assert.deepEqual(
    packets.map(packet => packet?.operation),
    ['request', 'reply'],
  )
  for (const packet of packets) {
    assert.equal(packet?.senderMac, MAC)
    assert.deepEqual(packet?.senderIp, addressBytes(VIP.address))
    assert.deepEqual(packet?.targetIp, addressBytes(VIP.address))
  }
})

test('a probe claims nothing: its sender address is zero', () => {
  assert.deepEqual(readArp(arpProbe(MAC, VIP.address))?.senderIp, Buffer.alloc(4))
  const solicitation = readNeighbour(duplicateSolicitation(MAC, 'fd09::12:3456'))
  assert.deepEqual(solicitation?.senderIp, Buffer.alloc(16))
  assert.deepEqual(solicitation?.target, addressBytes('fd09::12:3456'))
})

test('an unsolicited advertisement overrides, and goes to all nodes', () => {
  const frame = unsolicitedAdvertisement(MAC, 'fd09::100')
  assert.equal(frame.length, 86)
  assert.equal(frame.toString('hex', 0, 6), '333300000001')
  assert.equal(frame[14 + 40 + 4], 0x20)
  assert.deepEqual(readNeighbour(frame)?.target, addressBytes('fd09::100'))
  assert.equal(frame.toString('hex', 80), '525400000901')
})

test('checksums come out as the receiver checks them: the sum over all is zero', () => {
  // The example of RFC 1071, section 3.
  assert.equal(internetChecksum(Buffer.from('0001f203f4f5f6f7', 'hex')), 0x220d)
  for (const [from, to] of [
    ['10.9.0.100', '10.9.0.9'],
    ['fd09::100', 'fd09::9'],
  ] as const) {
    const packet = bareAck({ address: from, port: 5432 }, { address: to, port: 40_000 })
    const segment = packet.subarray(packet.length - 20)
    const pseudo = Buffer.concat([
      addressBytes(from),
      addressBytes(to),
      Buffer.from([0, 0, 0, 20, 0, 0, 0, 6]),
      segment,
    ])
    assert.equal(internetChecksum(pseudo), 0)
    assert.equal(segment.readUInt32BE(4), 0, 'sequence number')
    assert.equal(segment[13], 0x10, 'flags: only ACK')
  }
})
