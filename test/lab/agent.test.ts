/**
 * Rows of the fault matrix in which the agent is stopped or killed, and the gate that the kernel shuts then. The last
 * test takes the gate away, to show that the observers of all these files would see two hosts that serve.
 */

import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { HOSTS, type HostName, hardwareAddress, INTERFACE, VIP } from '../../infra/lab/addresses.ts'
import { groupPath } from '../../infra/lab/control-groups.ts'
import { nowMs } from '../../infra/lab/database-client.ts'
import { run } from '../../infra/lab/exec.ts'
import { nodeCommand } from '../../infra/lab/fabric.ts'
import { networkOf, runOnHost } from '../../infra/lab/hosts.ts'
import { readLabState } from '../../infra/lab/lab-state.ts'
import type { Judgement } from '../../infra/lab/observations.ts'
import { untilProtected } from '../../infra/lab/pair.ts'
import { hostProcesses, isAlive } from '../../infra/lab/processes.ts'
import { agentPaths, understudyCommand } from '../../infra/lab/product.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { until } from '../fixtures/until.ts'
import { openProbe } from './probes.ts'
import { type Pair, pairUnderLoad } from './support.ts'

const { row, pair: labPair } = pairUnderLoad('agent')

/** The lease of the default profile: the kernel shuts the gate of a stopped agent within it. */
const LEASE_MS = 1_000
const TAKEOVER_BOUND_MS = 6_000
/** A lease less what has passed of it when the agent stops: a heartbeat, its way and its answer. */
const STANDS_STILL_MS = 700
/** A start of Node on a busy machine, and a lease to wait for. */
const START_BOUND_MS = 20_000

/** The register has not moved: same epoch, and the same host is primary. */
async function expectSameReign(pair: Pair, primary: HostName, epoch: number): Promise<void> {
  const status = await pair.present(primary)
  assert.deepEqual([status.role, status.epoch], ['primary', epoch])
}

row(
  'row 5: an agent that stands still for a tenth of a second changes nothing',
  async ({ pair, primary, backup }) => {
    const before = await pair.present(primary)
    for (const host of [primary, backup]) {
      await pair.inject({ kind: 'freeze', host, what: 'agent' })
      await sleep(100)
      await pair.inject({ kind: 'continue', host })
      await sleep(300)
    }
    const after = await pair.present(primary)
    assert.deepEqual([after.epoch, after.serving], [before.epoch, true])
  },
  { stays: true },
)

row(
  'row 5: a backup whose agent stands still for longer than the silence is made ineligible, and comes back',
  async ({ pair, primary, backup }) => {
    const before = await pair.present(primary)
    await pair.inject({ kind: 'freeze', host: backup, what: 'agent' })
    const status = await pair.untilStatus(
      primary,
      { limitMs: TAKEOVER_BOUND_MS, words: 'has dropped the backup' },
      ({ successor }) => !successor,
    )
    assert.deepEqual([status.epoch, status.serving], [before.epoch, true])
    await pair.untilWritten(TAKEOVER_BOUND_MS)
    await pair.inject({ kind: 'continue', host: backup })
    assert.equal(await untilProtected(pair.lab), primary)
  },
  { stays: true },
)

row(
  'row 5: a primary whose agent stands still for four tenths of a second stays primary',
  async ({ pair, primary, t }) => {
    const { epoch } = await pair.present(primary)
    const stoppedMs = nowMs()
    await pair.inject({ kind: 'freeze', host: primary, what: 'agent' })
    await sleep(400)
    await pair.inject({ kind: 'continue', host: primary })
    const stoodMs = nowMs() - stoppedMs
    await pair.untilWritten(TAKEOVER_BOUND_MS)
    // A busy machine may keep it standing for longer than a lease, and its backup takes over as it should.
    if (stoodMs < STANDS_STILL_MS) await expectSameReign(pair, primary, epoch)
    else t.diagnostic(`it stood still for ${Math.round(stoodMs)} ms`)
  },
  { stays: true },
)

row(
  'rows 5 and 39: the kernel refuses the clients of a stopped agent within the lease, nobody answers ARP for it, and continued it opens nothing',
  async ({ pair, primary, backup, t }) => {
    const probe = await openProbe(pair.lab, 'ask')
    await sleep(300)
    await pair.inject({ kind: 'freeze', host: primary, what: 'agent' })
    // It stands still by now, and may have renewed its lease until a moment ago.
    const stoppedMs = nowMs()
    await sleep(LEASE_MS)
    const shut = await addressHolders(pair.lab)
    await pair.untilServing(backup)
    const report = await probe.end()
    const refusedMs = report.unansweredSinceMs ?? report.ended?.atMs
    assert.ok(refusedMs !== undefined, `each of ${report.answers} requests was answered`)
    const refusedAfterMs = report.lastAnswerMs - stoppedMs
    t.diagnostic(
      `the last answer came ${refusedAfterMs.toFixed(0)} ms after the stop, ${report.answers} answers in all`,
    )
    assert.ok(refusedAfterMs < LEASE_MS, `the last answer came ${refusedAfterMs} ms after the stop`)

    // Its address is still on its interface, since nobody could take it down; only the new primary may answer for it.
    assert.match(
      await run(...networkOf(pair.lab, primary, ['ip', '-4', 'addr', 'show', INTERFACE.lan])),
      /10\.77\.0\.100/,
    )
    assert.deepEqual(
      [shut, await addressHolders(pair.lab)].flat().filter(mac => mac === hardwareAddress(primary, 'lan')),
      [],
    )
    assert.deepEqual(await addressHolders(pair.lab), [hardwareAddress(backup, 'lan')])

    await sleep(Math.max(0, stoppedMs + 5_000 - nowMs()))
    await pair.inject({ kind: 'continue', host: primary })
    // Nothing reopens: the observers look at each address of this host every 10 ms, and settling judges what they saw.
    await sleep(1_500)
    const status = await pair.untilStatus(
      primary,
      { limitMs: START_BOUND_MS, words: 'has heard of the takeover' },
      ({ primary: named }) => named === backup,
    )
    assert.equal(status.serving, false)
  },
)

/** Who answers for the virtual address in the client's network, by hardware address, over some requests. */
async function addressHolders(lab: string): Promise<string[]> {
  const script = join(import.meta.dirname, 'address-holders.ts')
  const told = await run(
    ...networkOf(lab, 'c', nodeCommand(script, [INTERFACE.lan, hardwareAddress('c', 'lan'), VIP.v4])),
  )
  return JSON.parse(told) as string[]
}

/** What the kernel's gate has refused, and which tables it is: made anew they would begin at zero. */
async function gateOf(pair: Pair, host: HostName): Promise<{ tables: string[]; packets: string[] }> {
  const listed = JSON.parse(await run(...networkOf(pair.lab, host, ['nft', '--json', 'list', 'ruleset']))) as {
    nftables: { table?: NftObject; counter?: NftObject & { packets: number } }[]
  }
  return {
    tables: listed.nftables.flatMap(({ table }) => (table === undefined ? [] : [`${table.family} ${table.handle}`])),
    packets: listed.nftables.flatMap(({ counter }) =>
      counter === undefined ? [] : [`${counter.family} ${counter.name}: ${counter.packets}`],
    ),
  }
}
interface NftObject {
  family: string
  name: string
  handle: number
}

row(
  'row 4: an agent that is killed and comes back within its grant adopts what runs, and so does one that is restarted; the kernel refuses not one packet meanwhile',
  async ({ pair, primary }) => {
    // A grant of a primary that nobody may succeed lasts ten seconds: long enough for any start of Node.
    await understudy(pair, primary, ['maintenance', 'on', '--for', '60s'])
    const untilGranted = (): Promise<unknown> =>
      pair.untilStatus(
        primary,
        { limitMs: START_BOUND_MS, words: 'is pinned' },
        status => status.serving && !status.successor && status.gate.leftMs > 6_000,
      )
    await untilGranted()
    const { epoch } = await pair.present(primary)
    const probe = await openProbe(pair.lab, 'ask')
    const before = await gateOf(pair, primary)
    assert.equal(before.packets.length, 4)
    await pair.inject({ kind: 'kill', host: primary, what: 'agent' })
    await pair.inject({ kind: 'start-agent', host: primary })
    await untilGranted()
    await stopAgent(pair, primary)
    await pair.inject({ kind: 'start-agent', host: primary })
    await untilGranted()
    // Frozen packets, refused packets, announcements: all that clients could have noticed is counted.
    assert.deepEqual(await gateOf(pair, primary), before)
    await understudy(pair, primary, ['maintenance', 'off'])
    await expectSameReign(pair, primary, epoch)
    await understudy(pair, primary, ['maintenance', 'off'])
    assert.equal(await untilProtected(pair.lab), primary)
    const report = await probe.end()
    assert.equal(report.ended, null, `the client's connection ended: ${report.ended?.code}`)
    assert.equal(report.backends.length, 1)
  },
  { stays: true },
)

row(
  'row 4: when the agent stays dead the kernel shuts the gate and the backup takes over; back, it obeys the register',
  async ({ pair, primary, backup }) => {
    const { epoch } = await pair.present(primary)
    await pair.inject({ kind: 'kill', host: primary, what: 'agent' })
    const taken = await pair.untilServing(backup)
    assert.equal(taken.epoch, epoch + 1)
    await pair.untilWritten(TAKEOVER_BOUND_MS)
    await pair.inject({ kind: 'start-agent', host: primary })
    const back = await pair.untilStatus(
      primary,
      { limitMs: START_BOUND_MS, words: 'is the backup' },
      status => status.role === 'backup',
    )
    assert.deepEqual([back.serving, back.epoch], [false, epoch + 1])
  },
)

row(
  'row 40: a client that says nothing is told of a demotion by a reset, and not by silence',
  async ({ pair, primary, backup }) => {
    const idle = await openProbe(pair.lab, 'idle')
    await understudy(pair, primary, ['switchover'])
    await pair.untilServing(backup)
    const ended = await idle.untilEnded(TAKEOVER_BOUND_MS)
    assert.match(ended.code, /ECONNRESET|closed/)
  },
)

/** As a service manager restarts it: SIGTERM, and its end waited for. */
async function stopAgent(pair: Pair, host: HostName): Promise<void> {
  const pid = readLabState(pair.lab).agentPid[host]
  assert.ok(pid !== null)
  process.kill(pid, 'SIGTERM')
  while (isAlive(pid)) await sleep(2)
}

async function understudy(pair: Pair, host: HostName, words: readonly string[]): Promise<void> {
  await runOnHost(pair.lab, host, understudyCommand([...words, '--socket', agentPaths(pair.lab, host).socket]))
}

test('the agent comes before all else on its host, and what it starts does not', () => {
  const { lab } = labPair()
  const { agentPid } = readLabState(lab)
  for (const host of HOSTS) {
    assert.equal(schedulingPolicy(agentPid[host]!), SCHED_RR)
    const others = hostProcesses(lab, host, 'all').filter(pid => pid !== agentPid[host])
    const policies = others.map(schedulingPolicy).filter(policy => policy !== null)
    assert.ok(policies.length > 3)
    assert.deepEqual(
      policies.filter(policy => policy !== 0),
      [],
    )
  }
})

const SCHED_RR = 2

/** Field 41 of /proc/PID/stat (proc(5)): 0 for an ordinary process; null for one that has ended, as sessions of a database do. */
function schedulingPolicy(pid: number): number | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[38])
  } catch {
    return null
  }
}

test('with the gate taken away the observers see two hosts that serve: they would have seen it in every test', async () => {
  const pair = labPair()
  const primary = await untilProtected(pair.lab)
  const { agentPid } = readLabState(pair.lab)
  await pair.inject({ kind: 'kill', host: primary, what: 'agent' })
  await until(() => !isAlive(agentPid[primary]!))
  // Only while its owner lives does the firewall's table belong to somebody.
  // The kernel lets it go a moment after the process is gone.
  await until(async () => {
    await run(...networkOf(pair.lab, primary, ['nft', 'flush', 'ruleset']))
    return (await run(...networkOf(pair.lab, primary, ['nft', 'list', 'ruleset']))) === ''
  })
  await removeSecondGate(pair.lab, primary)
  await pair.untilServing(otherNode(primary))
  // One that was seen only through the virtual address so far is of no host yet.
  const hostsOf = ({ instances }: Judgement['violations'][number]): string =>
    instances
      .map(instance => instance.host)
      .sort()
      .join()
  await until(async () => (await pair.trial.seen()).violations.some(one => hostsOf(one) === 'a,b'))
})

async function removeSecondGate(lab: string, host: HostName): Promise<void> {
  const folder = join(groupPath(lab, host), `postgres-${lab}-${host}`)
  if (!existsSync(folder)) return
  const { attachedPrograms, detachFromCgroup, openCgroup } = await import('../../node-agent/kernel/bpf.ts')
  const cgroup = openCgroup(folder)
  for (const point of ['ingress', 'egress'] as const) {
    for (const { fd } of attachedPrograms(cgroup, point)) detachFromCgroup(cgroup, fd, point)
  }
}
