/** A process in a namespace that uses TCP on command: the test's end of it. See peer-main.ts for the other end. */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'

export type Outcome = { outcome: 'ok' | 'refused' | 'reset' | 'timeout' | 'unreachable' | 'closed'; ms: number }

/** A command and its answer, by name. */
export type PeerCommands = {
  /** An echo server; on '::' it takes IPv4 too. */
  listen: { ask: { host: string; port: number }; answer: { port: number } }
  /** Opens a connection, exchanges a line, closes it. */
  connect: { ask: { host: string; port: number; limitMs: number }; answer: Outcome }
  /** Opens a connection that stays. */
  dial: { ask: { id: string; host: string; port: number; limitMs: number }; answer: Outcome & { localPort: number } }
  /** Exchanges a line over it. */
  say: { ask: { id: string; limitMs: number }; answer: Outcome }
  /** Waits until it ended: closed, reset, or not within the limit. */
  ended: { ask: { id: string; limitMs: number }; answer: Outcome }
  /** The server writes a line to each of its connections. */
  push: { ask: Record<never, never>; answer: { connections: number } }
  /** Waits for a pushed line. */
  hear: { ask: { id: string; limitMs: number }; answer: Outcome }
}

export class Peer {
  readonly ready: Promise<void>
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (answer: unknown) => void>()
  #next = 1

  constructor(child: ChildProcess) {
    this.#child = child
    this.ready = once(child, 'message').then(() => {
      child.on('message', (message: { id: number; answer: unknown }) => {
        this.#waiting.get(message.id)?.(message.answer)
        this.#waiting.delete(message.id)
      })
    })
  }

  ask<K extends keyof PeerCommands>(command: K, ask: PeerCommands[K]['ask']): Promise<PeerCommands[K]['answer']> {
    const id = this.#next++
    return new Promise(resolve => {
      this.#waiting.set(id, answer => resolve(answer as PeerCommands[K]['answer']))
      this.#child.send({ id, command, ask })
    })
  }
}
