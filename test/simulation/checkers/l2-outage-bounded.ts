import type { Fault, FaultKind } from '../faults/fault.ts'
import type { Options } from '../options.ts'
import type { Pair } from '../pair.ts'
import { hangAfterMs } from '../postgres.ts'
import { Violation } from './check.ts'

/**
 * L2: no single fault stops service for longer than promised. The promise is a sum of the protocol's times and of the
 * longest that each part of this simulated pair may take; the latter are the run's own options.
 *
 * - nothing: clients notice at most a slow commit.
 * - drop: the backup is made ineligible; writes wait for D and a vote, reads go on.
 * - release: the primary gives its place up without any timer.
 * - takeover: the lease ends, then the backup stands.
 * - resume: a primary that lost power, or whose agent and database both ended on a full disk, is back before the backup was
 *   chosen in its place (its lease and a vote), and goes on: its agent starts, asks the backup once, recovers the database, waits D for a backup whose stream still hangs in the old connection, then goes on without it.
 * - deaf: the primary hears nobody, so it cannot learn that it should go: it abdicates after three leases.
 * - hang: the primary's disk takes no write, or takes long for each. Either the register's writes are late, and it binds the
 *   backup no longer; or the database's are, and D after it was killed the backup is bound no longer if the hand-over, whose
 *   writes go to the same disk, is not done. Then the lease ends.
 */
export type Promised = 'nothing' | 'drop' | 'release' | 'takeover' | 'resume' | 'deaf' | 'hang'

type Row = { readonly primary: Promised; readonly backup: Promised }
const both = (promise: Promised): Row => ({ primary: promise, backup: promise })

/** The fault matrix, for a pair that is protected when the fault begins. A kind without a row is never drawn alone. */
export const promises: { readonly [kind in FaultKind]?: Row } = {
  powerCut: { primary: 'takeover', backup: 'drop' },
  agentKill: { primary: 'takeover', backup: 'drop' },
  agentStop: { primary: 'takeover', backup: 'drop' },
  suspend: { primary: 'takeover', backup: 'drop' },
  hostPause: { primary: 'takeover', backup: 'drop' },
  postmasterKill: { primary: 'release', backup: 'drop' },
  backendCrash: { primary: 'release', backup: 'drop' },
  breakReplication: both('drop'),
  cutPeer: both('drop'),
  cutOneWay: both('drop'),
  cutPath: both('drop'),
  cutWitness: both('nothing'),
  isolate: { primary: 'takeover', backup: 'drop' },
  deaf: { primary: 'deaf', backup: 'drop' },
  mute: { primary: 'takeover', backup: 'drop' },
  uplink: { primary: 'release', backup: 'nothing' },
  witnessDown: both('nothing'),
  witnessFlap: both('nothing'),
  witnessSlow: both('nothing'),
  witnessAmnesia: both('nothing'),
  witnessReplace: both('nothing'),
  switchover: both('release'),
  diskHang: { primary: 'hang', backup: 'drop' },
  diskSlow: { primary: 'hang', backup: 'drop' },
  diskFull: { primary: 'takeover', backup: 'drop' },
  ioError: { primary: 'takeover', backup: 'drop' },
  leave: { primary: 'release', backup: 'drop' },
}

/** Faults that end agent and database together, and from which the host can be back within its lease. */
const endsBoth: ReadonlySet<FaultKind> = new Set<FaultKind>(['powerCut', 'diskFull'])

/** The longest that a client may be without an acknowledged write, in true ms. */
export function outageLimitMs(pair: Pair, promise: Promised): number {
  const { options: o, timing: t } = pair
  const parts = partsOf(o, t.resendMs)
  const local = (ms: number) => ms / (1 - t.drift)
  switch (promise) {
    case 'nothing':
      return parts.commitMs
    case 'drop':
      return local(t.silenceMs + t.heartbeatMs) + parts.shrinkMs + parts.commitMs
    case 'release':
      return parts.releaseMs + parts.commitMs
    case 'takeover':
      return local(t.leaseMs) + parts.takeoverMs + parts.commitMs
    case 'resume':
      return (
        local(t.leaseMs + t.silenceMs + t.heartbeatMs) +
        parts.chosenMs +
        parts.startMs +
        parts.recoveryMs +
        parts.shrinkMs +
        parts.commitMs
      )
    case 'deaf':
      return local(5 * t.leaseMs) + parts.takeoverMs + parts.commitMs
    case 'hang':
      return (
        local(Math.max(t.persistLimitMs, parts.noticeHangMs + t.silenceMs) + t.leaseMs) +
        parts.takeoverMs +
        parts.commitMs
      )
  }
}

/** The worst of the simulated parts. Each lost datagram costs a repetition. */
export function partsOf(o: Options, resendMs: number) {
  const fsyncMs = o.fsyncMs + o.fsyncJitterMs
  const linkMs = 2 * (o.linkMs + 10 * o.linkJitterMs)
  const lostMs = (o.loss > 0 ? 3 : 1) * resendMs
  const voteMs = 2 * (o.witnessMs + o.witnessJitterMs) + 3 + lostMs
  const promoteMs = 1.5 * o.promoteMs + 5
  const tickMs = 1.2 * o.tickMs
  const noticeMs = o.observeMs + 10
  /** One write after the other, each to the disk here and there; a lost segment comes again after 200 ms. */
  const commitMs = 3 * (1.2 * o.clientEveryMs + fsyncMs) + 2 * fsyncMs + linkMs + 250
  const chosenMs = 2 * tickMs + 4 * fsyncMs + voteMs
  const namesMs = 3 + Math.max(o.checkpointerLateMs, o.checkpointerMs)
  return {
    commitMs,
    voteMs,
    recoveryMs: 1.5 * o.recoveryMs + 5,
    /** The register is read and written once, then a heartbeat is answered. */
    startMs: 2 * tickMs + 2 * fsyncMs + linkMs + lostMs,
    noticeHangMs: hangAfterMs + noticeMs + tickMs + 1.2 * o.killMs,
    chosenMs,
    takeoverMs: chosenMs + promoteMs + 20,
    shrinkMs: 2 * tickMs + 3 * fsyncMs + voteMs + namesMs + noticeMs,
    releaseMs: noticeMs + 250 + 2 * tickMs + 55 + 1.2 * o.killMs + 4 * fsyncMs + linkMs + lostMs + promoteMs,
  }
}

export function demandOutageBounded(
  pair: Pair,
  fault: Fault,
  measured: { gapMs: number; stayed: boolean; backAfterMs: number },
): void {
  const row = promises[fault.kind]
  if (row === undefined) return
  const { chosenMs } = partsOf(pair.options, pair.timing.resendMs)
  const inTime = measured.backAfterMs <= pair.timing.leaseMs / (1 - pair.timing.drift) + chosenMs
  const resumed = endsBoth.has(fault.kind) && fault.role === 'primary' && measured.stayed && inTime
  const promise = resumed ? 'resume' : row[fault.role]
  const limitMs = outageLimitMs(pair, promise)
  pair.count(`L2: ${promise}`)
  if (measured.gapMs <= limitMs) return
  throw new Violation(
    'L2',
    `${fault.kind} at the ${fault.role} stopped service for ${measured.gapMs.toFixed(0)} ms; promised (${promise}): ${limitMs.toFixed(0)} ms`,
  )
}
