import { acceptedValue, inDoubt, isBackup, isOlder, knownValue, logIsWhole, peerVoter } from './facts.ts'
import { beginRound } from './proposer.ts'
import { backoff, say, sayStanding, send, type Turn } from './turn.ts'
import type { Resign } from './types.ts'

/**
 * S's side: it waits out its promise and the quarantine of a start, then stands. While a candidacy is open it
 * acknowledges nothing; it closes when no proposal of this host is in doubt any more: won, or refused by a quorum.
 */
export function onResign(turn: Turn, resign: Resign): void {
  const { s } = turn
  const known = knownValue(s)
  if (known === null || known.primary !== s.peer) return
  if (known.gen !== resign.gen || known.epoch !== resign.epoch || isOlder(resign, known)) return
  if (s.backup.resignHeard === resign.version) return
  say(turn, `heard that ${s.peer} resigned from version ${resign.version}`)
  s.backup = { ...s.backup, resignHeard: resign.version, candidacyAfterAt: 0 }
}

/**
 * A primary that lost everybody fell silent, and waits for a word of this host: it gets one while this host waits out
 * its start, so that it goes on before anybody stands. A plain read, since that promises and changes nothing.
 */
export function driveGreeting(turn: Turn): void {
  const { s, now } = turn
  const inc = peerVoter(s)
  const starts = isBackup(s) && s.backup.heartbeat === null && now < s.backup.quarantineUntil
  if (inc === null || (!starts && !s.lease.abdicated)) return
  if (s.backup.greetedAt > 0 && now - s.backup.greetedAt < (starts ? s.timing.heartbeatMs : s.timing.leaseMs)) return
  s.backup = { ...s.backup, greetedAt: now }
  s.req += 1
  send(turn, s.peer, { kind: 'read', req: s.req, inc })
}

export function driveCandidacy(turn: Turn): void {
  const { s, now } = turn
  if (s.round !== null || now < s.roundAfterAt) return
  if (s.backup.candidacy && !inDoubt(s)) s.backup = { ...s.backup, candidacy: false }
  if (!isBackup(s)) return
  const obstacle = candidacyObstacle(turn)
  sayStanding(turn, 'candidacy', obstacle?.alarm === true ? `does not stand for primary: ${obstacle.why}` : '')
  if (obstacle !== null) return
  const { resignHeard } = s.backup
  s.backup = { ...s.backup, candidacy: true, candidacyAfterAt: backoff(turn, s.timing.leaseMs) }
  beginRound(turn, { change: 'takeover', ground: resignHeard !== 0 ? 'resigned' : 'lease over', resigned: resignHeard })
}

/** What keeps S from standing. The first ones are the calm course of things, an alarm is a case for people. */
function candidacyObstacle(turn: Turn): { why: string; alarm: boolean } | null {
  const { s, now } = turn
  const calm = (why: string) => ({ why, alarm: false })
  const { backup } = s
  if (acceptedValue(s)?.voters[s.node] !== s.durable.inc) return calm('this store is not admitted')
  if (now < backup.quarantineUntil) return calm('it waits after its start')
  // An open candidacy that is still in doubt is driven on at once; a new one keeps its distance from the last.
  if (!backup.candidacy && now < backup.candidacyAfterAt) return calm('it stood a moment ago')
  if (backup.resignHeard === 0) {
    if (now < backup.promiseUntil) return calm('it promised to wait')
    if (backup.heartbeat !== null && now < backup.heardAt + s.timing.leaseMs) return calm('the primary is heard')
  }
  if (s.duty.leaving !== 'no') return calm('it is leaving')
  // It could not be started: the office would be held by a host that cannot serve.
  if (s.database.view.ioError) return { why: 'its volume returned an I/O error', alarm: true }
  if (logIsWhole(s)) return null
  const { end } = s.database.view
  const had = s.durable.maxFlushed
  return {
    why: `its log ends at ${end.timeline}/${end.lsn}, but it acknowledged ${had.timeline}/${had.lsn}`,
    alarm: true,
  }
}
