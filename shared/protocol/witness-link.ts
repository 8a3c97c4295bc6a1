import { isBackup, isPrimary, withSeen, witnessLateMs, witnessReach, witnessRetryMs, witnessVoter } from './facts.ts'
import { endAbdication } from './lease.ts'
import { persist, say, sayStanding, send, type Turn } from './turn.ts'
import type { Incarnation, RegisterReply } from './types.ts'

/**
 * What a data host knows of W: a plain read every 10 s, jittered, in calm; each second while it does not answer.
 * A healthy pair costs W nothing else.
 */
export function driveWitness(turn: Turn): void {
  const { s, now } = turn
  const { witness } = s
  if (witness.wanted === null || now < witness.probeAt) return
  s.req += 1
  const unansweredAt = witness.probeReq !== 0 && witness.unansweredAt === 0 ? now : witness.unansweredAt
  s.witness = {
    ...witness,
    probeReq: s.req,
    // Its answer puts the next one off.
    probeAt: now + witnessRetryMs,
    unansweredAt,
  }
  sendProbe(turn, s.req, witnessVoter(s) ?? witness.wanted)
}

/**
 * A plain Read; but a witness that was admitted by the two data hosts alone, while it did not answer, is still empty and
 * would ignore it for ever: it gets the committed value once more, which is what its admission had sent it.
 */
function sendProbe(turn: Turn, req: number, inc: Incarnation): void {
  const { known, wSeen } = turn.s.durable
  if (known !== null && known.value.voters.w === inc && wSeen[inc] === undefined) {
    send(turn, 'w', { kind: 'accept', req, inc, ballot: known.ballot, value: known.value })
  } else send(turn, 'w', { kind: 'read', req, inc })
}

/** Any answer of W shows that it is there. False: it answered lower than before, so it was rolled back, and has no vote. */
export function onWitnessAnswer(turn: Turn, reply: RegisterReply): boolean {
  const { s, now } = turn
  const seen = s.durable.wSeen[reply.inc] ?? 0
  const shows =
    reply.kind === 'promise' || reply.kind === 'state'
      ? (reply.acc?.ballot ?? 0)
      : reply.kind === 'accepted'
        ? reply.ballot
        : seen
  if (shows < seen) {
    // Asked before W was heard with more, so it may have been answered before, too: no vote, but no sign of a roll-back.
    if (reply.req <= s.witness.seenReq) return false
    sayStanding(
      turn,
      'witness',
      `the witness answered ballot ${shows} after ${seen}: it was rolled back and has no vote`,
    )
    return false
  }
  sayStanding(turn, 'witness', '')
  const isProbe = reply.req === s.witness.probeReq && reply.kind !== 'promise'
  if (shows > seen && (reply.kind !== 'accepted' || isProbe)) persist(turn, { wSeen: withSeen(s, reply.inc, shows) })
  const wasAway = s.witness.unansweredAt > 0 && now - s.witness.unansweredAt > witnessLateMs
  s.witness = {
    ...s.witness,
    answeredAt: now,
    seenReq: shows > seen ? s.req : s.witness.seenReq,
    unansweredAt: 0,
    probeReq: isProbe ? 0 : s.witness.probeReq,
    probeAt: Math.max(s.witness.probeAt, isProbe ? now + s.timing.witnessProbeMs * (0.75 + turn.random / 4) : 0),
    backAt: wasAway || s.witness.backAt === 0 ? now : s.witness.backAt,
  }
  if (reply.kind === 'state') endAbdication(turn, 'the witness answers')
  return true
}

/** W has been away for P for the pin delay, and S does not say that it reaches it. */
export function witnessIsAway(turn: Turn): boolean {
  const { s, now } = turn
  const { witness, lease } = s
  if (witnessVoter(s) === null || witness.unansweredAt === 0) return false
  return now - witness.unansweredAt > s.timing.pinAfterMs && lease.ack?.witness !== 'yes'
}

/** The pin is undone when both hosts have reached W without a break for long enough. */
export function considerUnpin(turn: Turn): void {
  const { s, now } = turn
  if (!s.witness.pinned) return
  if (!isPrimary(s)) {
    if (isBackup(s)) s.witness = { ...s.witness, pinned: false }
    return
  }
  const both = witnessReach(s, now) === 'yes' && s.lease.ack?.witness === 'yes'
  if (!both) {
    s.witness = { ...s.witness, backAt: now }
    return
  }
  if (now - s.witness.backAt < s.timing.unpinAfterMs) return
  s.witness = { ...s.witness, pinned: false }
  say(
    turn,
    `the witness has been reached by both hosts for ${s.timing.unpinAfterMs} ms: the pair may have a successor again`,
  )
}
