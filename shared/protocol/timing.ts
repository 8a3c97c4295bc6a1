import { assert } from '../assert.ts'

/**
 * Every time constant of the protocol, each with its unit, its reason and the sums it takes part in.
 * The relations between them are asserted whenever a timing is made, so a profile that breaks one cannot start.
 * All elapsed times are measured on CLOCK_BOOTTIME, which goes on counting while a host is suspended.
 */
export type ProfileName = 'fast' | 'default' | 'conservative'

export interface Timing {
  profile: ProfileName
  /** L: for how long S promises not to stand, from the moment it answered. */
  leaseMs: number
  /** Lp: for how long P counts the same promise, from the moment it sent. Shorter than L by drift and closing. */
  leaseHeldMs: number
  /** H: heartbeat interval. */
  heartbeatMs: number
  /** Interval of heartbeats after one went unanswered: at 10 % loss three lost in a row must not shrink the pair. */
  heartbeatRetryMs: number
  /** D: the silence of S after which P makes it ineligible. */
  silenceMs: number
  /** D/2: the silence after which P prepares that change, so that D ends with one trip. */
  prepareAfterMs: number
  /** Drift of one monotonic clock that is covered, as a fraction. */
  drift: number
  /** From the kernel's expiry to nothing being served any more. */
  closeMs: number
  /** What the guard form of a grant gives away: guard life 20 ms + slop 8 ms, see grants.ts. */
  grantSlopMs: number
  /** Age of the newest ack when a grant is renewed, at worst. */
  renewEveryMs: number
  /** A vote of W may take this long at p99 for this profile: checked at set-up and shown by `check`. */
  voteBudgetMs: number
  /** Two durable writes of the register on the path of a Shrink. */
  fsyncBudgetMs: number
  /** Grant while nobody may succeed; also how long a dead agent of a pinned primary goes on serving. */
  pinnedGrantMs: number
  /** A round that did not finish in this time ends; the next has a new ballot. */
  roundLimitMs: number
  /** A request unanswered for this long is sent again, same ballot. */
  resendMs: number
  /** Back-off between rounds of one host: random between half and the whole. */
  backoffMs: number
  /** A commit that waits this long for S without flush progress makes S ineligible; longer on a slow link, see isStalled. */
  stallMs: number
  /** A candidate that a quorum refused, as the register names no successor, asks again after this if it hears nothing: see proposer.ts. */
  refusedPauseMs: number
  /** Abdication: this many leases without lease or finished round. */
  abdicateAfterMs: number
  /** Probe of W in calm. */
  witnessProbeMs: number
  /** W is away for both hosts this long: the pair is pinned. */
  pinAfterMs: number
  /** Both hosts reached W for this long: the pin is undone. */
  unpinAfterMs: number
  /** An answer of W younger than this counts as "reached lately". */
  witnessFreshMs: number
  /** Planned switchover: the drain may take this long with the gate frozen. */
  drainMs: number
  /** Planned switchover as a whole; then it is taken back and the database started in place. A backup that hears nothing of it is left the time to take over by itself. */
  switchoverLimitMs: number
  /** S asks P to hand over for this long: a few heartbeats, and much shorter than P remembers that it has tried. */
  switchAskMs: number
  /** A demoted host keeps the VIP this long at most, so that no client finds no address at all. */
  vipOverlapMaxMs: number
  /** ... and this long after the new primary was seen serving. */
  vipOverlapMs: number
  /** Between attempts of a failed database operation. */
  retryMs: number
  /** Restarts in place of a pinned primary's database that are tried within restartWindowMs. */
  restartBudget: number
  restartWindowMs: number
  /** With the budget used up and nobody else to go on, a restart is tried this often: what stopped it may have ended. */
  restartPauseMs: number
  /** A durable write pending this long: this host stops renewing its lease and lets the other one go on. */
  persistLimitMs: number
  /** A register that is not written is written as it is this often, so that a dead disk shows in calm. */
  storeProbeMs: number
  /** The flushed position is made durable this often. */
  maxFlushedEveryMs: number
  /** Hold-down after a Shrink before S is made eligible again; doubles with each flap up to the maximum. */
  regrowAfterMs: number
  regrowMaxMs: number
  /** A calm time after which the hold-down is forgotten. */
  regrowForgetMs: number
}

const leaseOf: Record<ProfileName, number> = { fast: 300, default: 1000, conservative: 3000 }
export const profileNames = Object.keys(leaseOf) as ProfileName[]
/** Whatever the profile of an earlier start was, its lease was not longer. */
export const longestLeaseMs = Math.max(...Object.values(leaseOf))

export function timingOf(profile: ProfileName): Timing {
  const leaseMs = leaseOf[profile]
  const drift = 0.02
  const closeMs = 10
  const grantSlopMs = 28
  const heartbeatMs = leaseMs / 10
  const timing: Timing = {
    profile,
    leaseMs,
    leaseHeldMs: Math.floor((leaseMs * (1 - drift) - closeMs) / (1 + drift)),
    heartbeatMs,
    heartbeatRetryMs: heartbeatMs / 5,
    silenceMs: leaseMs * 0.35,
    prepareAfterMs: leaseMs * 0.175,
    drift,
    closeMs,
    grantSlopMs,
    renewEveryMs: heartbeatMs,
    voteBudgetMs: profile === 'fast' ? 50 : leaseMs * 0.28,
    fsyncBudgetMs: profile === 'fast' ? 20 : 60,
    pinnedGrantMs: 10_000,
    roundLimitMs: leaseMs * 2,
    resendMs: profile === 'fast' ? 50 : leaseMs * 0.1,
    backoffMs: leaseMs * 0.2,
    stallMs: leaseMs * 0.4,
    refusedPauseMs: 60_000,
    abdicateAfterMs: leaseMs * 3,
    witnessProbeMs: 10_000,
    pinAfterMs: 30_000,
    unpinAfterMs: 30_000,
    witnessFreshMs: 31_000,
    drainMs: 50,
    switchoverLimitMs: Math.max(3000, leaseMs * 2),
    switchAskMs: heartbeatMs * 5,
    vipOverlapMaxMs: 1000,
    vipOverlapMs: 20,
    retryMs: 1000,
    restartBudget: 3,
    restartWindowMs: 600_000,
    restartPauseMs: 30_000,
    persistLimitMs: leaseMs,
    storeProbeMs: 10_000,
    maxFlushedEveryMs: 1000,
    regrowAfterMs: leaseMs,
    regrowMaxMs: 60_000,
    regrowForgetMs: 600_000,
  }
  assertRelations(timing)
  return timing
}

/** The sums of protocol safety and of the promised outage, each in prose. */
export function assertRelations(t: Timing): void {
  assert(
    t.leaseHeldMs * (1 + t.drift) + t.closeMs <= t.leaseMs * (1 - t.drift),
    `P counts a promise for ${t.leaseHeldMs} ms; with drift ${t.drift} and ${t.closeMs} ms to close that outlives S's promise of ${t.leaseMs} ms`,
  )
  assert(
    shrinkNeedsMs(t) < leaseLeftAtShrinkMs(t),
    `a Shrink needs ${shrinkNeedsMs(t)} ms after S's last ack, but the gate is only sure to be open for ${leaseLeftAtShrinkMs(t)} ms`,
  )
  assert(t.prepareAfterMs < t.silenceMs, 'P must prepare before the silence is over')
  assert(
    t.heartbeatMs + 3 * t.heartbeatRetryMs < t.silenceMs,
    'three lost heartbeats in a row must not make the backup ineligible',
  )
  assert(t.witnessProbeMs * 3 < t.witnessFreshMs, 'W counts as reached only while a probe answered lately')
  assert(
    handOverUnheardMs(t) < t.switchoverLimitMs,
    `a backup that hears nothing of a hand-over takes over by itself within ${handOverUnheardMs(t)} ms, but after ${t.switchoverLimitMs} ms the primary takes it back and outbids it`,
  )
  assert(t.switchAskMs * 2 <= t.switchoverLimitMs, 'a wish of S must be over before P would take it for another one')
  assert(t.stallMs + t.roundLimitMs < t.abdicateAfterMs, 'a stalled backup must be dropped before P gives up')
}

/**
 * From the beginning of a planned hand-over of which S hears nothing to its Takeover: it may hear heartbeats until D after the
 * database is killed, is bound for a lease after the last, on its own clock, and takes a vote.
 */
const handOverUnheardMs = (t: Timing): number =>
  t.drainMs + t.silenceMs + (t.leaseMs * (1 + t.drift)) / (1 - t.drift) + t.voteBudgetMs + t.fsyncBudgetMs

/**
 * From S's last ack to a committed Shrink: P prepares at D/2 and sends the Accept at D, or when the first trip to W is
 * over, whichever is later; each trip has one of the two durable writes before it.
 */
export function shrinkNeedsMs(t: Timing, voteMs = t.voteBudgetMs): number {
  const tripMs = voteMs + t.fsyncBudgetMs / 2
  return Math.max(t.silenceMs, t.prepareAfterMs + tripMs) + tripMs
}

/** Lp − r: how long after S's last ack the gate is sure to be open. */
export const leaseLeftAtShrinkMs = (t: Timing): number => t.leaseHeldMs - t.grantSlopMs - t.renewEveryMs

/** The slowest p99 of a vote that this profile admits; a slower witness is refused with these figures. */
export function voteLimitMs(t: Timing): number {
  const leftMs = leaseLeftAtShrinkMs(t)
  const oneTrip = leftMs - t.silenceMs - t.fsyncBudgetMs / 2
  const twoTrips = (leftMs - t.prepareAfterMs - t.fsyncBudgetMs) / 2
  return Math.min(oneTrip, twoTrips)
}
