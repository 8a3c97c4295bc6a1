import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { type Gate, KernelGate } from '../../node-agent/gate/kernel-gate.ts'
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

/** Long enough that a refusal is told from silence on a busy machine, short enough for a table of them. */
const LIMIT_MS = 500
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
    for (const address of [VIP4, VIP6]) await client.ask('connect', { host: address, port: OTHER_PORT, limitMs: 2000 })
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

  async function table(): Promise<Expected> {
    const attempt = (from: Peer, address: string, port = PROTECTED_PORT) =>
      from.ask('connect', { host: address, port, limitMs: LIMIT_MS }).then(({ outcome }) => outcome)
    const both = async (from: Peer, addresses: string[], port?: number) => {
      const outcomes = new Set(await Promise.all(addresses.map(address => attempt(from, address, port))))
      assert.equal(outcomes.size, 1, `${addresses} differ: ${[...outcomes]}`)
      return [...outcomes][0]!
    }
    return {
      vip: await attempt(client, VIP4),
      vip6: await attempt(client, VIP6),
      lan: await attempt(client, HOST4),
      lan6: await attempt(client, HOST6),
      unprotected: await both(client, [HOST4, HOST6], OTHER_PORT),
      local: await both(host, [VIP4, VIP6, HOST4, HOST6]),
      loopback: await both(host, ['127.0.0.1', '::1']),
      peerLink: await both(peer, [HOST_LINK4, HOST_LINK6]),
      peerVip: await attempt(peer, VIP4),
      peerLan: await both(peer, [HOST4, HOST6]),
    }
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
    assert.deepEqual(await table(), { ...all, peerLink: 'ok', peerVip: 'ok', peerLan: 'ok' })
  })

  test('frozen: silence for all, local clients too; the peer still replicates and other ports work', async () => {
    net.host.run(() => gate.freeze())
    assert.deepEqual(await table(), {
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
    assert.deepEqual(await table(), {
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
    const answers = async () => {
      for (const address of [VIP4, VIP6]) net.client.succeeds('ip', 'neigh', 'flush', 'to', address)
      const states: string[] = []
      for (const address of [VIP4, VIP6]) {
        await client.ask('connect', { host: address, port: OTHER_PORT, limitMs: LIMIT_MS })
        states.push(/lladdr/.test(net.client.exec('ip', 'neigh', 'show', 'to', address)) ? 'known' : 'unknown')
      }
      return states
    }
    open(gate, LONG_MS)
    assert.deepEqual(await answers(), ['known', 'known'])
    net.host.run(() => gate.freeze())
    assert.deepEqual(await answers(), ['unknown', 'unknown'])
    net.host.run(() => gate.close())
    assert.deepEqual(await answers(), ['unknown', 'unknown'])
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
      const { outcome } = await client.ask('dial', { id, host: address, port: PROTECTED_PORT, limitMs: 2000 })
      assert.equal(outcome, 'ok')
    }
    await host.ask('dial', { id: 'local', host: VIP4, port: PROTECTED_PORT, limitMs: 2000 })
    net.host.run(() => gate.freeze())
    const heard = client.ask('say', { id: 'v4', limitMs: 20_000 })
    const pushed = client.ask('hear', { id: 'v6', limitMs: 20_000 })
    const local = host.ask('say', { id: 'local', limitMs: 20_000 })
    await host.ask('push', {})
    await new Promise(resolve => setTimeout(resolve, 3000))
    open(gate, 20_000)
    const outcomes = await Promise.all([heard, pushed, local])
    assert.deepEqual(
      outcomes.map(({ outcome }) => outcome),
      ['ok', 'ok', 'ok'],
    )
    for (const { ms } of outcomes) assert(ms >= 2900, `an answer came after ${ms} ms, through a frozen gate`)
  })

  test('closing resets connections that speak', async () => {
    open(gate, LONG_MS)
    net.host.run(() => vips.announce(bootMs()))
    await client.ask('dial', { id: 'doomed', host: VIP4, port: PROTECTED_PORT, limitMs: 2000 })
    assert.equal((await client.ask('say', { id: 'doomed', limitMs: 2000 })).outcome, 'ok')
    net.host.run(() => gate.close())
    assert.equal((await client.ask('say', { id: 'doomed', limitMs: 2000 })).outcome, 'reset')
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
    const { outcome } = await client.ask('dial', { id: 'far', host: VIP4, port: 9000, limitMs: 2000 })
    assert.equal(outcome, 'ok')
    net.host.run(() => gate.freeze())
    await peer.ask('push', {})
    assert.equal((await client.ask('hear', { id: 'far', limitMs: 600 })).outcome, 'timeout')
    open(gate, LONG_MS)
    assert.equal((await client.ask('hear', { id: 'far', limitMs: 5000 })).outcome, 'ok')
    net.host.exec('nft', 'delete', 'table', 'ip', 'translation')
  })
})
