import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { networkInterfaces } from 'node:os'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { PeerLink, type PeerLinkOptions } from '../../node-agent/peer/link.ts'
import { datagramBytesMax } from '../../node-agent/peer/wire.ts'
import type { Message } from '../../shared/protocol/types.ts'
import { until } from '../fixtures/until.ts'
import { type Side, WireTap } from '../fixtures/wire-tap.ts'

const pairKey = randomBytes(32)
/** Below what the kernel gives to outgoing connections (32768 on). */
let nextPort = 26000

interface Host {
  link: PeerLink
  received: Message[]
  starts: string[]
  refused: string[]
  restart(change?: Partial<PeerLinkOptions>): void
}

function hostOn(context: TestContext, taps: WireTap[], self: Side, change: Partial<PeerLinkOptions> = {}): Host {
  const options: PeerLinkOptions = {
    self,
    pairKeys: [pairKey],
    paths: taps.map(tap => tap.pathOf[self]),
    agentVersion: '0.1.0',
    now: () => performance.now(),
    onMessage: message => host.received.push(message),
    onPeer: peer => host.starts.push(peer.start),
    onRefused: (why, sentence) => host.refused.push(`${why}: ${sentence}`),
    ...change,
  }
  const host: Host = {
    link: new PeerLink(options),
    received: [],
    starts: [],
    refused: [],
    restart: change => {
      host.link.close()
      host.link = new PeerLink({ ...options, ...change })
    },
  }
  context.after(() => host.link.close())
  return host
}

async function tapsOf(context: TestContext, count = 1): Promise<WireTap[]> {
  const port = nextPort++
  const taps = await Promise.all(Array.from({ length: count }, (_, net) => WireTap.open(port, net)))
  context.after(() => {
    for (const tap of taps) tap.close()
  })
  return taps
}

const talks = (host: Host): boolean => host.link.statistics().peer !== null

async function pair(context: TestContext, count = 1) {
  const taps = await tapsOf(context, count)
  const [a, b] = [hostOn(context, taps, 'a'), hostOn(context, taps, 'b')]
  await until(() => talks(a) && talks(b))
  return { taps, tap: taps[0]!, a, b }
}

const resign = (version: number): Message => ({ kind: 'resign', gen: 0, epoch: 1, version })
const versions = (host: Host): number[] =>
  host.received.map(message => (message.kind === 'resign' ? message.version : -1))
const discarded = (host: Host) => host.link.statistics().discarded

test('messages go both ways, once the hosts have heard of each other', async context => {
  const { a, b } = await pair(context)
  assert.equal(a.link.send(resign(1)), true)
  assert.equal(b.link.send(resign(2)), true)
  await until(() => a.received.length === 1 && b.received.length === 1)
  assert.deepEqual([a.received, b.received], [[resign(2)], [resign(1)]])
  assert.equal(a.starts.length, 1)
})

test('a message before the hosts have heard of each other is not kept for later', async context => {
  const taps = await tapsOf(context)
  const a = hostOn(context, taps, 'a')
  assert.equal(a.link.send(resign(1)), false)
  const b = hostOn(context, taps, 'b')
  await until(() => talks(a) && talks(b))
  await sleep(50)
  assert.deepEqual(b.received, [])
})

test('nothing on the wire can be read, and every datagram is bounded', async context => {
  const { tap, a, b } = await pair(context)
  a.link.send(resign(7))
  void a.link.ask({ verb: 'large', body: 'x'.repeat(60_000), limitMs: 1000 })
  await until(() => b.received.length === 1 && tap.from('a').length > 60)
  for (const { bytes } of tap.recorded) {
    assert.equal(bytes.includes('resign'), false)
    assert.ok(bytes.length <= datagramBytesMax)
  }
})

test('a packet that arrives twice, or is sent again later, is taken once', async context => {
  const { tap, a, b } = await pair(context)
  tap.pass = bytes => [bytes, bytes]
  for (let n = 1; n <= 20; n++) a.link.send(resign(n))
  await until(() => b.received.length === 20)
  for (const bytes of tap.from('a')) tap.inject(bytes, 'a')
  await until(() => discarded(b).replayed >= 40)
  await sleep(50)
  assert.equal(b.received.length, 20)
})

test('packets in a different order are all taken', async context => {
  const { tap, a, b } = await pair(context)
  const held: Buffer[] = []
  tap.pass = (bytes, from) => {
    if (from === 'b') return [bytes]
    held.push(bytes)
    return []
  }
  for (let n = 1; n <= 30; n++) a.link.send(resign(n))
  await until(() => held.length >= 30)
  for (const bytes of held.reverse()) tap.inject(bytes, 'a')
  await until(() => b.received.length === 30)
  assert.deepEqual(
    versions(b).sort((x, y) => x - y),
    Array.from({ length: 30 }, (_, i) => i + 1),
  )
})

test('what an agent sealed before its restart is not heard after it', async context => {
  const { tap, a, b } = await pair(context)
  let cut = true
  tap.pass = (bytes, from) => (from === 'a' && cut ? [] : [bytes])
  const sealed = tap.from('a').length
  for (let n = 1; n <= 5; n++) a.link.send(resign(n))
  await until(() => tap.from('a').length >= sealed + 5)
  const old = tap.from('a')
  cut = false
  a.restart()
  await until(() => b.starts.length === 2)
  const before = b.link.statistics().peer?.start
  for (const bytes of old) tap.inject(bytes, 'a')
  await until(() => discarded(b).unknownSession >= 5)
  await sleep(100)
  assert.deepEqual(b.received, [])
  assert.equal(b.link.statistics().peer?.start, before, 'the replayed hello of the old start changed the conversation')
  a.link.send(resign(6))
  await until(() => b.received.length === 1)
})

test('what was sealed for an agent before its restart is not heard after it', async context => {
  const { tap, a, b } = await pair(context)
  for (let n = 1; n <= 5; n++) a.link.send(resign(n))
  await until(() => b.received.length === 5)
  const old = tap.from('a')
  b.restart()
  await until(() => talks(b))
  for (const bytes of old) tap.inject(bytes, 'a')
  await sleep(100)
  assert.equal(b.received.length, 5)
  a.link.send(resign(6))
  await until(() => b.received.length === 6)
})

test('replayed hellos do not disturb a conversation', async context => {
  const { tap, a, b } = await pair(context)
  a.restart()
  await until(() => b.starts.length === 2)
  const hellos = tap.recorded.filter(({ bytes }) => bytes[3] === 1)
  const session = b.link.statistics().peer
  for (let round = 1; round <= 20; round++) {
    for (const { bytes, from } of hellos) tap.inject(bytes, from)
    a.link.send(resign(round))
    await sleep(5)
  }
  await until(() => b.received.length === 20)
  assert.deepEqual(b.link.statistics().peer, session)
  assert.equal(discarded(b).forged, 0)
})

test('a forged, foreign, cut, too long or senseless packet is counted by its reason and changes nothing', async context => {
  const { tap, a, b } = await pair(context)
  a.link.send(resign(1))
  await until(() => b.received.length === 1)
  const genuine = tap.from('a').at(-1)!
  const flip = (at: number): Buffer => {
    const bytes = Buffer.from(genuine)
    bytes[at]! ^= 1
    return bytes
  }
  const cases: [keyof ReturnType<typeof discarded>, Buffer][] = [
    ['malformed', Buffer.alloc(0)],
    ['malformed', Buffer.from('US')],
    ['malformed', flip(0)],
    ['version', flip(2)],
    ['malformed', Buffer.concat([genuine.subarray(0, 3), Buffer.from([9]), genuine.subarray(4)])],
    ['foreign', flip(4)],
    ['unknownSession', flip(12)],
    ['forged', flip(25)],
    ['forged', flip(30)],
    ['forged', flip(genuine.length - 1)],
    ['forged', genuine.subarray(0, -1)],
    ['malformed', genuine.subarray(0, 30)],
    ['replayed', genuine],
    ['oversized', Buffer.concat([genuine, Buffer.alloc(1400)])],
    ['forged', Buffer.concat([genuine, Buffer.alloc(100)])],
  ]
  for (const [why, bytes] of cases) {
    const before = discarded(b)[why]
    tap.inject(bytes, 'a')
    await until(() => discarded(b)[why] === before + 1)
  }
  const hello = tap.from('a').find(bytes => bytes[3] === 1)!
  for (const at of [12, 30, 45, hello.length - 1]) {
    const before = discarded(b).forged
    const bytes = Buffer.from(hello)
    bytes[at]! ^= 1
    tap.inject(bytes, 'a')
    await until(() => discarded(b).forged === before + 1)
  }
  for (let n = 0; n < 200; n++) tap.inject(randomBytes(n * 6), 'a')
  a.link.send(resign(2))
  await until(() => b.received.length === 2)
  assert.equal(b.refused.length, 1)
  assert.match(b.refused[0]!, /^version: a packet of wire version 0 came from .* Update the older host/)
})

test('a packet from another address is not even opened', async context => {
  const { tap, a, b } = await pair(context)
  const { peerAddress, localAddress, port } = tap.pathOf.a
  assert.notEqual(peerAddress, localAddress)
  const stranger = createSocket('udp4')
  context.after(() => stranger.close())
  stranger.bind({ address: '127.56.0.99' })
  stranger.send(tap.from('b')[0]!, port, localAddress)
  await until(() => discarded(a).stranger === 1)
  b.link.send(resign(1))
  await until(() => a.received.length === 1)
})

test('hosts of different pairs do not talk, and each says so with the address and the remedy', async context => {
  const taps = await tapsOf(context)
  // A host that has just booted: its clock has run for less than the silence after which another pair is said.
  const bootedAt = performance.now()
  const now = (): number => performance.now() - bootedAt
  const a = hostOn(context, taps, 'a', { now })
  const b = hostOn(context, taps, 'b', { now, pairKeys: [randomBytes(32)] })
  await until(() => discarded(a).foreign > 2 && discarded(b).foreign > 2)
  assert.equal(talks(a) || talks(b), false)
  for (const host of [a, b])
    assert.match(host.refused.join('\n'), /^foreign: the host at 127\.\S+ has the key of another pair: have it join/)
})

test('hosts that get another key in turn talk throughout: by the old one until both have the new, by the new one from then on', async context => {
  const { a, b } = await pair(context)
  const newKey = randomBytes(32)
  const byNewest = (host: Host): boolean => host.link.statistics().peer?.byFirstKey === true
  const bothHear = async (version: number): Promise<void> => {
    await until(() => {
      a.link.send(resign(version))
      b.link.send(resign(version))
      return versions(a).includes(version) && versions(b).includes(version)
    })
  }
  b.restart({ pairKeys: [newKey, pairKey] })
  await bothHear(1)
  assert.equal(byNewest(b), false, 'the other host has the old one only')
  a.restart({ pairKeys: [newKey, pairKey] })
  await bothHear(2)
  await until(() => byNewest(a) && byNewest(b))
  // Taken back on one host alone: the old one is what both have.
  a.restart({ pairKeys: [pairKey] })
  await bothHear(3)
  await until(() => !byNewest(b))
  a.restart({ pairKeys: [newKey, pairKey] })
  await until(() => byNewest(a) && byNewest(b))
  b.restart({ pairKeys: [newKey] })
  await bothHear(4)
  a.restart({ pairKeys: [newKey] })
  await bothHear(5)
})

test('with two keys in use, what an earlier start of the other host had sealed by either is not taken', async context => {
  const newKey = randomBytes(32)
  const { tap, a, b } = await pair(context)
  b.restart({ pairKeys: [newKey, pairKey] })
  a.link.send(resign(1))
  await until(() => {
    a.link.send(resign(2))
    return versions(b).includes(2)
  })
  a.restart({ pairKeys: [newKey, pairKey] })
  await until(() => a.link.statistics().peer?.byFirstKey === true && b.link.statistics().peer?.byFirstKey === true)
  const before = b.received.length
  for (const bytes of tap.from('a')) tap.inject(bytes, 'a')
  a.link.send(resign(9))
  await until(() => versions(b).includes(9))
  await sleep(50)
  assert.deepEqual(versions(b).slice(before), [9])
})

test('two agents that say they are the same host are refused loudly', async context => {
  const taps = await tapsOf(context)
  const a = hostOn(context, taps, 'a')
  const second = new PeerLink({
    self: 'a',
    pairKeys: [pairKey],
    paths: [taps[0]!.pathOf.b],
    agentVersion: '0.1.0',
    now: () => performance.now(),
    onMessage: () => {},
  })
  context.after(() => second.close())
  await until(() => a.refused.length === 1)
  assert.match(a.refused[0]!, /^sameNode: .* says that it is host a, as this one is/)
  assert.equal(talks(a), false)
})

test('hosts with a version in common use the highest of those; without one they refuse loudly', async context => {
  const taps = await tapsOf(context)
  const a = hostOn(context, taps, 'a', { speaks: { min: 1, max: 2 } })
  const b = hostOn(context, taps, 'b', { speaks: { min: 2, max: 3 } })
  await until(() => talks(a) && talks(b))
  assert.equal(a.link.statistics().peer?.version, 2)
  a.link.send(resign(1))
  await until(() => b.received.length === 1)
  b.restart({ speaks: { min: 3, max: 4 } })
  await until(() => a.refused.length === 1)
  assert.match(a.refused[0]!, /^incompatible: .* speaks versions 3 to 4 of the peer link, this one 1 to 2/)
  assert.equal(talks(b), false)
})

test('with two paths every message comes once, and the loss of one path loses nothing', async context => {
  const { taps, a, b } = await pair(context, 2)
  for (let n = 1; n <= 20; n++) {
    a.link.send(resign(n))
    b.link.send(resign(n))
    await sleep(1)
  }
  await until(() => b.link.statistics().messages.copies === 20)
  assert.equal(b.received.length, 20)
  taps[0]!.pass = () => []
  for (let n = 21; n <= 40; n++) {
    a.link.send(resign(n))
    b.link.send(resign(n))
    await sleep(10)
  }
  await until(() => b.received.length === 40 && a.received.length === 40)
  const [cut, good] = a.link.statistics().paths
  assert.ok(cut!.heardAgoMs! > good!.heardAgoMs!)
  assert.ok(cut!.heardByPeerAgoMs! > good!.heardByPeerAgoMs!)
})

test('the round trip of each path is measured by itself', async context => {
  const { taps, a, b } = await pair(context, 2)
  taps[1]!.delayMs = 40
  for (let n = 1; n <= 20; n++) {
    a.link.send(resign(n))
    b.link.send(resign(n))
    await sleep(20)
  }
  const roundTrips = () => a.link.statistics().paths.map(path => path.rttMs ?? 0)
  await until(() => roundTrips()[1]! > 40)
  // What a busy machine adds, it adds to both.
  const [direct = 0, delayed = 0] = roundTrips()
  assert.ok(direct > 0 && direct < delayed, `${direct} and ${delayed} ms`)
  await until(() => b.received.length === 20)
})

test('a path whose address is missing does not disturb the others, and comes in when it is there', async context => {
  const taps = await tapsOf(context)
  const missing = { localAddress: '192.0.2.77', peerAddress: '192.0.2.78', port: 26090 }
  const a = hostOn(context, taps, 'a', { paths: [taps[0]!.pathOf.a, missing] })
  const b = hostOn(context, taps, 'b')
  await until(() => talks(a) && talks(b))
  a.link.send(resign(1))
  await until(() => b.received.length === 1)
  assert.match(a.link.statistics().paths[1]!.fault ?? '', /EADDRNOTAVAIL/)
  // Somebody else has the port; then no more.
  const squatter = createSocket('udp4')
  const path = { localAddress: '127.56.7.1', peerAddress: '127.56.7.2', port: 26091 }
  squatter.bind({ address: path.localAddress, port: path.port })
  await new Promise(resolve => squatter.once('listening', resolve))
  a.restart({ paths: [taps[0]!.pathOf.a, path] })
  await until(() => /EADDRINUSE/.test(a.link.statistics().paths[1]!.fault ?? ''))
  squatter.close()
  await until(() => a.link.statistics().paths[1]!.fault === null)
})

const withoutIpv6 = networkInterfaces().lo?.some(({ family }) => family === 'IPv6') ? false : 'lo has no IPv6 here'

test('a host that hears itself on an IPv6 path says so', { skip: withoutIpv6 }, async context => {
  const path = { localAddress: '::1', peerAddress: '::1', port: nextPort++ }
  const a = hostOn(context, [], 'a', { paths: [path] })
  await until(() => a.refused.length === 1)
  assert.match(a.refused[0]!, /^sameNode/)
})

test('a question of 60 KB is answered with 60 KB over a bad line', async context => {
  const taps = await tapsOf(context)
  const a = hostOn(context, taps, 'a')
  const asked: string[] = []
  hostOn(context, taps, 'b', {
    onAsked: (verb, body) => {
      asked.push(verb)
      return { echo: body }
    },
  })
  await until(() => talks(a))
  let n = 0
  taps[0]!.pass = bytes => (n++ % 5 === 0 ? [] : n % 7 === 0 ? [bytes, bytes] : [bytes])
  taps[0]!.delayMs = 5
  const body = randomBytes(30_000).toString('hex')
  const answer = await a.link.ask({ verb: 'why', body, limitMs: 20_000 })
  assert.deepEqual(answer, { ok: true, body: { echo: body } })
  assert.deepEqual(asked, ['why'])
})

test('a question that is too long, fails, or is not answered says why', async context => {
  const taps = await tapsOf(context)
  const a = hostOn(context, taps, 'a')
  const b = hostOn(context, taps, 'b', {
    onAsked: verb => {
      if (verb === 'long') return 'x'.repeat(70_000)
      throw new Error(`no such verb: ${verb}`)
    },
  })
  await until(() => talks(a) && talks(b))
  const ask = (verb: string, body: unknown = null, limitMs = 5000) => a.link.ask({ verb, body, limitMs })
  assert.deepEqual(await ask('nonsense'), { ok: false, why: 'no such verb: nonsense' })
  const long = await ask('long')
  assert.match(long.ok ? '' : long.why, /the answer has 7\d+ bytes; 65536 is the most/)
  const large = await ask('large', 'x'.repeat(70_000))
  assert.match(large.ok ? '' : large.why, /a question of 7\d+ bytes; 65536 is the most/)
  b.link.close()
  const late = await ask('status', null, 200)
  assert.deepEqual(late, { ok: false, why: 'the other host did not answer in time' })
})

test('extras reach the peer, the latest wins, and a peer that restarts gets them again', async context => {
  const taps = await tapsOf(context)
  const a = hostOn(context, taps, 'a')
  const seen: unknown[] = []
  const b = hostOn(context, taps, 'b', { onExtras: extras => seen.push(extras) })
  const clients = Array.from({ length: 64 }, (_, i) => `[2001:db8::ffff:${i}]:54321`)
  a.link.publish({ clients, agentVersion: '0.1.0' })
  await until(() => seen.length === 1)
  for (let n = 1; n <= 50; n++) a.link.publish({ clients: [`192.0.2.${n}:1`] })
  await until(() => JSON.stringify(seen.at(-1)) === '{"clients":["192.0.2.50:1"]}')
  assert.ok(seen.length < 10)
  const before = seen.length
  b.restart()
  await until(() => seen.length > before)
  assert.deepEqual(seen.at(-1), { clients: ['192.0.2.50:1'] })
})

test('a conversation survives 30 % loss and reordering on both paths', async context => {
  const taps = await tapsOf(context, 2)
  let state = 7
  const random = (): number => {
    state = (state * 1103515245 + 12345) % 2 ** 31
    return state / 2 ** 31
  }
  for (const tap of taps) {
    tap.pass = bytes => (random() < 0.3 ? [] : [bytes])
    tap.delayMs = 3
  }
  const [a, b] = [hostOn(context, taps, 'a'), hostOn(context, taps, 'b')]
  await until(() => talks(a) && talks(b))
  for (let n = 1; n <= 200; n++) {
    a.link.send(resign(n))
    if (n % 20 === 0) b.restart()
    await sleep(5)
  }
  assert.ok(new Set(versions(b)).size === b.received.length, 'a message was taken twice')
  await until(() => talks(b))
  const before = b.received.length
  await until(() => {
    a.link.send(resign(1000))
    return b.received.length > before
  })
})
