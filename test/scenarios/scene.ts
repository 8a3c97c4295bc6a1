import assert from 'node:assert/strict'
import type { DataNode, Message, NodeId, OperatorCommand } from '../../shared/protocol/types.ts'
import type { Host } from '../simulation/host.ts'
import { calmOptions, type Options } from '../simulation/options.ts'
import { Pair } from '../simulation/pair.ts'
import { heal } from '../simulation/run.ts'

/**
 * One scripted course of events on the simulated pair, every checker watching after each step. Parts that take long are
 * short, the network is in order, and the two clocks drift apart; what happens is what the script says.
 */
export class Scene {
  readonly pair: Pair
  /** The primary at first, and its backup. */
  readonly a: Host
  readonly b: Host
  private readonly captured: { from: DataNode; to: NodeId; message: Message }[] = []
  private change: (from: DataNode, message: Message) => Message = (_, message) => message
  private lost: (from: DataNode, to: NodeId, message: Message) => boolean = () => false

  constructor(options: { seed?: number; change?: Partial<Options> } = {}) {
    this.pair = new Pair({ ...calmOptions(options.seed ?? 1), ...options.change }, { text: process.env.TRACE === '1' })
    this.a = this.pair.hosts.a
    this.b = this.pair.hosts.b
    this.pair.each(host => this.tap(host))
    const sample = () => {
      this.pair.checks.sample()
      this.pair.world.after(samplesEveryMs, sample)
    }
    sample()
  }

  /** A pair that has been set up and is protected. */
  static protected(options: { seed?: number; change?: Partial<Options> } = {}): Scene {
    const scene = new Scene(options)
    scene.pair.operator.setUp()
    scene.pair.client.start()
    scene.until('the set-up is over', () => scene.pair.isProtected(), 60_000)
    scene.run(500)
    return scene
  }

  // ------------------------------------------------------------ time

  run(ms: number): void {
    this.pair.world.runUntil(this.pair.world.now + ms)
  }

  /** Goes on until `wanted`, which is looked at every 5 ms. */
  until(what: string, wanted: () => boolean, limitMs = 20_000): void {
    const end = this.pair.world.now + limitMs
    while (!wanted()) {
      assert.ok(this.pair.world.now < end, `${limitMs} ms went by in vain until ${what}`)
      this.run(5)
    }
  }

  /** Everything heals; the pair has to become whole again in time. */
  heal(): void {
    this.lost = () => false
    this.change = (_, message) => message
    heal(this.pair, new Set())
  }

  // ------------------------------------------------------------ the network

  cut(from: NodeId, to: NodeId): () => void {
    this.pair.network.cutAll(from, to, 1)
    return () => this.pair.network.cutAll(from, to, -1)
  }

  cutBoth(x: NodeId, y: NodeId): () => void {
    const ends = [this.cut(x, y), this.cut(y, x)]
    return () => {
      for (const end of ends) end()
    }
  }

  /** Datagrams for which this holds are lost from now on. */
  lose(lost: (from: DataNode, to: NodeId, message: Message) => boolean): void {
    this.lost = lost
  }

  /** Datagrams leave as this makes them from now on. */
  rewrite(change: (from: DataNode, message: Message) => Message): void {
    this.change = change
  }

  /** The newest message of that kind that a host has sent. */
  sent<K extends Message['kind']>(from: DataNode, kind: K): Extract<Message, { kind: K }> {
    const found = this.captured.findLast(one => one.from === from && one.message.kind === kind)
    assert.ok(found !== undefined, `${from} has sent no ${kind}`)
    return found.message as Extract<Message, { kind: K }>
  }

  /** A datagram that was held up somewhere arrives at last. */
  arrives(host: Host, from: NodeId, message: Message): void {
    host.receive(from, message)
  }

  private tap(host: Host): void {
    const send = host.send.bind(host)
    host.send = (to, message) => {
      this.captured.push({ from: host.node, to, message })
      if (this.captured.length > keptMax) this.captured.splice(0, keptMax / 2)
      if (!this.lost(host.node, to, message)) send(to, this.change(host.node, message))
    }
  }

  // ------------------------------------------------------------ what is so

  get value() {
    const latest = this.pair.checks.register.latest
    assert.ok(latest !== null, 'the register has a value')
    return latest.value
  }

  count(name: string): number {
    return this.pair.coverage.counts[name] ?? 0
  }

  tell(host: Host, command: OperatorCommand): void {
    host.agent.command(command)
  }

  /** The register makes the backup ineligible, the witness at hand. */
  maintain(ms: number): void {
    this.tell(this.a, { command: 'maintenance', until: this.a.clock.now + ms })
    this.until('the shrink is chosen', () => !this.value.successor)
  }
}

const samplesEveryMs = 100
const keptMax = 20_000
