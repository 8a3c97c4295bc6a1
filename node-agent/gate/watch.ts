/**
 * Watches over the gate's tables. A firewall reload by somebody else (`nft flush ruleset`) removes them where the kernel
 * knows no owner of tables (before 6.9), and a gate that is not there is open to all: they are created again at once,
 * frozen, and reopened for what was left of the grant, never for more.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { KernelError, waitReadable } from '../kernel/libc.ts'
import { textOf } from '../kernel/netlink.ts'
import type { GateState, KernelGate } from './kernel-gate.ts'
import { NFNLGRP_NFTABLES, Nftables, nftEvent } from './nft.ts'

/** What an operator has to hear about: somebody else changes the firewall under the gate. */
export type GateAlarm =
  /** The tables were gone or changed and are there again. `now` open: a grant was still valid. */
  | { kind: 'restored'; why: string; now: GateState }
  /** They could not be made again. The caller has to stop serving by other means. */
  | { kind: 'not-restored'; why: string }
  /** Somebody else opened the gate, or for longer than we did; it is frozen or cut back now. */
  | { kind: 'opened-by-another'; why: string; now: GateState }

/** Lost events can't be seen, nor the coming of an interface: all is compared this often, for about 1 ms. */
const COMPARE_EVERY_MS = 5000
/** How long the wait for events runs on a thread of the pool at a time; `process.exit()` may have to wait for it. */
const WAIT_MS = 200
/** How often to look where no thread of the pool is free. */
const RETRY_MS = 20
/** The first attribute of every nftables object is its table's name. */
const NFTA_TABLE = 1

export class GateWatch {
  readonly #gate: KernelGate
  readonly #events = new Nftables({ groups: [NFNLGRP_NFTABLES] })
  #comparedMs = -Infinity
  #stopped = false
  #waiting: Promise<void> | undefined

  constructor(gate: KernelGate) {
    this.#gate = gate
  }

  /** Looks at what happened since the last call; 2 µs where nothing did. `nowMs` of any monotonic clock. */
  poll(nowMs: number): GateAlarm | undefined {
    let foreign = false
    const { overrun } = this.#events.socket.drain(message => {
      const event = nftEvent(message)
      if (event?.event === undefined || message.portId === this.#gate.portId) return
      foreign ||= textOf(event.attributes.get(NFTA_TABLE)) === this.#gate.table
    })
    if (!foreign && !overrun && nowMs - this.#comparedMs < COMPARE_EVERY_MS) return undefined
    this.#comparedMs = nowMs
    return this.#compare()
  }

  /** Calls `alarm` for each, within a millisecond of the event, until `stop`. Also where the loop has other ticks. */
  start(options: { now: () => number; alarm: (alarm: GateAlarm) => void }): void {
    const run = async () => {
      while (!this.#stopped) {
        const alarm = this.poll(options.now())
        if (alarm !== undefined) options.alarm(alarm)
        // Where the pool takes no more (a disk that hangs), the watch goes on with a timer.
        await waitReadable(this.#events.socket.fd, WAIT_MS).catch(() => sleep(RETRY_MS))
      }
    }
    this.#waiting = run()
  }

  /** Ends the watch; resolves when the wait on the pool is over. */
  async stop(): Promise<void> {
    if (this.#stopped) return
    this.#stopped = true
    await this.#waiting
    this.#events.close()
  }

  #compare(): GateAlarm | undefined {
    try {
      const why = this.#gate.difference()
      if (why !== undefined) return { kind: 'restored', why, now: this.#gate.restore() }
      const excessMs = this.#gate.excessMs()
      if (excessMs === 0) return undefined
      const opened = `the gate was open for ${excessMs.toFixed(0)} ms longer than this agent granted`
      return { kind: 'opened-by-another', why: opened, now: this.#gate.restore() }
    } catch (error) {
      if (!(error instanceof KernelError)) throw error
      return { kind: 'not-restored', why: error.message }
    }
  }
}
