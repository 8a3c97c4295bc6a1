/** Files that bring a vSwitch up at boot, read by a real systemd-networkd on a machine of its own. */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { exec } from '../../node-agent/exec.ts'
import { bootFiles } from '../../node-agent/network/boot-files.ts'
import { readNetwork } from '../../node-agent/network/inventory.ts'
import { until } from '../fixtures/until.ts'
import { BootedMachine, whyNoMachines } from './support/booted.ts'
import { wish } from './support/changed-host.ts'
import { Netns } from './support/netns.ts'

const limitMs = 60_000
const vip = '10.41.0.100'
/** networkd has looked at all links again long before. */
const restartedMs = 1500

describe('a vSwitch at boot, under systemd-networkd', { skip: whyNoMachines(), timeout: 4 * limitMs }, () => {
  const wanted = wish({ gateways: ['10.41.0.1'] })
  let near: Netns
  let far: Netns
  let machine: BootedMachine

  before(async () => {
    near = new Netns('un-nwd-near')
    far = new Netns('un-nwd-far')
    near.exec('ip', 'link', 'add', 'eth1', 'type', 'veth', 'peer', 'name', 'eth1', 'netns', far.name)
    far.exec('ip', 'address', 'add', '10.41.0.1/24', 'dev', 'eth1')
    far.exec('ip', 'link', 'set', 'eth1', 'up')
    machine = await BootedMachine.boot({ name: 'networkd', netns: near.name, disks: [] })
    // Where /sys can be written networkd waits for udev, which such a machine lacks.
    machine.must('mount', '-o', 'bind,remount,ro', '/sys')
    machine.must('mkdir', '-p', '/etc/systemd/network')
    for (const { path, text } of bootFiles('systemd-networkd', [wanted]) ?? []) machine.write(path, text)
  })
  after(async () => {
    await machine?.remove()
    await near?.remove()
    await far?.remove()
  })

  const look = () =>
    readNetwork({
      record: [wanted],
      vips: [vip],
      ask: (argv, askMs) => exec(['ip', 'netns', 'exec', near.name, ...argv], { limitMs: askMs }),
    })

  test('it is as it was wanted: NIC, address, gateway and MTU', async () => {
    machine.must('systemctl', 'start', 'systemd-networkd')
    const made = { ...wanted, owned: true, ports: [], learned: [] }
    let found: object | undefined
    // One after the other, as networkd comes to it.
    await until(async () => {
      found = (await look()).vswitches.find(one => one.name === wanted.name)
      return isDeepStrictEqual(found, made)
    }, limitMs).catch(() => {})
    assert.deepEqual(found, made)
    await until(() => near.succeeds('ping', '-c', '1', '-W', '2', '10.41.0.1'), limitMs)
  })

  test('a virtual address that the agent has put up there stays when networkd is restarted', async () => {
    near.exec('ip', 'address', 'add', `${vip}/32`, 'dev', wanted.name)
    machine.must('systemctl', 'restart', 'systemd-networkd')
    await sleep(restartedMs)
    assert.match(near.exec('ip', '-brief', 'address', 'show', 'dev', wanted.name), new RegExp(` ${vip}/32`))
    assert.equal((await look()).vswitches.find(one => one.name === wanted.name)?.addresses.length, 1)
  })
})
