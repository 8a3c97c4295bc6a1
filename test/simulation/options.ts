import type { ProfileName, Timing } from '../../shared/protocol/timing.ts'
import { timingOf } from '../../shared/protocol/timing.ts'
import { Random } from './random.ts'

/**
 * What kind of run it is.
 * - storm: faults overlap as they come.
 * - single: one fault at a time, each after the pair was protected again; the promised outages are checked.
 * - wild: a storm with clocks outside of the margin and guests whose clock stands still; what needs no clock must hold.
 */
export type RunClass = 'storm' | 'single' | 'wild'

/**
 * - all: those in a rest too, where a checker demands that they do nothing.
 * - outside of rests: as the agent does; the same run by another way, and a quicker one.
 */
export type Ticks = 'all' | 'outside of rests'

/** Everything about a run that is not a fault, drawn from its seed. */
export interface Options {
  seed: number
  runClass: RunClass
  profile: ProfileName
  /** True milliseconds per local one of each host's clock, within the margin unless wild. */
  rates: { a: number; b: number }
  /** The agent's loop. */
  tickMs: number
  /** Which ticks of the loop are taken: the agent leaves out those in a rest, in which nothing can happen. */
  ticks: Ticks
  /** The database is looked at at least this often: the agent does each 100 ms, each 200 ms in calm, and a little late. */
  observeMs: number
  /** Paths between the hosts: heartbeats and votes use all of them, streaming the first. */
  paths: number
  linkMs: number
  linkJitterMs: number
  /** Share of datagrams lost and duplicated in calm. */
  loss: number
  duplicates: number
  witness: 'near' | 'far'
  witnessMs: number
  witnessJitterMs: number
  /** Durable write of the register, and of the log. */
  fsyncMs: number
  fsyncJitterMs: number
  /** The checkpointer processes a reload after this long, sometimes after far longer. */
  checkpointerMs: number
  checkpointerLateMs: number
  promoteMs: number
  recoveryMs: number
  rewindMs: number
  cloneMs: number
  killMs: number
  /** A walsender or receiver gives a silent connection up after this long. */
  senderTimeoutMs: number
  retryIntervalMs: number
  clientEveryMs: number
  /** The executor lets no effect overtake the queue, even those that may. */
  strictQueue: boolean
  /** The register and the database lie on one volume. */
  oneVolume: boolean
  /** A host is set back by up to this between arming and applying a grant. */
  gateLagMs: number
  faults: number
  /** Length of the safety phase. */
  safetyMs: number
  primary: 'a' | 'b'
}

export const safetyMinMs = 60_000

/**
 * A grant is two steps, and refused where the guard of 20 ms ends between them. A host that is held up for longer has a
 * fault of its own, so in single runs it is held up for less.
 */
const grantLag = (seed: number): number => new Random(seed, 'grant lag').between(1, 15)

export function drawOptions(seed: number): Options {
  const r = new Random(seed, 'options')
  const runClass = r.weighted({ storm: 66, single: 26, wild: 8 })
  const profile = r.weighted({ default: 70, fast: 16, conservative: 14 })
  const timing = timingOf(profile)
  const witness = profile === 'fast' ? 'near' : r.pick(['near', 'far'] as const)
  // At the edge of the margin as often as well inside.
  const margin = runClass === 'wild' ? 0.3 : timing.drift * (r.chance(0.5) ? 1 : r.next())
  const rate = () => (r.chance(0.5) ? 1 + margin * (r.chance(0.5) ? 1 : -1) : r.between(1 - margin, 1 + margin))
  return {
    seed,
    runClass,
    profile,
    rates: { a: rate(), b: rate() },
    tickMs: timing.heartbeatRetryMs * r.between(0.7, 1),
    ticks: seed % 4 === 0 ? 'all' : 'outside of rests',
    // In calm the agent looks each 300 ms, and later where it has to wait for a processor.
    observeMs: r.between(50, 220) * (seed % 5 === 1 ? 2 : 1),
    paths: r.chance(0.6) ? 2 : 1,
    linkMs: r.spread(0.05, 0.5),
    linkJitterMs: r.spread(0.05, 2),
    loss: r.chance(0.3) ? r.between(0.001, 0.03) : 0,
    duplicates: r.chance(0.3) ? r.between(0.001, 0.05) : 0,
    witness,
    witnessMs: witness === 'near' ? 0.5 : 20,
    witnessJitterMs: witness === 'near' ? 2 : 15,
    fsyncMs: r.spread(0.2, 4),
    fsyncJitterMs: r.spread(0.2, 8),
    checkpointerMs: r.spread(1, 20),
    checkpointerLateMs: r.spread(100, 2500),
    promoteMs: r.spread(13, 80),
    recoveryMs: r.spread(44, 400),
    rewindMs: r.spread(500, 1500),
    cloneMs: r.spread(800, 6000),
    killMs: r.between(10, 25),
    senderTimeoutMs: r.spread(2000, 20_000),
    retryIntervalMs: 100,
    // Alone, a fault is measured by its client: that one writes often.
    clientEveryMs: runClass === 'single' ? r.spread(10, 40) : r.spread(40, 250),
    // Safety may not rest on the overtaking, the promised outages may: the product's executor always lets them overtake.
    strictQueue: r.chance(0.2) && runClass !== 'single',
    oneVolume: r.chance(0.5),
    gateLagMs: r.chance(0.3) ? (runClass === 'single' ? grantLag(seed) : r.spread(1, 60)) : 0.1,
    faults: runClass === 'single' ? 3 + r.below(3) : 3 + r.below(10),
    safetyMs: safetyMinMs,
    primary: r.pick(['a', 'b'] as const),
  }
}

/** A pair in good health with short parts: what is tried there is one course of events, not the weather. */
export function calmOptions(seed: number): Options {
  return {
    ...drawOptions(seed),
    runClass: 'storm',
    profile: 'default',
    rates: { a: 1.01, b: 0.99 },
    tickMs: 20,
    ticks: 'all',
    observeMs: 90,
    paths: 1,
    linkMs: 0.2,
    linkJitterMs: 0.3,
    loss: 0,
    duplicates: 0,
    witness: 'near',
    witnessMs: 0.5,
    witnessJitterMs: 2,
    fsyncMs: 2,
    fsyncJitterMs: 2,
    checkpointerMs: 5,
    checkpointerLateMs: 100,
    promoteMs: 30,
    recoveryMs: 60,
    rewindMs: 500,
    cloneMs: 800,
    clientEveryMs: 60,
    strictQueue: seed % 2 === 1,
    oneVolume: true,
    gateLagMs: 1,
    primary: 'a',
  }
}

/** How long the pair may take after everything was healed: hold-downs, un-pinning and a clone, each at its longest. */
export function convergenceLimitMs(options: Options, timing: Timing): number {
  const stretch = 1 + timing.drift + (options.runClass === 'wild' ? 0.5 : 0)
  const repairs = 3 * (options.cloneMs + options.rewindMs + options.recoveryMs + timing.retryMs)
  return (timing.regrowMaxMs + timing.pinAfterMs + timing.unpinAfterMs + repairs + 30 * timing.leaseMs) * stretch
}

export function showOptions(o: Options): string {
  const round = (n: number) => Math.round(n * 1000) / 1000
  return Object.entries(o)
    .map(([key, value]) => {
      if (typeof value === 'number') return `${key}=${round(value)}`
      if (typeof value === 'object') return `${key}=${Object.values(value as object).map(n => round(n as number))}`
      return `${key}=${value}`
    })
    .join(' ')
}
