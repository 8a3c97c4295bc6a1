import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Gate } from '../../node-agent/gate/gate.ts'
import { KernelGate } from '../../node-agent/gate/kernel-gate.ts'
import { bootMs } from '../../node-agent/kernel/clock.ts'
import { VirtualAddresses } from '../../node-agent/vip/virtual-addresses.ts'
import { whyNoNamespaces } from './support/netns.ts'
import {
  createPair,
  HOST_LINK4,
  HOST_LINK6,
  HOST4,
  HOST6,
  OTHER_PORT,
  PEER_LINK4,
  PROTECTED_PORT,
  SPEC,
  type TestPair,
  VIP4,
  VIP6,
} from './support/pair.ts'
import type { Outcome, Peer } from './support/peer.ts'

/** What is silent is silent for so long: short enough for a table of them. */
const LIMIT_MS = 500
/** An answer, on a busy machine. */
const ANSWER_LIMIT_MS = 10_000
const LONG_MS = 10_000

/** What a client finds: 'ok', 'refused', or 'timeout' for silence. */
type Expected = Record<
  'vip' | 'vip6' | 'lan' | 'lan6' | 'unprotected' | 'local' | 'loopback' | 'peerLink' | 'peerVip' | 'peerLan',
  Outcome['outcome']
>

describe('the gate in the kernel', { skip: whyNoNamespaces(), timeout: 240_000 }, () => {
  let net: TestPair
  let gate: KernelGate
  let vips: VirtualAddresses
  let host: Peer
  let client: Peer
  let peer: Peer

  before(async () => {
    net = createPair('usgg')
    vips = net.host.run(() => new VirtualAddresses([VIP4, VIP6].map(address => ({ iface: 'lan0', address }))))
    net.host.run(() => vips.add())
    ;[host, client, peer] = (await Promise.all([net.host.peer(), net.client.peer(), net.peer.peer()])) as [
      Peer,
      Peer,
      Peer,
    ]
    await host.ask('listen', { host: '::', port: PROTECTED_PORT })
    await host.ask('listen', { host: '::', port: OTHER_PORT })
    // Neighbour entries exist, so that a timeout below is the gate's and not address resolution's.
    for (const host of [VIP4, VIP6]) await client.ask('connect', { host, port: OTHER_PORT, limitMs: ANSWER_LIMIT_MS })
    gate = net.host.run(() => new KernelGate(SPEC))
    assert.deepEqual(
      net.host.run(() => gate.install()),
      { found: 'frozen', expiresInMs: 0 },
    )
  })

  after(async () => {
    gate?.dispose()
    vips?.close()
    await net?.remove()
  })

  const open = (gate: Gate, forMs: number) => {
    const result = net.host.run(() => gate.open(bootMs() + forMs))
    assert.equal(result.ok, true, JSON.stringify(result))
  }

  const ways: { [way in keyof Expected]: { from: () => Peer; to: string[]; port?: number } } = {
    vip: { from: () => client, to: [VIP4] },
    vip6: { from: () => client, to: [VIP6] },
    lan: { from: () => client, to: [HOST4] },
    lan6: { from: () => client, to: [HOST6] },
    unprotected: { from: () => client, to: [HOST4, HOST6], port: OTHER_PORT },
    local: { from: () => host, to: [VIP4, VIP6, HOST4, HOST6] },
    loopback: { from: () => host, to: ['127.0.0.1', '::1'] },
    peerLink: { from: () => peer, to: [HOST_LINK4, HOST_LINK6] },
    peerVip: { from: () => peer, to: [VIP4] },
    peerLan: { from: () => peer, to: [HOST4, HOST6] },
  }

  /** An answer is waited for where one is expected; where none is, silence has to last. */
  async function expectTable(expected: Expected): Promise<void> {
    const found = await Promise.all(
      (Object.keys(ways) as (keyof Expected)[]).map(async way => {
        const { from, to, port = PROTECTED_PORT } = ways[way]
        const limitMs = expected[way] === 'timeout' ? LIMIT_MS : ANSWER_LIMIT_MS
        const tried = await Promise.all(to.map(address => from().ask('connect', { host: address, port, limitMs })))
        const outcomes = new Set(tried.map(({ outcome }) => outcome))
        assert.equal(outcomes.size, 1, `${to} differ: ${[...outcomes]}`)
        return [way, [...outcomes][0]!]
      }),
    )
    assert.deepEqual(Object.fromEntries(found), expected)
  }

  test('open: everybody reaches the protected port on every address', async () => {
    open(gate, LONG_MS)
    const all = {
      vip: 'ok',
      vip6: 'ok',
      lan: 'ok',
      lan6: 'ok',
      unprotected: 'ok',
      local: 'ok',
      loopback: 'ok',
    } as const
    await expectTable({ ...all, peerLink: 'ok', peerVip: 'ok', peerLan: 'ok' })
  })

  test('frozen: silence for all, local clients too; the peer still replicates and other ports work', async () => {
    net.host.run(() => gate.freeze())
    await expectTable({
      vip: 'timeout',
      vip6: 'timeout',
      lan: 'timeout',
      lan6: 'timeout',
      unprotected: 'ok',
      local: 'timeout',
      loopback: 'timeout',
      peerLink: 'ok',
      peerVip: 'timeout',
      peerLan: 'timeout',
    })
    assert(net.host.run(() => gate.read()).counters.frozenPackets > 0)
  })

  test('closed: new connections are refused at once, on every address', async () => {
    net.host.run(() => gate.close())
    await expectTable({
      vip: 'refused',
      vip6: 'refused',
      lan: 'refused',
      lan6: 'refused',
      unprotected: 'ok',
      local: 'refused',
      loopback: 'refused',
      peerLink: 'ok',
      peerVip: 'refused',
      peerLan: 'refused',
    })
    assert(net.host.run(() => gate.read()).counters.refusedPackets > 0)
  })

  test('ARP and neighbour solicitations for the virtual addresses are answered only while open', async () => {
    const answers = async (limitMs: number) => {
      for (const address of [VIP4, VIP6]) net.client.succeeds('ip', 'neigh', 'flush', 'to', address)
      const states: string[] = []
      for (const address of [VIP4, VIP6]) {
        await client.ask('connect', { host: address, port: OTHER_PORT, limitMs })
        states.push(/lladdr/.test(net.client.exec('ip', 'neigh', 'show', 'to', address)) ? 'known' : 'unknown')
      }
      return states
    }
    open(gate, LONG_MS)
    assert.deepEqual(await answers(ANSWER_LIMIT_MS), ['known', 'known'])
    net.host.run(() => gate.freeze())
    assert.deepEqual(await answers(LIMIT_MS), ['unknown', 'unknown'])
    net.host.run(() => gate.close())
    assert.deepEqual(await answers(LIMIT_MS), ['unknown', 'unknown'])
    assert(net.host.run(() => gate.read()).counters.arpSilencedPackets > 0)
  })

  test('an announcement sent while frozen does not leave the host', () => {
    net.host.run(() => gate.freeze())
    const announce = () => net.host.run(() => vips.announce(bootMs()))
    const before = net.host.run(() => gate.read()).counters.announcementsStoppedPackets
    assert.equal(announce().failed, 2)
    assert(net.host.run(() => gate.read()).counters.announcementsStoppedPackets > before)
    open(gate, LONG_MS)
    assert.equal(announce().failed, 0)
    vips.cancelAnnouncements()
  })

  test('connections survive a freeze of three seconds, whoever wanted to speak in it', async () => {
    open(gate, LONG_MS)
    net.host.run(() => vips.announce(bootMs()))
    for (const [id, address] of [
      ['v4', VIP4],
      ['v6', VIP6],
    ] as const) {
      const { outcome } = await client.ask('dial', {
        id,
        host: address,
        port: PROTECTED_PORT,
        limitMs: ANSWER_LIMIT_MS,
      })
      assert.equal(outcome, 'ok')
    }
    await host.ask('dial', { id: 'local', host: VIP4, port: PROTECTED_PORT, limitMs: ANSWER_LIMIT_MS })
    net.host.run(() => gate.freeze())
    /** When it was told, in this process: never before it came. */
    const told = (answer: Promise<Outcome>) => answer.then(({ outcome }) => ({ outcome, atMs: performance.now() }))
    const heard = told(client.ask('say', { id: 'v4', limitMs: 60_000 }))
    const pushed = told(client.ask('hear', { id: 'v6', limitMs: 60_000 }))
    const local = told(host.ask('say', { id: 'local', limitMs: 60_000 }))
    await host.ask('push', {})
    await sleep(3000)
    const openedMs = performance.now()
    open(gate, 20_000)
    const answers = await Promise.all([heard, pushed, local])
    assert.deepEqual(
      answers.map(({ outcome }) => outcome),
      ['ok', 'ok', 'ok'],
    )
    for (const { atMs } of answers) assert(atMs >= openedMs, 'an answer came through a frozen gate')
  })

  test('closing resets connections that speak', async () => {
    open(gate, LONG_MS)
    net.host.run(() => vips.announce(bootMs()))
    await client.ask('dial', { id: 'doomed', host: VIP4, port: PROTECTED_PORT, limitMs: ANSWER_LIMIT_MS })
    assert.equal((await client.ask('say', { id: 'doomed', limitMs: ANSWER_LIMIT_MS })).outcome, 'ok')
    net.host.run(() => gate.close())
    assert.equal((await client.ask('say', { id: 'doomed', limitMs: ANSWER_LIMIT_MS })).outcome, 'reset')
  })

  test('an address that is translated to another host is gated on the way back too', async () => {
    const rules = `
      table ip translation {
        chain pre { type nat hook prerouting priority dstnat;
          ip daddr ${VIP4} tcp dport 9000 dnat to ${PEER_LINK4}:${OTHER_PORT}
        }
        chain post { type nat hook postrouting priority srcnat;
          oifname "pl0" masquerade
        }
      }`
    net.host.exec('sh', '-c', `cat <<'END' | nft -f -\n${rules}\nEND`)
    net.host.exec('sysctl', '-qw', 'net.ipv4.ip_forward=1')
    await peer.ask('listen', { host: '::', port: OTHER_PORT })
    assert.equal(
      net.host.run(() => gate.reconfigure({ ...SPEC, forwarded: true })),
      'closed',
    )
    open(gate, LONG_MS)
    net.host.run(() => vips.announce(bootMs()))
    const { outcome } = await client.ask('dial', { id: 'far', host: VIP4, port: 9000, limitMs: ANSWER_LIMIT_MS })
    assert.equal(outcome, 'ok')
    net.host.run(() => gate.freeze())
    // Who listens from the beginning hears it also where it is repeated the moment the gate opens.
    let isHeard = false
    const heard = client.ask('hear', { id: 'far', limitMs: 60_000 }).finally(() => {
      isHeard = true
    })
    await peer.ask('push', {})
    await sleep(600)
    assert.equal(isHeard, false, 'it came through a frozen gate')
    open(gate, LONG_MS)
    assert.equal((await heard).outcome, 'ok')
    net.host.exec('nft', 'delete', 'table', 'ip', 'translation')
  })
})
