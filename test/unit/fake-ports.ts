import { zeroDiscards } from '../../node-agent/peer/link-report.ts'
import type { Ports, ServiceContext } from '../../node-agent/ports.ts'
import { nothingSeen } from '../../shared/protocol/state.ts'
import type { DatabaseResult, Durable, GateReport } from '../../shared/protocol/types.ts'

/** Fakes of our own ports: each call leaves a line in `log`, so that tests compare orders. */
export interface Fakes {
  ports: Ports
  log: string[]
  clock: { boot: number; monotonic: number; wall: number }
  /** Ends the oldest durable write. */
  wrote: (error?: Error) => Promise<void>
  databaseDone: (result: DatabaseResult) => Promise<void>
}

export function fakePorts(): Fakes {
  const log: string[] = []
  const clock = { boot: 1000, monotonic: 1000, wall: 1_700_000_000_000 }
  const writes: ((error?: Error) => void)[] = []
  const operations: ((result: DatabaseResult) => void)[] = []
  let gate: GateReport = { state: 'frozen', expiresUntil: 0 }
  const say = (line: string): void => {
    log.push(line)
  }
  const ports: Ports = {
    clock: {
      bootMs: () => clock.boot,
      monotonicMs: () => clock.monotonic,
      wallMs: () => clock.wall,
      random: () => 0.5,
    },
    gate: {
      adopt: () => gate,
      open: untilMs => {
        say(`gate open until ${untilMs}`)
        gate = { state: 'open', expiresUntil: untilMs }
        return { refused: '', report: gate }
      },
      freeze: () => {
        say('gate frozen')
        gate = { state: 'frozen', expiresUntil: 0 }
      },
      close: () => {
        say('gate closed')
        gate = { state: 'closed', expiresUntil: 0 }
      },
      read: () => gate,
      onTampered: () => {},
      counters: () => ({}),
      detach: async () => {},
    },
    disk: {
      state: () => ({ volumes: [], hangsMs: 0, reserveMb: 0 }),
      tick: () => {},
      releaseReserve: async () => {},
    },
    vip: {
      prepare: async () => {},
      trouble: () => '',
      up: () => say('vip up'),
      down: () => say('vip down'),
      announce: () => say('announce'),
      tickle: clients => say(`tickle ${clients.map(one => one.client).join(' ')}`),
      tick: () => {},
      clients: () => [],
      probe: async () => [],
      state: () => [],
      onAlarm: () => {},
      close: () => {},
    },
    uplink: null,
    database: {
      adopt: async () => nothingSeen,
      onView: () => {},
      look: () => say('look'),
      perform: op => {
        say(`database ${op.op}`)
        return new Promise(resolve => operations.push(resolve))
      },
      cancelledWaits: () => 0,
      endedFull: () => false,
      unprotectedCommits: async () => [],
      forgetPeer: async () => {},
      collectEvidence: async () => ({ ok: false, why: 'a fake has none' }),
      detach: async () => {},
    },
    peer: {
      open: async () => {},
      send: message => say(`send ${message.kind}`),
      onMessage: () => {},
      ask: async () => ({ ok: false, why: 'nobody is there' }),
      onAsked: () => {},
      paths: () => [],
      usesNewestKey: () => false,
      refused: zeroDiscards,
      trouble: () => '',
      close: () => {},
    },
    witness: {
      connect: () => {},
      send: request => say(`ask w ${request.kind}`),
      onReply: () => {},
      health: () => ({ url: '', p99Ms: null, why: '', isVoid: false }),
      answeredAgoMs: () => null,
      retire: async () => false,
      close: () => {},
    },
    store: {
      write: (durable: Durable) => {
        say(`write ${durable.promised}`)
        return new Promise((resolve, reject) => writes.push(error => (error ? reject(error) : resolve())))
      },
      close: async () => {},
    },
    services: {
      start: (context: ServiceContext) => say(`services start as ${context.role}`),
      stop: async () => say('services stop'),
      state: () => [],
      onExhausted: () => {},
      detach: () => {},
    },
  }
  return {
    ports,
    log,
    clock,
    wrote: async error => {
      writes.shift()?.(error)
      await settled()
    },
    databaseDone: async result => {
      operations.shift()?.(result)
      await settled()
    },
  }
}

/** Long enough for promises that are resolved already. */
const settled = (): Promise<void> => new Promise(resolve => setImmediate(resolve))
