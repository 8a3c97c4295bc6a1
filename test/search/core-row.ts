/**
 * What each field of the core's state contributes to the row of a state. The compiler holds the tables complete: a field
 * that is added to the state must be given a place here before the search compiles again.
 */
import { confirmed, isResigned, rightToServe, silenceMs, witnessReach } from '../../shared/protocol/facts.ts'
import type {
  BackupState,
  DatabaseState,
  DutyState,
  GateView,
  HostState,
  LeaseState,
  Round,
  Vacate,
  WitnessState,
} from '../../shared/protocol/state.ts'
import type { Ack, Heartbeat } from '../../shared/protocol/types.ts'
import { searchTiming as t } from './pair.ts'
import { ballot, filler, flag, future, half, number, past, skip, word } from './row.ts'

export const fillAck = filler<Ack>({
  kind: skip,
  gen: skip,
  epoch: skip,
  version: skip,
  inc: (row, inc) => row.inc(inc),
  nonce: skip,
  seq: skip,
  promise: flag,
  why: skip,
  flushed: (row, at) => row.put(at.timeline * 64 + at.lsn),
  streaming: flag,
  confirmed: flag,
  witness: word,
  uplink: flag,
  asks: word,
})

export const fillHeartbeat = filler<Heartbeat>({
  kind: skip,
  gen: (row, gen, beat) => row.reign(gen, beat.epoch, beat.version),
  epoch: skip,
  version: skip,
  inc: (row, inc) => row.inc(inc),
  nonce: skip,
  seq: skip,
  timeline: number,
  databaseUp: flag,
  serving: flag,
  holdsLease: flag,
  leaseMs: skip,
  note: word,
})

const fillRound = filler<Round>({
  ballot,
  change: word,
  ground: word,
  phase: word,
  startedAt: past(t.roundLimitMs + half),
  sentAt: past(t.resendMs),
  req: skip,
  promises: (row, promises) => {
    for (const node of ['a', 'b', 'w'] as const) row.ballot(promises[node]?.acc?.ballot ?? 0)
  },
  best: (row, best) => row.ballot(best?.ballot ?? 0),
  value: (row, value) => row.value(value),
  accepts: (row, accepts) => {
    for (const node of ['a', 'b', 'w'] as const) row.inc(accepts[node])
  },
  member: (row, member) => row.inc(member?.inc),
  resigned: (row, version) => row.put(version === 0 ? -1 : version - row.version),
})

const fillLease = filler<LeaseState>({
  leaseUntil: future,
  seq: skip,
  nextBeatAt: future,
  // Which of them can still be answered stands with the messages.
  beats: (row, beats) => row.flag(beats.length > 0),
  ack: (row, ack) => (ack === null ? row.put(-1) : fillAck(row, ack)),
  ackSentAt: past(t.leaseMs),
  ackAt: past(t.silenceMs),
  promisedAt: skip,
  primaryAt: skip,
  progressAt: skip,
  abdicated: flag,
  abdicatedAt: skip,
  replicaGoneAt: past(t.silenceMs),
})

const fillBackup = filler<BackupState>({
  quarantineUntil: future,
  greetedAt: past(t.heartbeatMs),
  promiseUntil: future,
  heartbeat: (row, beat, backup) =>
    beat === null || row.now - backup.heardAt >= t.leaseMs ? row.put(-1) : fillHeartbeat(row, beat),
  heardAt: past(t.leaseMs),
  candidacy: flag,
  candidacyAfterAt: future,
  resignHeard: (row, version) => row.put(version === 0 ? -1 : version - row.version),
  flushedPersistAt: skip,
  astrayAt: past(t.leaseMs),
  astrayJoins: number,
})

const fillWitness = filler<WitnessState>({
  wanted: (row, inc) => row.inc(inc),
  answeredAt: (row, at) => row.flag(at > 0),
  probeAt: future,
  probeReq: (row, req) => row.flag(req > 0),
  // Tells a late answer from a witness that was set back.
  seenReq: skip,
  unansweredAt: past(t.leaseMs),
  backAt: past(t.unpinAfterMs),
  pinned: flag,
})

const fillGate = filler<GateView>({
  seq: skip,
  set: word,
  grantUntil: future,
  askedUntil: future,
  report: (row, report) => {
    word(row, report.state)
    row.future(report.expiresUntil)
  },
  reported: (row, seq, gate) => row.flag(seq === gate.seq),
  setAt: past(t.heartbeatRetryMs),
})

const fillDatabase = filler<DatabaseState>({
  view: (row, view) => {
    word(row, view.process)
    row.put(view.end.timeline * 64 + view.end.lsn)
    row.put(view.sender === null ? -1 : view.sender.flushedLsn)
    row.put(Math.min(view.stalledMs, t.stallMs + 8 * t.leaseMs))
    row.flag(view.streaming)
  },
  op: (row, op) => word(row, op?.op.op ?? '-'),
  opSeq: skip,
  retryAt: future,
  failures: (row, n) => row.put(Math.min(n, 3)),
  lastError: skip,
  barrier: (row, at) => row.put(at === null ? -1 : at.timeline * 64 + at.lsn),
  lostLsn: number,
  passedBy: (row, inc) => row.inc(inc),
  ran: flag,
  restartsAt: (row, times) => row.put(times.length),
})

const fillVacate = filler<Vacate>({
  kind: word,
  why: skip,
  startedAt: past(t.switchoverLimitMs + half),
  drained: flag,
  end: (row, at) => row.put(at === null ? -1 : at.timeline * 64 + at.lsn),
  killedAt: past(t.leaseMs),
  // Stands with the answers, see `fillMessage` and the newest one in `fillCore`.
  killedSeq: skip,
  answer: (row, answer) => row.flag(answer !== null),
})

const fillDuty = filler<DutyState>({
  maintenanceUntil: future,
  leaving: word,
  asksSwitchoverUntil: future,
  takenBackAt: (row, at) => (at === 0 ? row.put(-2) : row.past(at, t.switchoverLimitMs)),
  resignedAt: skip,
  resignSentAt: past(t.heartbeatMs),
  regrowAt: future,
  regrowMs: skip,
  shrunkAt: skip,
  said: skip,
})

export const fillCore = filler<HostState>({
  node: skip,
  peer: skip,
  timing: skip,
  started: skip,
  startedAt: skip,
  boot: (row, _, s) => row.flag(confirmed(s)),
  nonce: skip,
  // On disk, see there: every write ends before the next event.
  durable: skip,
  persist: (row, persist) => row.flag(persist.done > 0),
  round: (row, round) => (round === null ? row.put(-1) : fillRound(row, round)),
  roundAfterAt: future,
  nSeen: (row, n) => row.put(row.rank(n)),
  req: skip,
  openGrow: ballot,
  acceptedAt: (row, at, s) =>
    (s.durable.acc?.ballot ?? 0) > (s.durable.known?.ballot ?? 0) ? row.past(at, t.resendMs * 2 + half) : row.put(-2),
  lease: (row, lease, s) => {
    fillLease(row, lease)
    row.put(Math.min(silenceMs(s, row.now), t.silenceMs) / half)
    const since = Math.max(lease.progressAt, lease.leaseUntil, lease.primaryAt)
    // Abdication counts only where there is no right to serve.
    row.put(rightToServe(s, row.now) === null ? Math.ceil(Math.min(row.now - since, t.abdicateAfterMs) / half) : -1)
  },
  backup: (row, backup) => fillBackup(row, backup),
  witness: (row, witness, s) => {
    fillWitness(row, witness)
    word(row, witnessReach(s, row.now))
  },
  gate: (row, gate) => fillGate(row, gate),
  vip: skip,
  servicesRunning: skip,
  database: (row, database) => fillDatabase(row, database),
  vacate: (row, vacate, s) => {
    if (vacate === null) return row.put(-1)
    fillVacate(row, vacate)
    row.flag((s.lease.ack?.seq ?? 0) > vacate.killedSeq)
  },
  duty: (row, duty, s) => {
    fillDuty(row, duty)
    row.put(isResigned(s) ? Math.ceil(Math.min(row.now - duty.resignedAt, t.abdicateAfterMs + half) / half) : -1)
  },
  uplink: flag,
})
