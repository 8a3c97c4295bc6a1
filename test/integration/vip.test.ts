import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { KernelGate } from '../../node-agent/gate/kernel-gate.ts'
import { bootMs } from '../../node-agent/kernel/clock.ts'
import { RouteSocket } from '../../node-agent/kernel/rtnetlink.ts'
import { Connections } from '../../node-agent/vip/connections.ts'
import { Uplink, type UplinkState } from '../../node-agent/vip/links.ts'
import { PROBE_WINDOW_MS, type ProbeResult, probe } from '../../node-agent/vip/probe.ts'
import { tickle } from '../../node-agent/vip/tickle.ts'
import { VirtualAddresses } from '../../node-agent/vip/virtual-addresses.ts'
import { until } from '../fixtures/until.ts'
import { type Netns, whyNoNamespaces } from './support/netns.ts'
import { CLIENT4, createPair, HOST4, PROTECTED_PORT, SPEC, type TestPair, VIP4, VIP6 } from './support/pair.ts'
import type { Peer } from './support/peer.ts'

const MAC = '52:54:00:00:09:01'
const PEER_MAC = '52:54:00:00:09:02'
const BOTH = [VIP4, VIP6]
/** A gateway is asked each second or so. */
const UPLINK_LIMIT_MS = 60_000
/** On a busy machine. */
const ANSWER_LIMIT_MS = 10_000

describe('the virtual addresses', { skip: whyNoNamespaces(), timeout: 300_000 }, () => {
  let net: TestPair
  let host: Peer
  let peer: Peer
  let client: Peer
  let hostVips: VirtualAddresses
  let peerVips: VirtualAddresses
  let connections: Connections

  before(async () => {
    net = createPair('usgv')
    ;[host, peer, client] = (await Promise.all([net.host.peer(), net.peer.peer(), net.client.peer()])) as [
      Peer,
      Peer,
      Peer,
    ]
    for (const server of [host, peer]) await server.ask('listen', { host: '::', port: PROTECTED_PORT })
    const vips = () => new VirtualAddresses(BOTH.map(address => ({ iface: 'lan0', address })))
    hostVips = net.host.run(vips)
    peerVips = net.peer.run(vips)
    connections = net.host.run(() => new Connections())
  })
  after(async () => {
    for (const closable of [hostVips, peerVips, connections]) closable?.close()
    await net?.remove()
  })

  const held = (ns: Netns) =>
    BOTH.filter(vip => ns.exec('ip', '-o', 'address', 'show', 'dev', 'lan0').includes(` ${vip}/`))
  const neighbour = (vip: string) => / lladdr (\S+)/.exec(net.client.exec('ip', 'neigh', 'show', 'to', vip))?.[1]
  const claim = (ns: Netns, vips: VirtualAddresses) => {
    ns.run(() => vips.add())
    assert.deepEqual(
      ns.run(() => vips.announce(bootMs())),
      { failed: 0 },
    )
    vips.cancelAnnouncements()
  }
  const dial = async (id: string, vip: string) => {
    const dialled = await client.ask('dial', { id, host: vip, port: PROTECTED_PORT, limitMs: ANSWER_LIMIT_MS })
    assert.equal(dialled.outcome, 'ok')
    return { local: { address: vip, port: PROTECTED_PORT }, remote: { port: dialled.localPort } }
  }

  test('added and removed, each twice: the second time changes nothing', () => {
    net.host.run(() => {
      assert.deepEqual(hostVips.missing(), BOTH)
      assert.deepEqual(hostVips.add().added, BOTH)
      assert.deepEqual(hostVips.add().added, [])
      assert.deepEqual(hostVips.missing(), [])
    })
    assert.deepEqual(held(net.host), BOTH)
    assert.doesNotMatch(net.host.exec('ip', '-o', '-6', 'address', 'show', 'dev', 'lan0'), /100\/128.*tentative/)
    net.host.run(() => {
      assert.deepEqual(hostVips.remove().removed, BOTH)
      assert.deepEqual(hostVips.remove().removed, [])
    })
    assert.deepEqual(held(net.host), [])
  })

  test('a virtual address that was there before the host’s own one in its segment goes without it', () => {
    const vips = net.host.run(() => new VirtualAddresses([{ iface: 'lan0', address: '10.8.0.100', prefixLength: 24 }]))
    const setting = () => net.host.exec('cat', '/proc/sys/net/ipv4/conf/lan0/promote_secondaries')
    const before = setting()
    net.host.run(() => vips.add())
    net.host.exec('ip', 'address', 'add', '10.8.0.1/24', 'dev', 'lan0')
    assert.deepEqual(net.host.run(() => vips.remove()).removed, ['10.8.0.100'])
    const left = net.host.exec('ip', '-o', '-4', 'address', 'show', 'dev', 'lan0')
    assert.match(left, / 10\.8\.0\.1\/24 /)
    assert.doesNotMatch(left, /10\.8\.0\.100/)
    assert.equal(setting(), before)
    net.host.exec('ip', 'address', 'del', '10.8.0.1/24', 'dev', 'lan0')
    vips.close()
  })

  test('an interface that is missing is told, not passed over', () => {
    const vips = net.host.run(() => new VirtualAddresses([{ iface: 'gone0', address: VIP4 }]))
    assert.throws(() => net.host.run(() => vips.add()), /add 10\.9\.0\.100\/32 on gone0: ENODEV/)
    assert.deepEqual(net.host.run(() => vips.remove()).removed, [])
    vips.close()
  })

  test('IPv6 addresses go with the link, and are added again', () => {
    net.host.run(() => hostVips.add())
    net.host.exec('ip', 'link', 'set', 'lan0', 'down')
    net.host.exec('ip', 'link', 'set', 'lan0', 'up')
    assert.deepEqual(
      net.host.run(() => hostVips.missing()),
      [VIP6],
    )
    assert.deepEqual(net.host.run(() => hostVips.add()).added, [VIP6])
    net.host.exec('ip', 'address', 'replace', 'fd09::1/64', 'dev', 'lan0', 'nodad')
    net.host.run(() => hostVips.remove())
  })

  test('an announcement moves the addresses to the host that sends it', async () => {
    claim(net.peer, peerVips)
    for (const host of BOTH) await client.ask('connect', { host, port: PROTECTED_PORT, limitMs: ANSWER_LIMIT_MS })
    assert.deepEqual(BOTH.map(neighbour), [PEER_MAC, PEER_MAC])
    net.peer.run(() => peerVips.remove())
    claim(net.host, hostVips)
    await until(() => BOTH.every(vip => neighbour(vip) === MAC))
    net.host.run(() => hostVips.remove())
  })

  test('a probe finds who has the address, or that nobody has', async () => {
    const ask = (address: string): Promise<ProbeResult> =>
      net.host.run(() => probe({ iface: 'lan0', mac: MAC, address }))
    for (const vip of BOTH) assert.deepEqual(await ask(vip), { kind: 'free' })
    net.peer.run(() => peerVips.add())
    const takenMs = []
    for (let round = 0; round < 3; round++) {
      const startMs = bootMs()
      for (const vip of BOTH) assert.deepEqual(await ask(vip), { kind: 'taken', mac: PEER_MAC })
      takenMs.push(bootMs() - startMs)
    }
    assert(Math.min(...takenMs) < 300, 'an answer ends the probe')
    net.peer.run(() => peerVips.remove())
  })

  test('who has the address is found also where this process stood still for the rest of the window', async () => {
    for (const address of BOTH) {
      const asked = net.host.run(() => probe({ iface: 'lan0', mac: MAC, address }))
      claim(net.peer, peerVips)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PROBE_WINDOW_MS + 100)
      assert.deepEqual(await asked, { kind: 'taken', mac: PEER_MAC })
      net.peer.run(() => peerVips.remove())
    }
  })

  test('a host that holds an address without serving is not found by a probe', async () => {
    net.peer.run(() => peerVips.add())
    const gate = net.peer.run(() => new KernelGate({ ...SPEC, peers: [] }))
    net.peer.run(() => gate.install())
    for (const address of BOTH) {
      assert.deepEqual(await net.host.run(() => probe({ iface: 'lan0', mac: MAC, address })), { kind: 'free' })
    }
    net.peer.run(() => gate.uninstall())
    gate.dispose()
    net.peer.run(() => peerVips.remove())
  })

  test('the clients of the address are listed, and no others', async () => {
    claim(net.host, hostVips)
    const expected = []
    for (const vip of BOTH) expected.push((await dial(`listed ${vip}`, vip)).remote.port)
    await client.ask('dial', { id: 'elsewhere', host: HOST4, port: PROTECTED_PORT, limitMs: ANSWER_LIMIT_MS })
    const { clients, more } = connections.clients({ addresses: BOTH, ports: [PROTECTED_PORT] })
    assert.deepEqual(clients.map(c => c.remote.port).toSorted(), expected.toSorted())
    assert.deepEqual(clients.find(c => c.local.address === VIP4)?.remote.address, CLIENT4)
    assert.equal(more, 0)
  })

  test('at a demotion connections are destroyed at both ends, replication by the peer is not', async () => {
    await peer.ask('dial', { id: 'replication', host: '10.9.1.1', port: PROTECTED_PORT, limitMs: ANSWER_LIMIT_MS })
    const { destroyed } = connections.destroy({
      addresses: BOTH,
      ports: [PROTECTED_PORT],
      exceptRemote: SPEC.peers.map(({ address }) => address),
    })
    assert.equal(destroyed, 3)
    for (const id of [`listed ${VIP4}`, `listed ${VIP6}`, 'elsewhere']) {
      const { outcome } = await client.ask('ended', { id, limitMs: ANSWER_LIMIT_MS })
      assert.match(outcome, /reset|closed/, `${id}: ${outcome}`)
    }
    assert.equal((await peer.ask('say', { id: 'replication', limitMs: ANSWER_LIMIT_MS })).outcome, 'ok')
  })

  test('idle connections are reset through a closed gate', async () => {
    claim(net.host, hostVips)
    await dial('idle', VIP4)
    const gate = net.host.run(() => new KernelGate(SPEC))
    net.host.run(() => {
      gate.install()
      gate.close()
    })
    connections.destroy({ addresses: BOTH, ports: [PROTECTED_PORT], exceptRemote: ['10.9.1.2'] })
    assert.equal((await client.ask('ended', { id: 'idle', limitMs: ANSWER_LIMIT_MS })).outcome, 'reset')
    net.host.run(() => gate.uninstall())
    gate.dispose()
  })

  for (const vip of BOTH) {
    test(`a client of ${vip} that waits for a host that is gone is reset by a tickle from the new one`, async () => {
      claim(net.host, hostVips)
      const { remote } = await dial(`waiting ${vip}`, vip)
      // The host is gone in an instant: no reset, no FIN.
      net.host.exec('ip', 'link', 'set', 'lan0', 'down')
      claim(net.peer, peerVips)
      assert.equal((await client.ask('ended', { id: `waiting ${vip}`, limitMs: 300 })).outcome, 'timeout')
      const address = vip === VIP4 ? CLIENT4 : 'fd09::9'
      const local = { address: vip, port: PROTECTED_PORT }
      assert.deepEqual(
        net.peer.run(() => tickle([{ local, remote: { address, port: remote.port } }])),
        { sent: 1 },
      )
      assert.equal((await client.ask('ended', { id: `waiting ${vip}`, limitMs: ANSWER_LIMIT_MS })).outcome, 'reset')
      net.peer.run(() => peerVips.remove())
      net.host.exec('ip', 'link', 'set', 'lan0', 'up')
      net.host.exec('ip', 'address', 'replace', 'fd09::1/64', 'dev', 'lan0', 'nodad')
      net.host.run(() => hostVips.remove())
    })
  }

  test('the uplink: gateway reachable, silent, cable out', async () => {
    net.host.exec('ip', 'route', 'add', 'default', 'via', CLIENT4, 'dev', 'lan0')
    const route = net.host.run(() => new RouteSocket())
    const uplink = new Uplink({ route, iface: 'lan0' })
    const untilIs = (wanted: UplinkState) =>
      until(() => net.host.run(() => uplink.tick(bootMs())).state === wanted, UPLINK_LIMIT_MS)
    await untilIs('reachable')
    net.client.exec('ip', 'link', 'set', 'lan0', 'arp', 'off')
    await untilIs('silent')
    net.client.exec('ip', 'link', 'set', 'lan0', 'arp', 'on')
    await untilIs('reachable')
    net.host.exec('ip', 'link', 'set', 'lan0', 'down')
    await untilIs('no-carrier')
    net.host.exec('ip', 'link', 'set', 'lan0', 'up')
    net.host.exec('ip', 'route', 'replace', 'default', 'via', CLIENT4, 'dev', 'lan0')
    await untilIs('reachable')
    uplink.close()
    route.close()
  })

  test('an IPv6 gateway is asked by neighbour discovery; one that never answered says nothing of the uplink', async () => {
    const route = net.host.run(() => new RouteSocket())
    const uplink = new Uplink({ route, iface: 'lan0', gateway: 'fd09::9' })
    const nobody = new Uplink({ route, iface: 'lan0', gateway: 'fd09::77' })
    const lookAt = (which: Uplink): UplinkState => net.host.run(() => which.tick(bootMs())).state
    const untilIs = (wanted: UplinkState) => until(() => lookAt(uplink) === wanted, UPLINK_LIMIT_MS)
    net.host.exec('ip', 'address', 'replace', 'fd09::1/64', 'dev', 'lan0', 'nodad')
    await untilIs('reachable')
    net.client.exec('ip', 'address', 'del', 'fd09::9/64', 'dev', 'lan0')
    await untilIs('silent')
    assert.equal(lookAt(nobody), 'unknown')
    // Its cable goes out and in again: what it knew of the gateway counts still.
    net.host.exec('ip', 'link', 'set', 'lan0', 'down')
    await untilIs('no-carrier')
    net.host.exec('ip', 'link', 'set', 'lan0', 'up')
    net.host.exec('ip', 'address', 'replace', 'fd09::1/64', 'dev', 'lan0', 'nodad')
    await untilIs('silent')
    net.client.exec('ip', 'address', 'add', 'fd09::9/64', 'dev', 'lan0', 'nodad')
    await untilIs('reachable')
    // Half a minute of its time.
    for (let s = 0; s < 30; s++) assert.equal(net.host.run(() => nobody.tick(bootMs() + s * 1000)).state, 'unknown')
    uplink.close()
    nobody.close()
    route.close()
  })
})
