import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { HostEvents } from '../../node-agent/kernel/host-events.ts'
import { AF_NETLINK, closeFd, openSocket, SOCK_RAW, trySend } from '../../node-agent/kernel/libc.ts'
import { applyChange, type Reach, removeJournal, undoUnfinished } from '../../node-agent/network/change.ts'
import { planChange } from '../../node-agent/network/plan.ts'
import { routesRefusal, routesTold } from '../../node-agent/network/routes.ts'
import { changeVswitch, restoreVswitches, type VswitchParts } from '../../node-agent/network/vswitches.ts'
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
    await at.failsAnywhere(null, { name: 'svc0' })
    for (const words of others.reverse()) at.host.exec('ip', 'route', 'del', ...words)
    at.host.exec('ip', 'route', 'del', '10.55.0.0/16')
    at.host.exec('ip', '-6', 'route', 'del', 'fd55::/64')
    at.host.exec('ip', '-6', 'address', 'del', 'fd40::5/64', 'dev', 'eth0')
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

describe('a vSwitch as an operator asks for it', () => {
  const own = join(at.folder, 'own')
  const root = join(at.folder, 'root')
  const asked = (): VswitchParts => ({
    folder: own,
    boot: 'this-boot',
    root,
    ask: (argv, limitMs) => at.inHost(argv, limitMs),
    reach: async () => allReached,
    sleep: async () => {},
    begun: () => {},
    confirmMs: 30_000,
    ovsDatapath: 'netdev',
    pair: { peerAddresses: ['10.41.0.6'], vips: [], pathAddresses: ['10.40.0.5'] },
  })
  const bootFile = join(root, 'etc/network/interfaces.d/understudy-svc0')

  before(() => {
    mkdirSync(join(root, 'etc/network'), { recursive: true })
    writeFileSync(join(root, 'etc/network/interfaces'), 'auto lo\niface lo inet loopback\n')
  })

  test('a wish with faults is refused with each of them, and nothing was changed', async () => {
    const was = await at.look()
    const result = await changeVswitch(asked(), { set: wish({ vlan: 4095, mtu: 100, addresses: ['10.41.0.6/24'] }) })
    assert.equal(result.ok, false)
    assert.match(result.why, /vlan is "4095".*mtu is "100".*is an address of the other host; nothing was changed/)
    assert.deepEqual(await at.look(), was)
  })

  test('it is made, remembered, and written where the host reads it at boot; only its own files are touched', async () => {
    const result = await changeVswitch(asked(), { set: wish() })
    assert.deepEqual(result, { ok: true, why: 'vSwitch svc0 is made; everything that was reached before is reached' })
    assert.match(readFileSync(bootFile, 'utf8'), /^# Written by Understudy[\s\S]*auto svc0/)
    assert.equal(readFileSync(join(root, 'etc/network/interfaces'), 'utf8'), 'auto lo\niface lo inet loopback\n')
  })

  test('a change that was confirmed stays, though a power cut brought its journal back', async () => {
    const journal = join(own, 'network-change.json')
    let kept = ''
    const reach = async (): Promise<Reach> => {
      if (existsSync(journal)) kept = readFileSync(journal, 'utf8')
      return allReached
    }
    const described = wish({ description: 'confirmed' })
    assert.equal((await changeVswitch({ ...asked(), reach }, { set: described })).ok, true)
    assert.ok(!existsSync(journal) && kept !== '')
    const [network, recorded] = [await at.everything(), readFileSync(join(own, 'vswitches.json'), 'utf8')]
    writeFileSync(journal, kept)
    const looked = await changeVswitch({ ...asked(), boot: 'next-boot' }, { undo: 'unfinished' })
    assert.match(looked.why, /vSwitch svc0 is changed" was confirmed and remembered when its process ended: it stays/)
    assert.deepEqual([await at.everything(), existsSync(journal)], [network, false])
    assert.equal(readFileSync(join(own, 'vswitches.json'), 'utf8'), recorded)
  })

  test('what a boot has lost is made again at the next start, and only that', async () => {
    at.host.exec('ip', 'link', 'del', 'svc0')
    at.host.exec('ip', 'link', 'set', 'eth1', 'mtu', '1500')
    assert.deepEqual(await restoreVswitches(asked()), ['the vSwitch svc0 was missing and is made again'])
    await at.untilReaches('10.41.0.1')
    assert.deepEqual(await restoreVswitches(asked()), [])
  })

  test('what of it is lost while it is there is put back at the next start', async () => {
    at.host.exec('ip', 'address', 'flush', 'dev', 'svc0')
    // Somebody's own, which is no business of ours.
    at.host.exec('ip', 'address', 'add', '10.49.0.9/24', 'dev', 'svc0')
    assert.deepEqual(await restoreVswitches(asked()), ['the vSwitch svc0 had lost 10.41.0.5/24, which is put back'])
    await at.untilReaches('10.41.0.1')
    assert.deepEqual((await at.vswitch('svc0'))?.addresses.sort(), ['10.41.0.5/24', '10.49.0.9/24'])
    at.host.exec('ip', 'address', 'del', '10.49.0.9/24', 'dev', 'svc0')
  })

  test('an address is taken in any form of it: nothing is lost and put back at each start', async () => {
    const set = await changeVswitch(asked(), { set: wish({ addresses: ['10.41.0.5/24', 'FD41:0::0005/064'] }) })
    assert.ok(set.ok, set.why)
    assert.deepEqual((await at.vswitch('svc0'))?.addresses, ['10.41.0.5/24', 'fd41::5/64'])
    assert.deepEqual(await restoreVswitches(asked()), [])
    assert.equal((await changeVswitch(asked(), { set: wish() })).ok, true)
  })

  test('a record or a journal that is damaged changes nothing, is told by name, and keeps no agent from starting', async () => {
    const was = await at.everything()
    for (const name of ['vswitches.json', 'network-change.json']) {
      const path = join(own, name)
      const whole = existsSync(path) ? readFileSync(path, 'utf8') : null
      writeFileSync(path, '{"version":1')
      const damaged = new RegExp(`${name}.* is damaged`, 's')
      const changes = await changeVswitch(asked(), { remove: 'svc0' })
      assert.ok(!changes.ok)
      assert.match(changes.why, damaged)
      assert.match((await restoreVswitches(asked())).join(), damaged)
      if (whole === null) rmSync(path)
      else writeFileSync(path, whole)
    }
    assert.deepEqual(await at.everything(), was)
  })

  test('while Open vSwitch does not answer nothing is made on it: what is there would be taken for missing', async () => {
    const refused = await changeVswitch(asked(), {
      set: wish({ name: 'ovs0', backend: 'ovs', nics: [], addresses: [] }),
    })
    assert.match(refused.why, /^Open vSwitch does not answer: .*; nothing was changed$/s)
  })

  test('a change that can’t be remembered is taken back, with what was written of it', async () => {
    const files = join(root, 'etc/network/interfaces.d')
    const [before, recorded] = [await at.everything(), readFileSync(join(own, 'vswitches.json'), 'utf8')]
    rmSync(files, { recursive: true })
    writeFileSync(files, 'somebody’s file')
    const result = await changeVswitch(asked(), { set: wish({ addresses: ['10.41.0.7/24'] }) })
    rmSync(files)
    assert.match(result.why, /it can't be remembered: .*the host is as it was/s)
    assert.deepEqual(await at.everything(), before)
    assert.equal(readFileSync(join(own, 'vswitches.json'), 'utf8'), recorded)
    assert.equal((await changeVswitch(asked(), { set: wish() })).ok, true)
    assert.match(readFileSync(bootFile, 'utf8'), /auto svc0/)
  })

  test('a NIC that other files give an address at boot is not taken, since the next boot would take it back', async () => {
    const file = join(root, 'etc/network/interfaces.d/eth0')
    writeFileSync(file, 'auto eth0\niface eth0 inet static\n    address 10.40.0.5/24\n')
    const taking = wish({ name: 'two0', nics: ['eth0'], addresses: ['10.43.0.5/24'] })
    const before = await at.everything()
    const refused = await changeVswitch(asked(), { set: taking })
    assert.match(
      refused.why,
      /eth0 is set up at boot by \/etc\/network\/interfaces\.d\/eth0, which is not ours.*nothing was changed/,
    )
    assert.deepEqual(await at.everything(), before)
    writeFileSync(file, 'auto eth0\niface eth0 inet manual\n')
    const taken = await changeVswitch(asked(), { set: taking })
    assert.ok(taken.ok, taken.why)
    assert.equal((await changeVswitch(asked(), { remove: 'two0' })).ok, true)
    rmSync(file)
    at.host.exec('ip', 'address', 'add', '10.40.0.5/24', 'dev', 'eth0')
  })

  test('deleted, it is forgotten, and its boot file is gone', async () => {
    assert.equal((await changeVswitch(asked(), { remove: 'svc0' })).ok, true)
    assert.ok(!existsSync(bootFile))
    assert.match((await changeVswitch(asked(), { remove: 'svc0' })).why, /there is no vSwitch svc0/)
  })
})
