import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import type { Reach } from '../../node-agent/network/change.ts'
import { changeVswitch, restoreVswitches, type VswitchParts } from '../../node-agent/network/vswitches.ts'
import { allReached, ChangedHost, wish } from './support/changed-host.ts'

/** From the wish to the record and the boot files, and what an agent's start makes of them. */
const at = new ChangedHost('wish')

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
    // Its NIC has nothing of its own yet.
    at.host.exec('ip', 'address', 'flush', 'dev', 'eth1')
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

  test('a change in the middle of which something can’t be read any more is taken back by its own process', async () => {
    const was = await at.everything()
    let looks = 0
    const reach = async (): Promise<Reach> => {
      looks += 1
      if (looks > 1) throw new Error('the file can’t be read')
      return allReached
    }
    const result = await changeVswitch({ ...asked(), reach }, { set: wish({ addresses: ['10.41.0.7/24'] }) })
    assert.match(result.why, /^the file can’t be read; the change .* was taken back/)
    assert.deepEqual([await at.everything(), existsSync(join(own, 'network-change.json'))], [was, false])
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
    // The network is as it was, and what the next boot would make of it is not.
    assert.match(result.why, /it can't be remembered: .*taking it back failed at the files for the next boot: [^`]*$/s)
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
