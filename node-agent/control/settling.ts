import { pairSettings } from '../../shared/contract/api/settings.ts'
import type { AppliedWish, WishedFields } from '../applied-wish.ts'
import type { Config, PeerPath } from '../config.ts'
import type { OwnSettings } from '../peer-news.ts'
import type { StatusReport } from '../report/status-report.ts'
import { placeOf } from '../witness/places.ts'
import { overlapping, type PairWish, wantedWitnesses, wholeFields } from './wished-config.ts'

/** What is looked at while both hosts take new settings, and what of those before stays until both have them. */
const heardMs = 5_000
const pathHeardMs = 3_000

export const isHeard = ({ peer }: StatusReport): boolean => peer.heardAgoMs !== null && peer.heardAgoMs < heardMs

/** Well with settings that are tried here: it serves as before, or hears whoever does; a new witness has answered. */
export function isWell(here: StatusReport, { fields, previous }: AppliedWish): boolean {
  if (here.role !== 'primary') return here.role === 'backup' && isHeard(here)
  if (!here.serving || JSON.stringify(fields.witness) === JSON.stringify(previous?.fields.witness)) return here.serving
  const { witness } = here
  return witness === null || (witness.isMember && witness.reach === 'yes' && witness.answeredAgoMs !== null)
}

/** A set-up begins without it, and an agent before this version did not know it. */
export function lacksAlternate(wish: PairWish, { witness }: Config): boolean {
  const wanted = wantedWitnesses(wish)
  return wanted.ok && (wanted.value?.alternate ?? null) !== null && witness !== null && witness.alternate === null
}

interface Paths {
  paths: PeerPath[]
}

/** The addresses of the hosts as the settings have them, without those before. */
export function peerOf(wish: PairWish, { settings }: Pick<AppliedWish, 'settings'>): Paths {
  const none = { witness: { kind: 'none' as const }, alternate: null }
  const rendered = wholeFields({ ...wish, settings: { ...pairSettings.parse(settings), arbitration: none } }, {})
  if (!rendered.ok) throw new Error(rendered.why)
  return rendered.fields.peer as Paths
}

/** With those before beside them. */
export const pathsOf = ({ peer }: WishedFields, { peer: before }: Config): Paths => ({
  paths: overlapping(before.paths, (peer as Paths).paths),
})

/** By one of these paths, both ways. */
export const talksBy = (here: StatusReport, { paths }: Paths): boolean =>
  here.peer.paths.some(
    ({ local, peer, heardMs, roundTripMs }) =>
      heardMs !== null &&
      heardMs < pathHeardMs &&
      roundTripMs !== null &&
      paths.some(path => path.local === local && path.peer === peer),
  )

/** Against those that this host would go back to. */
export function changesKeys({ settings, previous }: AppliedWish): boolean {
  const before = pairSettings.safeParse(previous?.settings)
  return before.success && before.data.keyChange !== pairSettings.parse(settings).keyChange
}

/**
 * Both hosts trust a new authority beside the one before: certificates of it are given to one host after the other, the
 * backup first, and the one before is let go once each shows one. Whoever has none yet may go back by itself.
 */
export function certifying(part: {
  /** Fingerprint of the new one. */
  wanted: string
  hash: string
  role: StatusReport['role']
  theirs: OwnSettings | null
}): { may: boolean; waits: string | null } {
  const { wanted, hash, role, theirs } = part
  if (theirs === null || theirs.hash !== hash || !theirs.authorities.taken.includes(wanted))
    return { may: false, waits: 'the other host does not say that it trusts the new authority' }
  const isTheirs = theirs.authorities.shown === wanted
  const waits = isTheirs ? null : 'the other host shows no certificate of the new authority'
  return { may: isTheirs || role !== 'primary', waits }
}

/**
 * The database of this host does not have the certificates that its agent should have begun anew with: whoever was to tell
 * it was killed in that moment, or not heard. Once a minute at most, and not where no database runs that could take them.
 */
export function mayTellAgain(here: StatusReport, nowMs: number): boolean {
  const upMs = nowMs - Date.parse(here.agent.startedAt)
  return ['standby', 'primary'].includes(here.replication.process) && upMs > startedAgainMs
}
const startedAgainMs = 60_000

type InForce = NonNullable<AppliedWish['previous']>

/**
 * The settings that this host would go back to. From another witness that is the one before, with the other one as the
 * former: the register has that until the pair has let it go, and without it one more fault would stop the service.
 */
export function wayBack({ applied, config, next }: { applied: AppliedWish; config: Config; next: Config }): InForce {
  const { hash, settings, fields } = applied
  // Back to what both hosts had, not to what the other one has not taken yet.
  const previous = applied.previous ?? { hash, settings, fields }
  const { witness } = next
  if (witness === null || witness.inc === null || witness.inc === config.witness?.inc) return previous
  const before = previous.fields.witness ?? (applied.previous === null ? config.witness : null)
  if (typeof before !== 'object' || before === null) return previous
  const former = { ...placeOf(witness), inc: witness.inc }
  return { ...previous, fields: { ...previous.fields, witness: { ...before, former } } }
}
