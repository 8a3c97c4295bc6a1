import { assert } from '../shared/assert.ts'
import type { Effect, EventBody, Message, OperatorCommand } from '../shared/protocol/types.ts'
import type { ClientConnection, Ports, ServiceContext } from './ports.ts'

/**
 * Carries out the core's effects: one queue, in order. A `persist` ends before anything queued behind it begins; that
 * order is part of the protocol. What makes nobody serve and promises nothing new (heartbeats, acks, reads,
 * shutting the gate, killing the database) never waits for a disk.
 *
 * Nothing here decides. Effects are started and their outcomes come back as events.
 */
export interface ExecutorOptions {
  ports: Pick<Ports, 'gate' | 'vip' | 'database' | 'peer' | 'witness' | 'store' | 'services'>
  post: (event: EventBody) => void
  context: () => ServiceContext
  /** The clients the other host last told of. */
  peerClients: () => readonly ClientConnection[]
  /** `ask`: which asking it answers; 0: nobody waits. */
  answer: (answer: OperatorAnswer, ask: number) => void
  note: (why: string) => void
  /** Ends the process at once with an exit code that is not 0. */
  exit: (why: string) => void
}
export interface OperatorAnswer {
  command: OperatorCommand['command']
  ok: boolean
  why: string
}

/**
 * More effects than this behind one durable write: the core gives a hanging disk up long before (persistLimitMs), so
 * this is a bug, and memory must not grow with it.
 */
const queueMax = 5000

type Do = Effect['do']
type EffectOf<D extends Do> = Extract<Effect, { do: D }>
/** A promise means: the queue waits for it. Complete by the compiler: a new effect without an entry does not build. */
type Handlers = { [D in Do]: (effect: EffectOf<D>) => undefined | Promise<void> }

export class Executor {
  readonly #options: ExecutorOptions
  #queue: Effect[] = []
  #waiting = false
  #stopped = false
  /** The newest gate effect that was carried out. */
  #gateSeq = 0
  /** The newest database operation that was begun: a kill overtakes what waits, which must not start afterwards. */
  #databaseId = 0
  #promoted = false

  constructor(options: ExecutorOptions) {
    this.#options = options
  }

  /** Takes the effects of one step, in their order. */
  run(effects: readonly Effect[]): void {
    for (const effect of effects) {
      if (this.#stopped) return
      if (this.#waiting && !bypasses(effect)) this.#enqueue(effect)
      else this.#execute(effect)
    }
  }

  get queued(): number {
    return this.#queue.length
  }

  /** Nothing more is carried out; what waits is dropped. */
  stop(): void {
    this.#stopped = true
    this.#queue = []
  }

  #enqueue(effect: Effect): void {
    assert(this.#queue.length < queueMax, `${queueMax} effects wait behind a durable write`)
    this.#queue.push(effect)
  }

  #execute(effect: Effect): void {
    const handle = this.#handlers[effect.do] as (effect: Effect) => undefined | Promise<void>
    const pending = handle(effect)
    if (pending === undefined) return
    this.#waiting = true
    void pending.then(() => {
      this.#waiting = false
      this.#drain()
    })
  }

  #drain(): void {
    while (!this.#waiting && !this.#stopped) {
      const next = this.#queue.shift()
      if (next === undefined) return
      this.#execute(next)
    }
  }

  readonly #handlers: Handlers = {
    persist: async ({ seq, durable }) => {
      const { ports, post } = this.#options
      try {
        await ports.store.write(durable)
      } catch (error) {
        // Fail closed: what was promised may not be on disk, so this process must not promise or serve any more.
        return this.#end(`the durable state could not be written: ${sentenceOf(error)}`)
      }
      post({ event: 'persisted', seq })
    },
    send: ({ to, message }) => {
      const { ports } = this.#options
      if (to === 'w') {
        if (isRequest(message)) ports.witness?.send(message)
        return
      }
      ports.peer.send(message)
    },
    gate: effect => this.#setGate(effect),
    vip: ({ set }) => {
      const { vip } = this.#options.ports
      if (set === 'up') vip.up()
      else vip.down()
    },
    announce: () => {
      const { ports, peerClients } = this.#options
      // What is announced has to be here: the core takes the address for present when an agent starts.
      ports.vip.up()
      ports.vip.announce()
      // Only after a promotion: connections that survived a freeze of this host must not be reset.
      if (this.#promoted) ports.vip.tickle(peerClients())
      this.#promoted = false
    },
    look: () => {
      this.#options.ports.database.look()
    },
    services: ({ set }) => {
      const { ports, context } = this.#options
      if (set === 'running') ports.services.start(context())
      else void ports.services.stop(context())
    },
    database: ({ id, op }): undefined => {
      const { ports, post, note } = this.#options
      if (id < this.#databaseId) return
      this.#databaseId = id
      const beganMs = performance.now()
      void ports.database.perform(op).then(
        result => {
          note(
            `database: ${op.op} ${result.ok ? 'took' : 'failed after'} ${Math.round(performance.now() - beganMs)} ms`,
          )
          if (op.op === 'promote' && result.ok) this.#promoted = true
          post({ event: 'databaseDone', id, result })
        },
        error => this.#end(`the database driver failed in ${op.op}: ${sentenceOf(error)}`),
      )
    },
    answer: ({ command, ok, why, ask }) => {
      this.#options.answer({ command, ok, why }, ask)
    },
    exit: ({ why }) => {
      this.#end(why)
    },
  }

  #setGate(effect: EffectOf<'gate'>): undefined {
    const { ports, post, note } = this.#options
    // Overtaken while it waited for a durable write: a newer freeze or grant holds.
    if (effect.seq < this.#gateSeq) return
    this.#gateSeq = effect.seq
    switch (effect.set) {
      case 'open': {
        const { refused, report } = ports.gate.open(effect.until)
        if (refused !== '') note(`the gate did not open: ${refused}`)
        post({ event: 'gate', seq: effect.seq, report })
        return
      }
      case 'frozen':
        ports.gate.freeze()
        break
      case 'closed':
        ports.gate.close()
        break
    }
    post({ event: 'gate', seq: effect.seq, report: ports.gate.read() })
  }

  #end(why: string): void {
    if (this.#stopped) return
    this.stop()
    this.#options.exit(why)
  }
}

/** What may always go at once: it takes permissions away, or repeats what is durable already. */
function bypasses(effect: Effect): boolean {
  switch (effect.do) {
    case 'send':
      return bypassingMessages.has(effect.message.kind)
    case 'gate':
      return effect.set !== 'open'
    case 'database':
      return effect.op.op === 'kill'
    default:
      return effect.do === 'exit'
  }
}
const bypassingMessages: ReadonlySet<Message['kind']> = new Set<Message['kind']>(['heartbeat', 'ack', 'read'])

type Request = Extract<Message, { kind: 'prepare' | 'accept' | 'cas' | 'read' }>
/** W learns nothing by `learn`: it has one register, written by accept and cas alone. */
function isRequest(message: Message): message is Request {
  return message.kind === 'prepare' || message.kind === 'accept' || message.kind === 'cas' || message.kind === 'read'
}

const sentenceOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
