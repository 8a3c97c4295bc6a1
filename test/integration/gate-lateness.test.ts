import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { after, afterEach, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { KernelGate } from '../../node-agent/gate/kernel-gate.ts'
import { Nftables } from '../../node-agent/gate/nft.ts'
import { bootMs } from '../../node-agent/kernel/clock.ts'
import { VirtualAddresses } from '../../node-agent/vip/virtual-addresses.ts'
import { until } from '../fixtures/until.ts'
import type { GateAnswer, GateCommand } from './support/gate-child.ts'
import { whyNoNamespaces } from './support/netns.ts'
import { createPair, PROTECTED_PORT, SPEC, type TestPair, VIP4 } from './support/pair.ts'
import type { Peer } from './support/peer.ts'

class GateChild {
  readonly process: ChildProcess
  constructor(net: TestPair) {
    this.process = net.host.node(new URL('./support/gate-child.ts', import.meta.url), [], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
  }
  send(command: GateCommand): Promise<GateAnswer> {
    const answer = once(this.process, 'message').then(([message]) => message as GateAnswer)
    this.process.send(command)
    return answer
  }
  async kill(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return
    const exited = once(this.process, 'exit')
    this.process.kill('SIGKILL')
    await exited
  }
}

describe('a grant that comes late', { skip: whyNoNamespaces(), timeout: 240_000 }, () => {
  let net: TestPair
  let client: Peer
  let reader: Nftables
  let child: GateChild

  before(async () => {
    net = createPair('usgl')
    reader = net.host.run(() => new Nftables())
    const vips = net.host.run(() => new VirtualAddresses([{ iface: 'lan0', address: VIP4 }]))
    net.host.run(() => vips.add())
    const host = await net.host.peer()
    client = await net.client.peer()
    await host.ask('listen', { host: '::', port: PROTECTED_PORT })
    await client.ask('connect', { host: VIP4, port: PROTECTED_PORT, limitMs: 2000 })
  })
  after(async () => {
    reader?.close()
    await net?.remove()
  })
  afterEach(() => child?.kill())

  /** When the kernel would shut the gate by itself, or 0 where it is shut. Read as the kernel says it, not as an agent. */
  function kernelExpiryBootMs(): number {
    const set = (family: 'inet' | 'arp' | 'netdev') => ({ family, table: SPEC.table, set: 'open' })
    // The clock first: a process that is held up between the two looks must not see the gate open for longer than it is.
    const expiries = (['inet', 'arp', 'netdev'] as const).map(family => {
      const askedMs = bootMs()
      const element = reader.getElement(set(family), Buffer.alloc(4))
      return element === undefined ? 0 : askedMs + element.expiresInMs
    })
    return Math.max(...expiries)
  }

  async function start(): Promise<GateChild> {
    child = new GateChild(net)
    await once(child.process, 'message')
    assert.equal((await child.send({ do: 'install' })).error, undefined)
    // What the test before left open is not this one's.
    await child.send({ do: 'freeze' })
    return child
  }
  const reachable = async (limitMs = 400) => {
    const { outcome } = await client.ask('connect', { host: VIP4, port: PROTECTED_PORT, limitMs })
    return outcome === 'ok'
  }
  const waitStopped = (pid: number) => until(() => /^State:\s+T/m.test(readFileSync(`/proc/${pid}/status`, 'utf8')))

  test('a stopped agent: the gate shuts by itself, and nothing reopens it when the agent goes on', async () => {
    await start()
    const untilBootMs = bootMs() + 2500
    const opened = await child.send({ do: 'open', untilBootMs })
    assert.equal(opened.result?.ok, true)
    assert.equal(await reachable(2000), true)
    await child.send({ do: 'renewAlways', untilBootMs, everyMs: 10 })
    child.process.kill('SIGSTOP')
    await sleep(untilBootMs - bootMs() + 20)
    assert.equal(kernelExpiryBootMs(), 0)
    assert.equal(await reachable(), false)
    child.process.kill('SIGCONT')
    await sleep(100)
    assert.equal(kernelExpiryBootMs(), 0)
    assert.equal(await reachable(), false)
  })

  for (const step of ['armed', 'built'] as const) {
    test(`stopped when the guard is ${step === 'armed' ? 'armed' : 'armed and the grant built'}, the gate shut: it stays shut after the lease`, async () => {
      await start()
      const untilBootMs = bootMs() + 1000
      const answer = child.send({ do: 'open', untilBootMs, stopAt: step })
      await waitStopped(child.process.pid!)
      await sleep(untilBootMs - bootMs() + 50)
      child.process.kill('SIGCONT')
      const { result } = await answer
      assert(result !== undefined && !result.ok)
      assert.match(result.code, /late|too-short/)
      assert.equal(kernelExpiryBootMs(), 0)
    })

    test(`stopped when the grant is ${step}, an older grant in force: it is not extended by the late one`, async () => {
      await start()
      const untilBootMs = bootMs() + 5000
      const first = await child.send({ do: 'open', untilBootMs })
      assert(first.result?.ok)
      const longerBootMs = untilBootMs + 300
      const answer = child.send({ do: 'open', untilBootMs: longerBootMs, stopAt: step })
      await waitStopped(child.process.pid!)
      await sleep(60)
      child.process.kill('SIGCONT')
      const { result } = await answer
      // The first attempt was refused; the second, a fresh one within the same call, is bounded like any other.
      assert.equal(result?.ok, true)
      assert(kernelExpiryBootMs() <= longerBootMs)
    })
  }

  test('stopped before the guard is armed: what passed meanwhile is not granted', async () => {
    await start()
    const untilBootMs = bootMs() + 5000
    const answer = child.send({ do: 'open', untilBootMs, stopAt: 'asked' })
    await waitStopped(child.process.pid!)
    await sleep(250)
    child.process.kill('SIGCONT')
    const { result } = await answer
    assert.equal(result?.ok, true)
    assert(kernelExpiryBootMs() <= untilBootMs)
  })

  test('stopped and continued at random instants, no grant ever outlasts the lease', async () => {
    await start()
    const untilBootMs = bootMs() + 4000
    await child.send({ do: 'renewAlways', untilBootMs, everyMs: 1 })
    let samples = 0
    const stopper = (async () => {
      while (bootMs() < untilBootMs + 300) {
        await sleep(Math.random() * 30)
        child.process.kill('SIGSTOP')
        await sleep(Math.random() * 60)
        child.process.kill('SIGCONT')
      }
    })()
    while (bootMs() < untilBootMs + 300) {
      const expiry = kernelExpiryBootMs()
      assert(expiry <= untilBootMs, `a grant until ${expiry} for a lease until ${untilBootMs}`)
      samples++
      await sleep(1)
    }
    await stopper
    assert(samples > 100, `only ${samples} samples`)
    assert.equal(kernelExpiryBootMs(), 0)
  })

  for (const act of ['freeze', 'close', 'take the gate over'] as const) {
    test(`a grant on its way is refused when somebody else is quicker to ${act}`, () => {
      net.host.run(() => {
        const spec = { ...SPEC, table: 'understudy_race' }
        const other = new KernelGate(spec, { own: false })
        const interfere = (step: string) => {
          if (step !== 'built') return
          if (act === 'freeze') other.freeze()
          else if (act === 'close') other.close()
          else other.install()
        }
        const gate = new KernelGate(spec, { own: false, betweenSteps: interfere })
        other.install()
        gate.install()
        const result = gate.open(bootMs() + 1000)
        assert(!result.ok, 'the late grant was applied')
        assert.notEqual(other.read().state, 'open')
        other.uninstall()
        other.dispose()
        gate.dispose()
      })
    })
  }

  test('a grant can be cut to a shorter lease; one that is refused leaves it as it was', async () => {
    await start()
    assert.equal((await child.send({ do: 'open', untilBootMs: bootMs() + 10_000 })).result?.ok, true)
    const untilBootMs = bootMs() + 5000
    assert.equal((await child.send({ do: 'open', untilBootMs })).result?.ok, true)
    const expiry = kernelExpiryBootMs()
    assert(expiry > bootMs() && expiry <= untilBootMs)
    assert.equal((await child.send({ do: 'open', untilBootMs: bootMs() + 10 })).result?.ok, false)
    assert(kernelExpiryBootMs() > bootMs())
  })

  test('a second agent is refused while the first owns the gate', async () => {
    await start()
    const rival = net.host.run(() => new KernelGate(SPEC))
    assert.throws(() => net.host.run(() => rival.install()), /another agent owns the tables/)
    rival.dispose()
    assert.equal((await child.send({ do: 'open', untilBootMs: bootMs() + 5000 })).result?.ok, true)
  })

  test('without an owner, the token stops an agent that was replaced', () => {
    net.host.run(() => {
      const old = new KernelGate({ ...SPEC, table: 'understudy_token' }, { own: false })
      old.install()
      const next = new KernelGate({ ...SPEC, table: 'understudy_token' }, { own: false })
      assert.equal(next.install().found, 'frozen')
      const late = old.open(bootMs() + 1000)
      assert(!late.ok && late.code === 'replaced', JSON.stringify(late))
      assert.equal(next.open(bootMs() + 1000).ok, true)
      next.uninstall()
      next.dispose()
      old.dispose()
    })
  })

  test('an agent that was killed and comes back adopts the open gate without losing a packet', async () => {
    await start()
    const opened = await child.send({ do: 'open', untilBootMs: bootMs() + 14_000 })
    assert(opened.result?.ok)
    await client.ask('dial', { id: 'kept', host: VIP4, port: PROTECTED_PORT, limitMs: 5000 })
    const stoppedPackets = async () => {
      const gate = net.host.run(() => new KernelGate(SPEC))
      const found = net.host.run(() => gate.install())
      const { counters } = net.host.run(() => gate.read())
      return { gate, found, packets: counters.frozenPackets + counters.refusedPackets }
    }
    await child.kill()
    const first = await stoppedPackets()
    assert.equal(first.found.found, 'open')
    assert(first.found.expiresInMs > 3000 && first.gate.expiresByBootMs <= opened.result.expiresByBootMs + 1)
    assert.equal((await client.ask('say', { id: 'kept', limitMs: 5000 })).outcome, 'ok')
    assert.equal(net.host.run(() => first.gate.open(bootMs() + 14_000)).ok, true)
    first.gate.dispose()
    const second = await stoppedPackets()
    assert.equal(second.found.found, 'open')
    assert.equal(second.packets, first.packets)
    second.gate.dispose()
  })
})
