import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { HostEvents } from '../../node-agent/kernel/host-events.ts'
import { AF_NETLINK, closeFd, openSocket, SOCK_RAW, trySend } from '../../node-agent/kernel/libc.ts'
import { applyChange, type Reach, removeJournal, undoUnfinished } from '../../node-agent/network/change.ts'
import { readFoundSettings } from '../../node-agent/network/found-settings.ts'
import type { Ask } from '../../node-agent/network/inventory.ts'
import { planChange } from '../../node-agent/network/plan.ts'
import { routesRefusal, routesTold } from '../../node-agent/network/routes.ts'
import { allReached, ChangedHost, changed, wish } from './support/changed-host.ts'

/** Networks of a host that are changed, on Linux bridges. */
const at = new ChangedHost('net')

describe('vSwitches on Linux bridges', () => {
  test('the NICs are listed with their cables, addresses and routes', async () => {
    const { nics, routes, vswitches } = await at.look()
    assert.deepEqual(
      nics.map(one => [one.name, one.carrier, one.addresses, one.master]),
      [
        ['eth0', true, ['10.40.0.5/24'], null],
        ['eth1', true, ['10.41.0.5/24'], null],
      ],
    )
    assert.ok(routes.some(route => route.destination === 'default' && route.device === 'eth1'))
    assert.deepEqual(vswitches, [])
  })

  test('a change of a link, a disk or an adapter is heard, and nothing else of devices is', () => {
    const events = at.host.run(() => new HostEvents())
    // As the kernel writes them (lib/kobject_uevent.c); nobody else hears them in this namespace.
    const device = (action: string, subsystem: string, name: string): string =>
      ['', `ACTION=${action}`, `SUBSYSTEM=${subsystem}`, `DEVNAME=${name}`, 'SEQNUM=7', ''].join('\0')
    const tell = (event: string): boolean => {
      at.host.run(() => {
        const fd = openSocket({ domain: AF_NETLINK, type: SOCK_RAW, protocol: 15 })
        const group = Buffer.alloc(12)
        group.writeUInt16LE(AF_NETLINK)
        group.writeUInt32LE(1, 8)
        assert.equal(trySend(fd, Buffer.from(`add@/devices/some${event}`), group), 0)
        closeFd(fd)
      })
      return events.changed()
    }
    try {
      events.changed()
      assert.equal(events.changed(), false)
      at.host.exec('ip', 'link', 'set', 'eth1', 'mtu', '1490')
      assert.equal(events.changed(), true)
      at.host.exec('ip', 'link', 'set', 'eth1', 'mtu', '1500')
      assert.equal(events.changed(), true)
      assert.equal(tell(device('add', 'block', 'loop3')), false)
      assert.equal(tell(device('change', 'block', 'sdq')), true)
      assert.equal(tell(device('change', 'block', 'dm-4')), true)
      assert.equal(tell(device('remove', 'fc_remote_ports', '')), true)
      assert.equal(tell(device('add', 'cpu', 'sda')), false)
      assert.equal(events.changed(), false)
    } finally {
      events.close()
    }
  })

  test('a new one takes over the address of its NIC, and the network behind it is reached', async () => {
    const result = await at.change(wish({ gateways: ['10.41.0.1'] }))
    assert.deepEqual(result, changed)
    const made = await at.vswitch('svc0')
    assert.deepEqual(
      { ...made, ports: [] },
      { ...wish({ gateways: ['10.41.0.1'] }), owned: true, ports: [], learned: [] },
    )
    await at.untilReaches('10.41.0.1')
    assert.ok(!existsSync(join(at.folder, 'network-change.json')))
  })

  test('it is modified while the rest stays', async () => {
    const more = wish({ gateways: ['10.41.0.1'], addresses: ['10.41.0.5/24', 'fd41::5/64'], mtu: 1500 })
    assert.deepEqual(await at.change(more), changed)
    assert.deepEqual((await at.vswitch('svc0'))?.addresses, ['10.41.0.5/24', 'fd41::5/64'])
    assert.equal((await at.vswitch('svc0'))?.mtu, 1500)
    await at.untilReaches('10.41.0.1')
  })

  const inPlace = wish({ gateways: ['10.41.0.1'], addresses: ['10.41.0.5/24', 'fd41::5/64'], mtu: 1500 })

  test('an address that a router gave for a time, and its gateway, are no settings: a change leaves them alone', async () => {
    assert.deepEqual(await at.change(inPlace), changed)
    const given = ['fd99::5/64', 'dev', 'svc0', 'valid_lft', '3000', 'preferred_lft', '3000', 'noprefixroute']
    at.host.exec('ip', 'address', 'add', ...given)
    at.host.exec('ip', '-6', 'route', 'add', 'default', 'via', 'fe80::1', 'dev', 'svc0', 'proto', 'ra')
    const there = await at.vswitch('svc0')
    assert.deepEqual([there?.learned, there?.gateways], [['fd99::5/64'], ['10.41.0.1']])
    const moved = wish({ gateways: ['10.41.0.1'], addresses: ['10.41.0.8/24', 'fd41::5/64'], mtu: 1500 })
    assert.deepEqual(await at.change(moved), changed)
    const now = await at.vswitch('svc0')
    assert.deepEqual([...(now?.addresses ?? [])].sort(), ['10.41.0.8/24', 'fd41::5/64', 'fd99::5/64'])
    assert.deepEqual([now?.learned, now?.gateways], [there?.learned, there?.gateways])
    assert.match(at.host.exec('ip', '-6', 'route', 'show', 'default'), /^default via fe80::1 dev svc0 proto ra/)
    assert.deepEqual(await at.change({ ...moved, addresses: ['10.41.0.5/24', 'fd41::5/64'] }), changed)
    at.host.exec('ip', '-6', 'route', 'del', 'default')
    at.host.exec('ip', 'address', 'del', 'fd99::5/64', 'dev', 'svc0')
  })

  const routeTo = (network: string) =>
    at.look().then(({ routes }) => routes.find(route => route.destination === network))

  test('its gateway and other routes outlive a change of its last address; one whose gateway is reached no more goes, and is told', async () => {
    const addresses = ['10.41.0.5/24', 'fd41::5/64']
    at.host.exec(
      'ip',
      'route',
      'add',
      '10.66.0.0/16',
      'via',
      '10.41.0.1',
      'dev',
      'svc0',
      'metric',
      '7',
      'proto',
      'static',
    )
    const [route, gateway] = [await routeTo('10.66.0.0/16'), await routeTo('default')]
    const there = wish({ gateways: ['10.41.0.1'], mtu: 1500, addresses })
    const moved = { ...there, addresses: ['10.41.0.6/24', 'fd41::5/64'] }
    await at.failsAnywhere(moved)
    assert.deepEqual(await at.change(moved), changed)
    assert.deepEqual([await routeTo('10.66.0.0/16'), await routeTo('default')], [route, gateway])
    await at.untilReaches('10.41.0.1')
    assert.deepEqual(await at.change(there), changed)
    const elsewhere = { ...there, addresses: ['10.44.0.5/24'] }
    assert.equal(routesTold(await at.planned(elsewhere)), '; is no more: 10.66.0.0/16 via 10.41.0.1, which was on svc0')
    at.host.exec('ip', 'route', 'del', '10.66.0.0/16')
  })

  /** As `ip route` takes them: what shares the traffic of two NICs, and a table that rules choose by source. */
  const viaBoth = 'nexthop via 10.40.0.1 dev eth0 weight 2 nexthop via 10.41.0.1 dev svc0 weight 3'.split(' ')
  const ownTable = 'via 10.40.0.1 dev eth0 src 10.40.0.5 mtu lock 1300 table 100'.split(' ')

  test('the routes of a NIC go with its address into its vSwitch', async () => {
    assert.deepEqual(await at.change(inPlace), changed)
    at.host.exec('ip', 'route', 'add', '10.55.0.0/16', 'via', '10.40.0.1', 'dev', 'eth0', 'proto', 'static')
    at.host.exec('ip', '-6', 'address', 'add', 'fd40::5/64', 'dev', 'eth0', 'nodad')
    at.host.exec('ip', '-6', 'route', 'add', 'fd55::/64', 'via', 'fd40::1', 'dev', 'eth0')
    const taking = wish({ name: 'new0', nics: ['eth0'], addresses: ['10.40.0.5/24', 'fd40::5/64'] })
    at.host.exec('ip', 'route', 'add', '10.56.0.0/16', ...viaBoth)
    at.host.exec('ip', 'route', 'add', 'default', ...ownTable)
    const told = routesTold(await at.planned(taking))
    assert.match(
      told,
      /^; goes over new0 now, until the next boot: .*10\.55\.0\.0\/16 via 10\.40\.0\.1, which was on eth0; .*fd55::\/64 via/,
    )
    assert.match(
      told,
      /default via 10\.40\.0\.1 of table 100, .*10\.56\.0\.0\/16 via 10\.40\.0\.1 and via 10\.41\.0\.1/,
    )
    assert.deepEqual(await at.change(taking), changed)
    for (const network of ['10.55.0.0/16', 'fd55::/64', '10.56.0.0/16'])
      assert.equal((await routeTo(network))?.device, 'new0', network)
    assert.match(
      at.host.exec('ip', 'route', 'show', 'table', '100'),
      /^default via 10\.40\.0\.1 dev new0 src 10\.40\.0\.5 mtu lock 1300 *\n$/,
    )
    assert.match(routesTold(await at.planned(null, 'new0')), /; goes on over what is left of it: 10\.56\.0\.0\/16/)
    assert.deepEqual(await at.change(null, { name: 'new0' }), changed)
    assert.equal((await routeTo('10.56.0.0/16'))?.device, 'svc0')
    at.host.exec('ip', 'route', 'del', '10.56.0.0/16')
    at.host.exec('ip', 'address', 'add', '10.40.0.5/24', 'dev', 'eth0')
  })

  test('a route that could not be put back is refused to be lost', async () => {
    at.host.exec('ip', 'nexthop', 'add', 'id', '7', 'via', '10.40.0.1', 'dev', 'eth0')
    at.host.exec('ip', 'route', 'add', '10.59.0.0/16', 'nhid', '7')
    const taking = await at.planned(wish({ name: 'new0', nics: ['eth0'], addresses: ['10.40.0.5/24'] }))
    assert.match(
      routesRefusal(taking) ?? '',
      /the route 10\.59\.0\.0\/16 via 10\.40\.0\.1 on eth0 would be lost .* since "nhid" of it is not known here/,
    )
    assert.equal(routesRefusal(await at.planned(wish({ gateways: ['10.41.0.1'], mtu: 1300 }))), null)
    at.host.exec('ip', 'nexthop', 'del', 'id', '7')
  })

  test('a change that cuts the host from its peer is taken back by the host, which says so', async () => {
    const before = await at.look()
    const real = async (): Promise<Reach> => ({ peer: at.reaches('10.41.0.1'), witness: true, controlPlane: null })
    const cut = at.parts({ reach: real })
    const result = await at.change(wish({ addresses: ['10.99.0.5/24'], nics: [] }), { parts: cut })
    assert.equal(result.ok, false)
    assert.match(result.ok ? '' : result.why, /did not reach the other host within 30 s; the host is as it was/)
    assert.deepEqual(await at.look(), before)
    await at.untilReaches('10.41.0.1')
  })

  test('a change of a bridge that fails or is killed at any of its steps leaves the host as it was: devices, addresses, routes', async () => {
    at.host.exec(
      'ip',
      'route',
      'add',
      '10.55.0.0/16',
      'via',
      '10.40.0.1',
      'dev',
      'eth0',
      'metric',
      '77',
      'proto',
      'static',
    )
    at.host.exec('ip', '-6', 'address', 'add', 'fd40::5/64', 'dev', 'eth0', 'nodad')
    at.host.exec('ip', '-6', 'route', 'add', 'fd55::/64', 'via', 'fd40::1', 'dev', 'eth0')
    const others = [
      ['default', ...ownTable],
      ['10.56.0.0/16', ...viaBoth],
      // Another one to the same network, with another metric; one over the link alone, and one that leads through it.
      '10.55.0.0/16 via 10.40.0.1 dev eth0 metric 78 advmss 1200'.split(' '),
      '10.40.9.9 dev eth0 scope link'.split(' '),
      '10.57.0.0/16 via 10.40.9.9 dev eth0'.split(' '),
      // It goes with an address of another device.
      '10.58.0.0/16 via 10.41.0.1 dev svc0 src 10.40.0.5'.split(' '),
    ]
    for (const words of others) at.host.exec('ip', 'route', 'add', ...words)
    // The other vSwitch has the default route, whose place a new one takes.
    const taking = { name: 'new0', nics: ['eth0'], gateways: ['10.40.0.1'] }
    await at.failsAnywhere(wish({ ...taking, addresses: ['10.40.0.5/24', 'fd40::5/64'] }))
    for (const words of others.splice(2, 3).reverse()) at.host.exec('ip', 'route', 'del', ...words)
    const moved = wish({ gateways: [], addresses: ['10.41.0.77/24'], nics: ['eth0'], mtu: 1300 })
    await at.failsAnywhere(moved)
    await at.failsAnywhere(moved, { how: 'dies' })
    // What is none of a vSwitch's settings comes back too. A spanning tree would take its time each time.
    const set = (...words: string[]): string => at.host.exec('ip', 'link', 'set', 'svc0', 'type', 'bridge', ...words)
    set('forward_delay', '200', 'priority', '4096', 'mcast_snooping', '0')
    await at.failsAnywhere(null, { name: 'svc0' })
    for (const words of others.reverse()) at.host.exec('ip', 'route', 'del', ...words)
    at.host.exec('ip', 'route', 'del', '10.55.0.0/16')
    at.host.exec('ip', '-6', 'route', 'del', 'fd55::/64')
    at.host.exec('ip', '-6', 'address', 'del', 'fd40::5/64', 'dev', 'eth0')
  })

  test('a bridge that is taken away comes back with its spanning tree; one that keeps VLANs apart is not taken away', async () => {
    const found = async (ask: Ask = at.inHost) =>
      readFoundSettings(ask, { from: await at.vswitch('svc0'), to: null, nics: (await at.look()).nics })
    at.host.exec('ip', 'link', 'set', 'svc0', 'type', 'bridge', 'stp_state', '1')
    assert.match((await found()).words.join(' '), /^type bridge .*\bstp_state 1\b/)
    at.host.exec('ip', 'link', 'set', 'svc0', 'type', 'bridge', 'stp_state', '0')
    at.host.exec('ip', 'link', 'set', 'svc0', 'address', '02:00:00:00:00:18')
    assert.match((await found()).words.join(' '), /^address 02:00:00:00:00:18 type bridge /)
    // Not every kernel can.
    const filtering: Ask = async argv => {
      const said = await at.inHost(argv)
      return said.ok ? { ...said, stdout: said.stdout.replace('"vlan_filtering":0', '"vlan_filtering":1') } : said
    }
    const { refusal } = await found(filtering)
    assert.match(refusal ?? '', /^svc0 has settings .* would be lost: vlan_filtering\. Take them back/)
  })

  test('a NIC that vanished between the look and the change fails it, and the rest is as it was', async () => {
    at.host.exec('ip', 'link', 'add', 'gone0', 'type', 'veth', 'peer', 'name', 'gone1')
    const plugged = await at.everything()
    const steps = planChange(await at.planned(wish({ name: 'new0', nics: ['gone0'] })))
    at.host.exec('ip', 'link', 'del', 'gone0')
    const before = await at.everything()
    assert.notDeepEqual(before, plugged)
    const result = await applyChange(at.parts(), { why: 'a test', steps, record: at.record, remember: async () => {} })
    assert.match(result.ok ? '' : result.why, /gone0.*(Cannot find device|does not exist).*the host is as it was/s)
    assert.deepEqual(await at.everything(), before)
  })

  test('a change under way when the agent dies is taken back at its next start', async () => {
    const before = await at.look()
    const dies = at.parts({
      reach: (() => {
        let asked = 0
        return async (): Promise<Reach> => {
          asked += 1
          if (asked > 1) throw new Error('the agent dies here')
          return allReached
        }
      })(),
    })
    const second = wish({ name: 'two0', nics: ['eth0'], addresses: ['10.40.0.5/24'] })
    await assert.rejects(at.change(second, { parts: dies }), /dies here/)
    assert.notDeepEqual(await at.look(), before)
    const undone = await undoUnfinished(at.parts(), at.record)
    assert.match(undone?.why ?? '', /was under way when its process ended: it was taken back/)
    assert.deepEqual(undone?.record, at.record)
    assert.deepEqual(await at.look(), before)
    removeJournal(at.parts())
    assert.equal(await undoUnfinished(at.parts(), at.record), null)
  })

  test('a deleted one is gone, and its NIC free', async () => {
    assert.deepEqual(await at.change(null, { name: 'svc0' }), changed)
    assert.equal(await at.vswitch('svc0'), null)
    assert.equal((await at.look()).nics.find(one => one.name === 'eth1')?.master, null)
  })
})
