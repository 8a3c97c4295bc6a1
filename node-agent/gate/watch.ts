/**
 * Watches over the gate's tables. A firewall reload by somebody else (`nft flush ruleset`) removes them where the kernel
 * knows no owner of tables (before 6.9), and a gate that is not there is open to all: they are created again at once,
 * frozen, and reopened for what was left of the grant, never for more.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { KernelError, waitReadable } from '../kernel/libc.ts'
import { textOf } from '../kernel/netlink.ts'
import type { GateState } from './gate.ts'
import type { KernelGate } from './kernel-gate.ts'
import { NFNLGRP_NFTABLES, Nftables, nftEvent } from './nft.ts'

/** What an operator has to hear about: somebody else changes the firewall under the gate. */
export type GateAlarm =
  /** The tables were gone or changed and are there again. `now` open: a grant was still valid. */
  | { kind: 'restored'; why: string; now: GateState }
  /** They were made anew for an interface that has come or gone. */
  | { kind: 'followed'; why: string; now: GateState }
  /** They could not be made again. The caller has to stop serving by other means. */
  | { kind: 'not-restored'; why: string }
  /** Somebody else opened, shut, extended or shortened the gate; it is again as this agent had it. */
  | { kind: 'grant-changed'; why: string; now: GateState }

/** Lost events can't be seen, nor the coming of an interface: all is compared this often, for about 1 ms. */
const COMPARE_EVERY_MS = 5000
/** Where the kernel keeps the tables for their owner nobody can change them: what is in them is compared more rarely. */
const COMPARE_OWNED_EVERY_MS = 30_000
/** How long the wait for events runs on a thread of the pool at a time; `process.exit()` may have to wait for it. */
const WAIT_MS = 200
/** How often to look where no thread of the pool is free. */
const RETRY_MS = 20
/** The first attribute of every nftables object is its table's name. */
const NFTA_TABLE = 1

export class GateWatch {
  readonly #gate: KernelGate
  readonly events = new Nftables({ groups: [NFNLGRP_NFTABLES] })
  #comparedMs = -Infinity
  #comparedAllMs = -Infinity
  #stopped = false
  #waiting: Promise<void> | undefined
  #wake: () => void = () => {}

  constructor(gate: KernelGate) {
    this.#gate = gate
    this.events.socket.ignoreCausedBy(gate.portId)
  }

  /** Looks at what happened since the last call; 2 µs where nothing did. `nowMs` of any monotonic clock. */
  poll(nowMs: number): GateAlarm | undefined {
    let foreign = false
    const { overrun } = this.events.socket.drain(message => {
      const event = nftEvent(message)
      if (event?.event === undefined || message.portId === this.#gate.portId) return
      foreign ||= textOf(event.attributes.get(NFTA_TABLE)) === this.#gate.table
    })
    if (!foreign && !overrun && nowMs - this.#comparedMs < COMPARE_EVERY_MS) return undefined
    const alarm = this.#compare(nowMs)
    // A gate that could not be put right is tried again at the next look.
    const failed = alarm?.kind === 'not-restored'
    this.#comparedMs = failed ? -Infinity : nowMs
    if (failed) this.#comparedAllMs = -Infinity
    return alarm
  }

  /**
   * Calls `alarm` for each, within a millisecond of the event, until `stop`. Also where the loop has other ticks. Tables
   * that the kernel keeps for their owner are only compared now and then: nobody else can change them.
   */
  start(options: { now: () => number; alarm: (alarm: GateAlarm) => void }): void {
    if (this.#gate.owned) this.events.socket.leave(NFNLGRP_NFTABLES)
    const run = async () => {
      while (!this.#stopped) {
        const alarm = this.poll(options.now())
        if (alarm !== undefined) options.alarm(alarm)
        if (this.#gate.owned) await this.#rest(COMPARE_EVERY_MS)
        // Where the pool takes no more (a disk that hangs), the watch goes on with a timer.
        else await waitReadable(this.events.socket.fd, WAIT_MS).catch(() => sleep(RETRY_MS))
      }
    }
    this.#waiting = run()
  }

  #rest(ms: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, ms)
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  /** Ends the watch; resolves when the wait on the pool is over. */
  async stop(): Promise<void> {
    if (this.#stopped) return
    this.#stopped = true
    this.#wake()
    await this.#waiting
    this.events.close()
  }

  #compare(nowMs: number): GateAlarm | undefined {
    try {
      const all = !this.#gate.owned || nowMs - this.#comparedAllMs >= COMPARE_OWNED_EVERY_MS
      if (all) this.#comparedAllMs = nowMs
      const moved = this.#gate.interfaceDifference()
      if (moved !== undefined) return { kind: 'followed', why: moved, now: this.#gate.restore() }
      const changed = all ? this.#gate.difference() : undefined
      if (changed !== undefined) return { kind: 'restored', why: changed, now: this.#gate.restore() }
      const why = this.#gate.stateDifference()
      return why === undefined ? undefined : { kind: 'grant-changed', why, now: this.#gate.restore() }
    } catch (error) {
      if (!(error instanceof KernelError)) throw error
      return { kind: 'not-restored', why: error.message }
    }
  }
}
