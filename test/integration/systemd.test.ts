/**
 * The shipped units under a real systemd, on two hosts whose process 1 it is: READY, adoption after a kill, the watchdog, a
 * restart, protected units, and the hand-over of a unit that is stopped and of a host that is shut down.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { run } from '../../infra/lab/exec.ts'
import { postgresBinDir } from '../../infra/lab/postgres-programs.ts'
import type { WhyReport } from '../../node-agent/cli/show.ts'
import type { ConfigInput } from '../../node-agent/config.ts'
import type { StatusReport } from '../../node-agent/report/status-report.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { until } from '../fixtures/until.ts'
import { BootedMachine, install, pinnedNode, whyNoMachines } from './support/booted.ts'
import { CLIENT4, createPair, HOST_LINK4, HOST4, PEER_LAN4, PEER_LINK4, type TestPair, VIP4 } from './support/pair.ts'

const root = join(import.meta.dirname, '../..')
const bundle = join(root, 'dist/understudy.mjs')
const unit = join(root, 'infra/systemd/understudy.service')
const witnessUnit = join(root, 'infra/systemd/understudy-witness.service')
/** With loop devices the tree is a partition of its own, which a unit mounts. */
const hasLoop = existsSync('/dev/loop-control')
const partition = hasLoop ? { partition: { source: '/srv/data.img', sizeMb: 32 } } : {}
/** Where systemd keeps the state of a unit with a user of the moment (systemd.exec(5), DynamicUser=). */
const witnessStore = '/var/lib/private/understudy-witness'
/** A copy of an empty cluster, a start of Node, a watchdog of 5 s: each many times as long on a busy machine. */
const limitMs = 60_000

const app = `[Service]
ExecStart=/bin/sh -c 'echo "$UNDERSTUDY_ROLE $UNDERSTUDY_EPOCH $UNDERSTUDY_REASON" >/run/app-environment; exec sleep infinity'
`

type Node = 'a' | 'b'
type Machine = Node | 'w'

describe('the unit under a booted systemd', { skip: whyNoMachines(), timeout: 500_000 }, () => {
  let net: TestPair
  const machines: { [name in Machine]?: BootedMachine } = {}
  const on = (node: Machine): BootedMachine => {
    const machine = machines[node]
    assert.ok(machine !== undefined, `host ${node} was booted`)
    return machine
  }

  before(async () => {
    await run(process.execPath, [join(root, 'infra/dev/build.ts')])
    net = createPair('usd')
    const witness = await startWitness()
    for (const [node, netns] of [
      ['a', net.host.name],
      ['b', net.peer.name],
    ] as const) {
      const machine = await BootedMachine.boot({
        name: `systemd-${node}`,
        netns,
        disks: ['/var/lib/understudy', '/var/lib/postgresql', '/srv'],
      })
      machines[node] = machine
      install(machine, bundle, '/usr/bin/understudy')
      // The unit sees neither a home directory nor /tmp, where a checkout with its Node may be.
      install(machine, pinnedNode(), '/usr/local/bin/node')
      machine.must('mkdir', '-p', '/etc/understudy', ...(hasLoop ? [] : ['/srv/data']))
      machine.write('/etc/understudy/agent.json', JSON.stringify(configOf(node, witness.fingerprint)))
      machine.write('/etc/systemd/system/understudy.service', readFileSync(unit, 'utf8'))
      machine.write('/etc/systemd/system/app.service', app)
      machine.must('systemctl', 'daemon-reload')
    }
    on('a').write('/etc/understudy/enrolment.token', witness.enrolmentToken)
    const enrolment = ['--enrolment-token-file', '/etc/understudy/enrolment.token']
    const token = on('a').must('/usr/local/bin/node', '/usr/bin/understudy', 'pair', 'init', ...enrolment)
    on('b').write('/etc/understudy/join.token', token)
  })
  after(async () => {
    for (const machine of Object.values(machines)) await machine.remove()
    await net?.remove()
  })

  /** As the installation says it, but for the journal, which these machines lack. */
  async function startWitness(): Promise<{ fingerprint: string; enrolmentToken: string }> {
    const machine = await BootedMachine.boot({ name: 'systemd-w', netns: net.client.name, disks: [witnessStore] })
    machines.w = machine
    install(machine, bundle, '/usr/bin/understudy')
    install(machine, pinnedNode(), '/usr/local/bin/node')
    machine.write('/etc/systemd/system/understudy-witness.service', readFileSync(witnessUnit, 'utf8'))
    machine.must('systemctl', 'daemon-reload')
    machine.must('systemctl', 'start', 'understudy-witness')
    await until(() => isThere(`${witnessStore}/enrolment-token`), limitMs)
    return { fingerprint: fingerprint(), enrolmentToken: machine.read(`${witnessStore}/enrolment-token`) }
  }
  const isThere = (path: string): boolean => on('w').run(['test', '-s', path]).code === 0
  const fingerprint = (): string =>
    new X509Certificate(on('w').read(`${witnessStore}/tls-cert.pem`)).fingerprint256.replaceAll(':', '').toLowerCase()

  function configOf(node: Node, fingerprint: string): ConfigInput {
    const [own, other] =
      node === 'a'
        ? [
            [HOST_LINK4, HOST4],
            [PEER_LINK4, PEER_LAN4],
          ]
        : [
            [PEER_LINK4, PEER_LAN4],
            [HOST_LINK4, HOST4],
          ]
    return {
      pair: 'orders',
      node,
      stateDir: '/var/lib/understudy',
      socket: '/run/understudy/agent.sock',
      pairKeyFile: '/var/lib/understudy/pair.key',
      hostKeyFile: '/var/lib/understudy/host.key',
      peer: { paths: [0, 1].map(index => ({ local: own[index]!, peer: other[index]!, port: 7400 })) },
      vips: [{ address: `${VIP4}/24`, interface: 'lan0' }],
      protectedPorts: [5432],
      witness: { url: `https://${CLIENT4}:7443`, fingerprint },
      postgres: {
        binDir: postgresBinDir(),
        dataDir: '/var/lib/postgresql/main',
        socketDir: '/run/understudy-postgres',
        port: 5432,
        user: 'postgres',
        mode: 'create',
      },
      sync: { port: 7401, trees: [{ name: 'data', path: '/srv/data', ...partition }] },
      services: [{ name: 'app', unit: 'app.service' }],
      limits: { freeDiskMb: 64 },
    }
  }

  function status(node: Node): StatusReport | null {
    const { code, stdout } = on(node).run(['/usr/local/bin/node', '/usr/bin/understudy', 'status', '--json'])
    return code === 0 ? (JSON.parse(stdout) as StatusReport) : null
  }
  /** Resolves to the host whose own words, of one moment, are that it serves and is protected. */
  async function untilProtected(): Promise<Node> {
    let found: Node | undefined
    await until(() => {
      found = (['a', 'b'] as const).find(node => {
        const said = status(node)
        return said?.serving === true && said.protection === 'protected'
      })
      return found !== undefined
    }, limitMs)
    return found!
  }
  /** Whether a host took the service since then without having been given it. */
  function tookOver(node: Node, sinceWallMs: number): boolean {
    const { stdout } = on(node).run(['/usr/local/bin/node', '/usr/bin/understudy', 'why', '--json'])
    const { lines } = JSON.parse(stdout) as WhyReport
    return lines.some(
      line => line.host === node && line.wallMs >= sinceWallMs && line.why.includes('round to takeover'),
    )
  }
  /**
   * The main process of a unit that is up and is not the one told; between two processes a unit may still call itself
   * active, with the process that is gone or with none (0).
   */
  async function untilRuns(machine: Machine, name: string, instead?: string): Promise<string> {
    let pid = ''
    await until(() => {
      const shown = on(machine).must('systemctl', 'show', '-p', 'ActiveState,MainPID', name)
      pid = /^MainPID=(\d+)$/m.exec(shown)?.[1] ?? '0'
      return shown.includes('ActiveState=active') && pid !== '0' && pid !== instead
    }, limitMs)
    return pid
  }
  /** What the protected unit was given: its file is there only some time after the unit is active. */
  async function untilToldApp(node: Node, words: RegExp): Promise<void> {
    const told = (): string => on(node).run(['cat', '/run/app-environment']).stdout
    await until(() => words.test(told()), limitMs)
    assert.equal(on(node).property('app', 'ActiveState'), 'active')
  }
  /** What host a says of the witness once that has answered it, out of the row of this pair, later than told. */
  async function untilAnsweredAfter(sinceMs: number): Promise<NonNullable<StatusReport['witness']>> {
    let answered: StatusReport['witness'] = null
    await until(() => {
      const askedMs = performance.now()
      answered = status('a')?.witness ?? null
      return answered !== null && answered.answeredAgoMs !== null && askedMs - answered.answeredAgoMs > sinceMs
    }, limitMs)
    return answered!
  }
  const postmaster = (node: Node): string =>
    on(node).read('/var/lib/postgresql/main/postmaster.pid').split('\n')[0] ?? ''

  test('an older Node is refused by name, before anything begins', () => {
    const older = 'data:text/javascript,Object.defineProperty(process,"versions",{value:{node:"20.19.2"}})'
    const { status, stderr } = spawnSync(process.execPath, ['--import', older, bundle, 'version'], { encoding: 'utf8' })
    assert.match(stderr, /^understudy needs Node 24 or newer, and \/\S+ is 20\.19\.2: install a newer one/)
    assert.equal(status, 3)
  })

  test('a start ends when the agent is ready, and its state in words is the pair’s', async () => {
    on('a').must('systemctl', 'start', 'understudy')
    assert.equal(on('a').property('understudy', 'ActiveState'), 'active')
    await until(() => on('a').property('understudy', 'StatusText').startsWith('pair orders, primary: serving'), limitMs)
    on('b').must(
      '/usr/local/bin/node',
      '/usr/bin/understudy',
      'pair',
      'join',
      '--token-file',
      '/etc/understudy/join.token',
    )
    on('b').must('systemctl', 'start', 'understudy')
    assert.equal(await untilProtected(), 'a')
  })

  test('a protected unit runs on the primary alone, with role, epoch and reason in its environment', async () => {
    await untilToldApp('a', /^primary 1 \S+/)
    assert.equal(on('b').property('app', 'ActiveState'), 'inactive')
    await until(() => status('a')?.services[0]?.state === 'running', limitMs)
    on('a').must('systemctl', 'kill', '--signal=SIGKILL', 'app')
    await until(() => (status('a')?.services[0]?.restarts ?? 0) > 0, limitMs)
    await until(() => on('a').property('app', 'ActiveState') === 'active', limitMs)
  })

  test('files arrive under the unit’s protections: with set-id bits and capabilities, and what is missing is said', async () => {
    const cli = ['/usr/local/bin/node', '/usr/bin/understudy', 'sync']
    const files = `cd /srv/data && mkdir -p d/e && echo x >d/e/plain && cp /bin/true set-id && chmod 6755 set-id
      chown 1234:4321 d/e/plain && chmod 2770 d && ln -s plain d/e/link && ln d/e/plain d/second
      setfattr -n user.note -v u d/e/plain
      setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 set-id`
    on('a').must('sh', '-c', files)
    on('a').must(...cli, 'wait', '--limit', '30')
    const look =
      'cd /srv/data && find . -name .understudy-sync -prune -o -name lost+found -prune -o -printf "%P %y %m %U %G %T@ %n %s\\n" | sort && getfattr -hd -m- set-id d/e/plain'
    const seen = (node: Node): string => on(node).must('sh', '-c', look)
    assert.match(seen('b'), /set-id f 6755 (.|\n)*security\.capability/)
    assert.equal(seen('b'), seen('a'))
    assert.match(on('a').must(...cli, 'status'), /"trusted\.\*" are not replicated: this agent lacks CAP_SYS_ADMIN/)
  })

  test('the partition of a tree is mounted by a unit that the agent’s start wants', {
    skip: hasLoop ? false : 'this machine has no loop devices',
  }, () => {
    for (const node of ['a', 'b'] as const) {
      assert.equal(on(node).property('srv-data.mount', 'ActiveState'), 'active')
      assert.equal(on(node).must('findmnt', '-no', 'FSTYPE', '/srv/data').trim(), 'ext4')
      assert.equal(on(node).property('srv-data.mount', 'WantedBy'), 'understudy.service')
    }
  })

  test('a restart of the unit, and an agent that is killed, leave the database running, and the next agent adopts it', async () => {
    for (const [how, act] of [
      ['restart', () => on('a').must('systemctl', 'restart', 'understudy')],
      ['SIGKILL', () => on('a').must('systemctl', 'kill', '--signal=SIGKILL', '--kill-whom=main', 'understudy')],
    ] as const) {
      assert.equal(await untilProtected(), 'a')
      const before = {
        agent: await untilRuns('a', 'understudy'),
        postmaster: postmaster('a'),
        epoch: status('a')?.epoch,
      }
      if (how === 'SIGKILL') {
        // The grant of a pinned primary outlasts any start of Node.
        on('a').must('/usr/local/bin/node', '/usr/bin/understudy', 'maintenance', 'on', '--for', '60s')
        await until(() => (status('a')?.gate.leftMs ?? 0) > 6_000, limitMs)
      }
      act()
      await untilRuns('a', 'understudy', before.agent)
      await until(() => status('a')?.serving === true, limitMs)
      assert.deepEqual([postmaster('a'), status('a')?.epoch], [before.postmaster, before.epoch], how)
      on('a').must('/usr/local/bin/node', '/usr/bin/understudy', 'maintenance', 'off')
    }
    assert.equal(await untilProtected(), 'a')
  })

  test('the witness runs as a user of the moment, and after a restart and a kill it has its certificate and its votes', async () => {
    const before = fingerprint()
    let pid = await untilRuns('w', 'understudy-witness')
    for (const act of [['restart'], ['kill', '--signal=SIGKILL']]) {
      on('w').must('systemctl', ...act, 'understudy-witness')
      pid = await untilRuns('w', 'understudy-witness', pid)
      // The process has its user only once it has become the program; until then it is systemd's own child, of root.
      await until(() => on('w').must('cat', `/proc/${pid}/cmdline`).includes('understudy\0witness'), limitMs)
      assert.notEqual(on('w').must('stat', '-c', '%u', `/proc/${pid}`).trim(), '0')
      const witness = await untilAnsweredAfter(performance.now())
      assert.deepEqual([witness.reach, witness.why], ['yes', ''])
    }
    assert.equal(fingerprint(), before)
  })

  test('an agent that hangs is killed by systemd’s watchdog and started again, and the other host serves meanwhile', async () => {
    const epoch = status('b')?.epoch ?? 0
    const before = await untilRuns('a', 'understudy')
    on('a').must('kill', '-STOP', before)
    await untilRuns('a', 'understudy', before)
    assert.equal(await untilProtected(), 'b')
    await untilToldApp('b', new RegExp(`^primary ${epoch + 1} \\S+`))
    await until(() => on('a').property('app', 'ActiveState') === 'inactive', limitMs)
  })

  test('a stop of the unit hands over before it ends, and the next start takes part again', async () => {
    for (const node of ['b', 'a'] as const) {
      const other = otherNode(node)
      assert.equal(await untilProtected(), node)
      const epoch = status(node)?.epoch ?? 0
      const begunMs = Date.now()
      on(node).must('systemctl', 'stop', 'understudy')
      assert.equal(status(other)?.epoch, epoch + 1)
      await until(() => status(other)?.serving === true, limitMs)
      assert.ok(!tookOver(other, begunMs), 'handed over, not taken')
      // As a boot finds it.
      if (hasLoop) on(node).must('systemctl', 'stop', 'srv-data.mount')
      on(node).must('systemctl', 'start', 'understudy')
      if (hasLoop) assert.equal(on(node).property('srv-data.mount', 'ActiveState'), 'active')
    }
    assert.equal(await untilProtected(), 'b')
  })

  test('a host that is shut down hands over before it goes', async () => {
    const epoch = status('b')?.epoch ?? 0
    const begunMs = Date.now()
    on('b').run(['systemctl', 'poweroff'])
    await until(() => status('a')?.serving === true, limitMs)
    assert.equal(status('a')?.epoch, epoch + 1)
    assert.ok(!tookOver('a', begunMs), 'handed over, not taken')
    await until(() => !on('b').isOn, limitMs)
  })
})
