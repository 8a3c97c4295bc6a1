import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { CgroupGate, type CgroupGateSpec } from '../../node-agent/gate/cgroup-gate.ts'
import { bootMs } from '../../node-agent/kernel/clock.ts'
import { until } from '../fixtures/until.ts'
import { whyNoNamespaces } from './support/netns.ts'
import {
  createPair,
  HOST_LINK4,
  HOST_LINK6,
  HOST4,
  HOST6,
  OTHER_PORT,
  PROTECTED_PORT,
  type TestPair,
} from './support/pair.ts'
import type { Peer } from './support/peer.ts'

/** Where cgroup v2 is mounted, or undefined. */
function cgroupRoot(): string | undefined {
  const line = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .find(mount => mount.split(' ')[2] === 'cgroup2')
  return line?.split(' ')[1]
}

function whyNotHere(): string | false {
  const root = cgroupRoot()
  if (whyNoNamespaces() !== false || root === undefined) return whyNoNamespaces() || 'cgroup v2 is not mounted'
  const path = join(root, 'usgp-try')
  try {
    mkdirSync(path, { recursive: true })
    const attached = CgroupGate.attach({ cgroup: path, ports: [PROTECTED_PORT], peers: [] }, 0)
    if (!attached.ok) return attached.why
    attached.gate.detach()
    return false
  } catch (error) {
    return (error as Error).message
  } finally {
    rmdirSync(path)
  }
}

/** What is silent is silent for so long. */
const SILENCE_MS = 400
/** An answer, on a busy machine. */
const ANSWER_LIMIT_MS = 10_000
/** Longer than any answer is waited for. */
const LONG_MS = 30_000

describe('the second gate, at the cgroup of the service', { skip: whyNotHere(), timeout: 240_000 }, () => {
  let net: TestPair
  let host: Peer
  let client: Peer
  let peer: Peer
  let gate: CgroupGate
  const cgroup = join(cgroupRoot() ?? '/', 'usgp')
  const spec: CgroupGateSpec = { cgroup, ports: [PROTECTED_PORT], peers: ['10.9.1.2', 'fd19::2'] }

  function attach(untilBootMs: number): CgroupGate {
    const attached = CgroupGate.attach(spec, untilBootMs)
    assert(attached.ok, attached.ok ? '' : attached.why)
    return attached.gate
  }

  before(async () => {
    mkdirSync(cgroup, { recursive: true })
    net = createPair('usgp')
    ;[host, client, peer] = (await Promise.all([net.host.peer(), net.client.peer(), net.peer.peer()])) as [
      Peer,
      Peer,
      Peer,
    ]
    writeFileSync(join(cgroup, 'cgroup.procs'), String(host.pid))
    for (const port of [PROTECTED_PORT, OTHER_PORT]) await host.ask('listen', { host: '::', port })
    gate = attach(0)
  })
  after(async () => {
    gate?.detach()
    await net?.remove()
    // The kernel lets go of a cgroup a moment after its last process is gone.
    await until(() => !readFileSync(join(cgroup, 'cgroup.events'), 'utf8').includes('populated 1'))
    rmdirSync(cgroup)
  })

  const connects = (from: Peer, addresses: string[], part: { limitMs: number; port?: number }) =>
    Promise.all(
      addresses.map(
        async host =>
          (await from.ask('connect', { host, port: part.port ?? PROTECTED_PORT, limitMs: part.limitMs })).outcome,
      ),
    )
  /** An answer is waited for. */
  const expectLetIn = async (from: Peer, addresses: string[], port?: number): Promise<void> => {
    const found = await connects(from, addresses, { limitMs: ANSWER_LIMIT_MS, ...(port !== undefined && { port }) })
    assert.deepEqual(
      found,
      addresses.map(() => 'ok'),
    )
  }
  const expectSilence = async (from: Peer, addresses: string[]): Promise<void> =>
    assert.deepEqual(
      await connects(from, addresses, { limitMs: SILENCE_MS }),
      addresses.map(() => 'timeout'),
    )

  test('shut: nobody gets in, by any address, but the peer and to other ports', async () => {
    gate.set(0)
    await expectSilence(client, [HOST4, HOST6])
    await expectSilence(host, ['127.0.0.1', '::1'])
    await expectLetIn(client, [HOST4, HOST6], OTHER_PORT)
    await expectLetIn(peer, [HOST_LINK4, HOST_LINK6])
  })

  test('open until an instant: shut after it by itself, connections with it, in both directions', async () => {
    gate.set(bootMs() + LONG_MS)
    await expectLetIn(client, [HOST4, HOST6])
    await client.ask('dial', { id: 'kept', host: HOST4, port: PROTECTED_PORT, limitMs: ANSWER_LIMIT_MS })
    gate.set(bootMs() + 300)
    await sleep(400)
    const hears = client.ask('hear', { id: 'kept', limitMs: 500 })
    await host.ask('push', {})
    assert.equal((await hears).outcome, 'timeout')
    await expectSilence(client, [HOST4])
    gate.set(bootMs() + LONG_MS)
    assert.equal((await client.ask('say', { id: 'kept', limitMs: ANSWER_LIMIT_MS })).outcome, 'ok')
  })

  test('an instant that has passed when it is written opens nothing', async () => {
    gate.set(bootMs() - 1)
    await expectSilence(client, [HOST4])
  })

  test('an agent that comes back takes over without an interruption, and its own instant holds', async () => {
    gate.set(bootMs() + LONG_MS)
    await client.ask('dial', { id: 'through', host: HOST4, port: PROTECTED_PORT, limitMs: ANSWER_LIMIT_MS })
    gate.dispose()
    gate = attach(bootMs() + LONG_MS)
    assert.equal((await client.ask('say', { id: 'through', limitMs: ANSWER_LIMIT_MS })).outcome, 'ok')
    gate.set(0)
    await expectSilence(client, [HOST4])
    gate.set(bootMs() + LONG_MS)
    await expectLetIn(client, [HOST4])
  })

  test('a cgroup that is missing is told, and nothing is attached', () => {
    const attached = CgroupGate.attach({ ...spec, cgroup: '/nowhere' }, 0)
    assert(!attached.ok)
    assert.match(attached.why, /open \/nowhere: ENOENT/)
  })
})
