/**
 * Two emulated machines with Debian's own kernel: what no container has. An iSCSI initiator that logs in, VLANs, files
 * that bring vSwitches up at a boot, a watchdog, and a pair of which one machine loses its power.
 */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { bootFiles } from '../../node-agent/network/boot-files.ts'
import type { StatusReport } from '../../node-agent/report/status-report.ts'
import type { HostNetwork, Vswitch } from '../../shared/hosts/network.ts'
import type { StorageInventory } from '../../shared/hosts/storage.ts'
import type { Image } from './image.ts'
import { bootLimitMs, Machine, until, type Wire } from './machine.ts'
import { nvmeTarget } from './nvme-target.ts'
import { configOf, freePort, startWitness, type Witness } from './pair.ts'

const folder = process.env.UNDERSTUDY_VM_FOLDER ?? ''
/** Whatever a real machine does in a second, an emulated one beside another on a busy host does in a minute. */
const limitMs = 6 * 60_000
const target = 'iqn.2026-01.example.storage:disks'

const machines: Partial<Record<'a' | 'b', Machine>> = {}
const on = (name: 'a' | 'b'): Machine => {
  const machine = machines[name]
  assert.ok(machine !== undefined, `machine ${name} was switched on`)
  return machine
}
let witness: Witness | null = null

before(
  async () => {
    assert.notEqual(folder, '', 'run it by `npm run test:vm`, which makes the image')
    const image = JSON.parse(readFileSync(join(folder, 'image.json'), 'utf8')) as Image
    const wires = [await newWire(), await newWire()]
    for (const name of ['a', 'b'] as const) machines[name] = new Machine({ name, folder, image, wires })
    await Promise.all([on('a').switchOn(), on('b').switchOn()])
  },
  { timeout: bootLimitMs + 60_000 },
)
after(async () => {
  for (const machine of Object.values(machines)) await machine.powerCut()
  witness?.process.kill('SIGKILL')
})

async function newWire(): Promise<Wire> {
  return [await freePort(), await freePort()]
}

const understudy = (name: 'a' | 'b', ...words: string[]) => on(name).run(['understudy', ...words])
async function told<T>(name: 'a' | 'b', ...words: string[]): Promise<T> {
  return JSON.parse(await on(name).must('understudy', ...words, '--json')) as T
}

describe('iSCSI, with open-iscsi and a target on the other machine', { timeout: 4 * limitMs }, () => {
  const storage = () => told<StorageInventory>('a', 'storage', 'list')
  const shared = async () => (await storage()).devices.filter(one => one.paths.some(path => path.adapter === 'iscsi'))
  const lun = async (number: number): Promise<void> => {
    await on('b').must('truncate', '--size=64M', `/var/lib/lun${number}`)
    const place = ['--lld', 'iscsi', '--tid', '1']
    await on('b').must(
      'tgtadm',
      ...place,
      '--op',
      'new',
      '--mode',
      'logicalunit',
      '--lun',
      `${number}`,
      '-b',
      `/var/lib/lun${number}`,
    )
  }

  before(async () => {
    // The daemon goes on by itself.
    await on('b').must('tgtd')
    await on('b').must('tgtadm', '--lld', 'iscsi', '--op', 'new', '--mode', 'target', '--tid', '1', '-T', target)
    await on('b').must('tgtadm', '--lld', 'iscsi', '--op', 'bind', '--mode', 'target', '--tid', '1', '-I', 'ALL')
    await lun(1)
  })

  test('a portal is asked for its targets, and after a login its LUN is a device of the adapter', async () => {
    assert.match(await on('a').must('understudy', 'storage', 'discover', '10.90.0.2'), new RegExp(target))
    await on('a').must('iscsiadm', '--mode', 'discovery', '--type', 'sendtargets', '--portal', '10.90.0.2')
    await on('a').must('iscsiadm', '--mode', 'node', '--login')
    const found = await until('the LUN is there', async () => ((await shared()).length === 1 ? shared() : null))
    assert.deepEqual(
      found.map(one => [one.lun, one.sizeBytes, one.paths[0]?.state]),
      [[1, 64 * 2 ** 20, 'running']],
    )
    const adapter = (await storage()).adapters.find(one => one.name === 'iscsi')
    assert.deepEqual(adapter?.targets, [{ identifier: target, state: 'LOGGED_IN' }])
  })

  test('a scan finds a LUN that was just added, and says which', async () => {
    await lun(2)
    const scanned = await told<{ change: { added: string[]; removed: string[] } }>('a', 'storage', 'scan', 'iscsi')
    assert.equal(scanned.change.added.length, 1, JSON.stringify(scanned))
    assert.deepEqual((await shared()).map(one => one.lun).sort(), [1, 2])
  })

  test('the iSCSI name is not changed under a session, and with leave to log out it is the one of the new session', async () => {
    const name = 'iqn.2026-01.example.host:machine-a'
    const refused = await understudy('a', 'storage', 'iqn', name)
    assert.equal(refused.code, 5)
    assert.match(refused.stderr, /1 session is logged in.*would keep the old name/)
    const disk = `/dev/${(await shared())[0]?.name}`
    await on('a').must('sh', '-c', `sleep 3600 < ${disk} > /dev/null 2>&1 & echo $! > /tmp/user`)
    const used = await understudy('a', 'storage', 'iqn', name, '--log-out')
    assert.equal(used.code, 5)
    assert.match(used.stderr, /devices of its sessions are in use: sd\w \(opened by sleep, process \d+\)/)
    await on('a').must('sh', '-c', 'kill $(cat /tmp/user)')
    const changed = await understudy('a', 'storage', 'iqn', name, '--log-out')
    assert.equal(changed.code, 0, changed.stderr)
    assert.match(changed.stdout, /seen in its sessions/)
    assert.equal((await on('a').must('sh', '-c', 'cat /sys/class/iscsi_session/*/initiatorname')).trim(), name)
    assert.equal((await storage()).adapters.find(one => one.name === 'iscsi')?.identifier, name)
    const spaces = await understudy('a', 'storage', 'iqn', 'iqn.2026-01.example:my host')
    assert.match(spaces.stderr, /must not contain spaces/)
  })

  test('a change that is killed between logging out and in is taken back, with the session by the old name', async () => {
    const killer = 'case "$*" in *--login) rm "$0"; kill -9 $PPID; exit 1 ;; esac; exec /usr/sbin/iscsiadm "$@"'
    await on('a').write('/tmp/killer/iscsiadm', `#!/bin/sh\n${killer}\n`)
    await on('a').must('chmod', '+x', '/tmp/killer/iscsiadm')
    const words = 'understudy storage iqn iqn.2026-01.example.host:other --log-out'
    const killed = await on('a').run(['sh', '-c', `PATH=/tmp/killer:$PATH ${words}`])
    assert.match(killed.stderr, /ended without a word.*taken back, and the old name is back/s)
    const names = '/etc/iscsi/initiatorname.iscsi /sys/class/iscsi_session/*/initiatorname'
    const seen = await on('a').must('sh', '-c', `grep -ho 'iqn[^ ]*' ${names}`)
    assert.deepEqual(seen.trim().split('\n'), Array(2).fill('iqn.2026-01.example.host:machine-a'))
    await on('a').must('iscsiadm', '--mode', 'node', '--logout')
  })
})

test('an NVMe namespace over TCP has a path by each controller, and one that may not be used is not up', async () => {
  const sh = (script: string) => on('a').must('sh', '-ec', script)
  const seen = (...wanted: [string, boolean][]) =>
    until(`paths ${wanted}`, async () => {
      const { devices } = await told<StorageInventory>('a', 'storage', 'list')
      const paths = devices.find(one => one.name === 'nvme0n1')?.paths.map(path => [path.state, path.up])
      return isDeepStrictEqual(paths, wanted) ? true : null
    })
  await sh(nvmeTarget)
  await seen(['live, optimized', true], ['live, optimized', true])
  await sh('echo inaccessible > /sys/kernel/config/nvmet/ports/2/ana_groups/1/ana_state')
  await seen(['live, optimized', true], ['live, inaccessible', false])
  await sh('for controller in /sys/class/nvme/nvme*; do echo 1 > $controller/delete_controller; done')
})

describe('a vSwitch with a VLAN on a real kernel', { timeout: 4 * limitMs }, () => {
  /** No agent runs, so nobody asks a witness. */
  const nobody = { port: 7443, fingerprint: 'ab'.repeat(32) }
  const address = (name: 'a' | 'b'): string => `10.91.0.${name === 'a' ? 1 : 2}/24`

  before(async () => {
    for (const name of ['a', 'b'] as const)
      await on(name).write('/etc/understudy/agent.json', JSON.stringify(configOf(name, nobody)))
  })

  test('made on both machines it carries its VLAN, and the network of another one is not reached', async () => {
    for (const name of ['a', 'b'] as const) {
      const words = [
        'vswitch',
        'set',
        'svc0',
        '--types',
        'service',
        '--nics',
        'eth2',
        '--vlan',
        '10',
        '--addresses',
        address(name),
      ]
      const made = await understudy(name, ...words)
      assert.equal(made.code, 0, made.stderr)
    }
    await on('a').must('ping', '-c', '3', '-W', '10', '10.91.0.2')
    assert.match(await on('a').must('ip', '-details', 'link', 'show', 'eth2.10'), /vlan protocol 802\.1Q id 10/)
    const other = await understudy('b', 'vswitch', 'set', 'svc0', '--vlan', '11')
    assert.equal(other.code, 0, other.stderr)
    assert.notEqual((await on('a').run(['ping', '-c', '1', '-W', '5', '10.91.0.2'])).code, 0)
    assert.equal((await understudy('b', 'vswitch', 'set', 'svc0', '--vlan', '10')).code, 0)
    await on('a').must('ping', '-c', '3', '-W', '10', '10.91.0.2')
  })

  test('after a reboot the host brings it up by itself, with no agent running', async () => {
    await on('a').reboot()
    const seen = await until('the vSwitch is up', async () => {
      const { vswitches } = await told<HostNetwork>('a', 'network')
      const found = vswitches.find(one => one.name === 'svc0')
      return found?.addresses.length === 1 ? found : null
    })
    assert.deepEqual(
      [seen.vlan, seen.nics, seen.addresses, seen.types, seen.owned],
      [10, ['eth2'], [address('a')], ['service'], true],
    )
    await on('a').must('ping', '-c', '3', '-W', '20', '10.91.0.2')
  })

  test('a change that fails half-way is taken back, with the VLAN that it had gone through', async () => {
    await on('a').must('ip', 'link', 'add', 'link', 'eth2', 'name', 'taken', 'type', 'vlan', 'id', '12')
    const failed = await understudy('a', 'vswitch', 'set', 'svc0', '--vlan', '12')
    await on('a').must('ip', 'link', 'del', 'taken')
    assert.equal(failed.code, 5)
    assert.match(failed.stderr, /type vlan id 12.*exists.*the host is as it was/s)
    await on('a').must('ping', '-c', '3', '-W', '20', '10.91.0.2')
  })

  test('two NICs are one uplink under a VLAN: made by a verb, and at boot by what ifupdown and netplan read', async () => {
    const machine = on('b')
    const wanted: Vswitch = {
      name: 'two0',
      backend: 'bridge',
      description: '',
      types: ['storage'],
      vlan: 20,
      nics: ['nic1', 'nic2'],
      bond: 'active-backup',
      addresses: ['10.92.0.2/24'],
      gateways: [],
      mtu: 1400,
    }
    for (const nic of wanted.nics) await machine.must('ip', 'link', 'add', nic, 'type', 'dummy')
    const seen = async () => {
      const found = (await told<HostNetwork>('b', 'network')).vswitches.find(one => one.name === wanted.name)
      return found === undefined ? null : [found.vlan, found.nics, found.bond, found.addresses, found.mtu]
    }
    const asWanted = [wanted.vlan, wanted.nics, wanted.bond, wanted.addresses, wanted.mtu]
    const away = async (): Promise<void> => {
      for (const device of ['two0', 'bd-two0.20', 'bd-two0']) await machine.run(['ip', 'link', 'del', device])
      assert.equal(await seen(), null)
    }
    const uplink = ['--nics', 'nic1,nic2', '--bond', 'active-backup', '--vlan', '20', '--mtu', '1400']
    const words = ['vswitch', 'set', 'two0', '--types', 'storage', ...uplink, '--addresses', '10.92.0.2/24']
    const made = await understudy('b', ...words)
    assert.equal(made.code, 0, made.stderr)
    assert.deepEqual(await seen(), asWanted)
    const deleted = await understudy('b', 'vswitch', 'delete', 'two0')
    assert.equal(deleted.code, 0, deleted.stderr)
    await away()

    const [ifupdown] = bootFiles('ifupdown', [wanted]) ?? []
    await machine.write('/tmp/interfaces', ifupdown?.text ?? '')
    await machine.must('ifup', '--interfaces', '/tmp/interfaces', 'two0')
    assert.deepEqual(await seen(), asWanted)
    await machine.must('ifdown', '--interfaces', '/tmp/interfaces', 'two0')
    await away()

    const [netplan] = bootFiles('netplan', [wanted]) ?? []
    await machine.write('/tmp/netplan/etc/netplan/90-understudy.yaml', netplan?.text ?? '')
    await machine.must('netplan', 'generate', '--root-dir', '/tmp/netplan')
    const generated = 'mkdir -p /run/systemd/network && cp /tmp/netplan/run/systemd/network/* /run/systemd/network/'
    await machine.must('sh', '-c', generated)
    await machine.must('networkctl', 'reload')
    await until('networkd has made it', async () => (isDeepStrictEqual(await seen(), asWanted) ? true : null))
    await machine.must('sh', '-c', 'rm /run/systemd/network/*netplan*')
    await machine.must('networkctl', 'reload')
    await away()
    for (const nic of wanted.nics) await machine.must('ip', 'link', 'del', nic)
  })

  test('bad input is answered with field, value and rule, and changes nothing', async () => {
    const before = await told<HostNetwork>('a', 'network')
    const wrong: [string[], RegExp][] = [
      [
        ['set', 'a-name-too-long-0', '--types', 'storage'],
        /name is "a-name-too-long-0" and must have at most 15 bytes/,
      ],
      [['set', 'svc0', '--vlan', '4095'], /vlan is "4095" and must be a whole number from 1 to 4094/],
      [['set', 'svc0', '--mtu', '100'], /mtu is "100" and must be a whole number from 576 to 9216/],
      [
        ['set', 'svc0', '--addresses', '10.91.0.0/24'],
        /addresses is "10\.91\.0\.0\/24" and must be the address of a host/,
      ],
      [['set', 'new0', '--types', 'storage', '--nics', 'eth9'], /nics is "eth9" and must be a NIC of this host/],
    ]
    for (const [words, why] of wrong) {
      const refused = await understudy('a', 'vswitch', ...words)
      assert.equal(refused.code, 5, refused.stderr)
      assert.match(refused.stderr, why)
    }
    assert.deepEqual((await told<HostNetwork>('a', 'network')).vswitches, before.vswitches)
  })
})

describe('the watchdog device', { timeout: 3 * limitMs }, () => {
  test('a machine on which nobody feeds it is reset, and comes back', async () => {
    await on('a').must('modprobe', 'i6300esb', 'heartbeat=10')
    assert.match(await on('a').must('ls', '/dev/watchdog'), /watchdog/)
    // Closed without the magic letter it goes on counting (Documentation/watchdog/watchdog-api.rst).
    void on('a')
      .run(['sh', '-c', 'echo x > /dev/watchdog; sleep 600'])
      .catch(() => {})
    await on('a').untilOff()
    await on('a').switchOn()
  })
})

describe('a pair of two machines', { timeout: 8 * limitMs }, () => {
  const statusOf = async (name: 'a' | 'b'): Promise<StatusReport | null> => {
    const answer = await understudy(name, 'status', '--json')
    return answer.code === 0 ? (JSON.parse(answer.stdout) as StatusReport) : null
  }
  const said = async (name: 'a' | 'b') => (await on(name).run(['journalctl', '-u', 'understudy', '-n', '40'])).stdout
  const protectedBy = (name: 'a' | 'b') =>
    until(`${name} is protected`, async () => {
      const status = await statusOf(name)
      return status?.serving === true && status.protection === 'protected' ? status : null
    }).catch(async error => {
      throw new Error(`${error.message}\n${await said('a')}\n${await said('b')}`)
    })
  const psql = (name: 'a' | 'b', sql: string) =>
    on(name).must(
      'setpriv',
      '--reuid=postgres',
      '--regid=postgres',
      '--clear-groups',
      'psql',
      '-h',
      '/run/understudy-postgres',
      '-d',
      'postgres',
      '-tAc',
      sql,
    )

  test('it is formed, and both machines hold what is written', async () => {
    witness = await startWitness(folder)
    for (const name of ['a', 'b'] as const) {
      await on(name).write('/etc/understudy/agent.json', JSON.stringify(configOf(name, witness)))
      await on(name).must('systemctl', 'disable', '--now', 'postgresql.service')
    }
    await on('a').write('/root/enrolment.token', witness.token)
    const words = ['pair', 'init', '--enrolment-token-file', '/root/enrolment.token']
    const begun = await on('a').run(['understudy', ...words, '--token-file', '/root/join.token'], { limitMs })
    assert.equal(begun.code, 0, begun.stderr)
    await on('a').must('systemctl', 'enable', '--now', 'understudy')
    await on('b').write('/root/join.token', await on('a').must('cat', '/root/join.token'))
    const joined = await on('b').run(['understudy', 'pair', 'join', '--token-file', '/root/join.token'], { limitMs })
    assert.equal(joined.code, 0, joined.stderr)
    await on('b').must('systemctl', 'enable', '--now', 'understudy')
    await protectedBy('a')
    await psql('a', 'create table kept (n int primary key)')
    await psql('a', 'insert into kept select generate_series(1, 100)')
  })

  test('when the primary loses its power the other one takes over with every acknowledged row, and gets its partner back', async t => {
    await psql('a', 'insert into kept values (101)')
    await on('a').powerCut()
    const cutAt = performance.now()
    await until('b serves', async () => ((await statusOf('b'))?.serving === true ? true : null))
    // Each question is a program that starts on the emulated processor beside the agent that takes over.
    t.diagnostic(`b was seen to serve ${((performance.now() - cutAt) / 1000).toFixed(1)} s after the power cut`)
    assert.equal((await psql('b', 'select count(*), max(n) from kept')).trim(), '101|101')
    await psql('b', 'insert into kept values (102)')
    await on('a').switchOn()
    await protectedBy('b')
    assert.equal((await psql('a', 'select max(n) from kept')).trim(), '102')
  })
})
