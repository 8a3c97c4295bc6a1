import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { type HostKeys, publicKey } from '../../shared/contract/witness.ts'
import type { AdmittedWitness, Config, WitnessConfig, WitnessPlace } from '../config.ts'
import { witnessKeysOf } from '../drivers/witness-port.ts'
import { readSetup, writeWhole } from '../pair/setup-file.ts'
import { admitPair, askOnce, type WitnessCaller } from './admission.ts'
import { trustOf } from './connection.ts'

/**
 * Another witness for a pair that runs: it admits the pair before anything else is changed, which also shows that it is
 * reached from here. The host that changes first asks for the admission; the other one takes the incarnation from it.
 */
const nonceFile = 'witness-admission.json'
const nonceSchema = z.object({ v: z.literal(1), of: z.string(), nonce: z.string() })

export const placeOf = ({ url, fingerprint, hosted }: WitnessPlace): WitnessPlace => ({ url, fingerprint, hosted })
export const samePlace = (one: WitnessPlace | null, other: WitnessPlace | null): boolean =>
  one === null || other === null
    ? one === other
    : one.url === other.url && one.fingerprint === other.fingerprint && one.hosted === other.hosted

/** The witnesses that have admitted this pair and stand in its configuration, the one in use first. */
export function admittedOf({ witness, stateDir }: Pick<Config, 'witness' | 'stateDir'>): AdmittedWitness[] {
  if (witness === null) return []
  const inc = witness.inc ?? readSetup(stateDir)?.witnessInc ?? null
  const first = inc === null ? [] : [{ ...placeOf(witness), inc }]
  return [...first, ...(witness.alternate === null ? [] : [witness.alternate])]
}

/** What a witness is to be; an incarnation is found for it. */
export interface WantedWitnesses {
  first: WitnessPlace
  alternate: WitnessPlace | null
  awayS: number
  /** Names this admission, so that it is asked for once: an incarnation that has a vote is taken as it is only without. */
  anew: string | null
}

export interface Admission {
  config: Config
  /** Whether the register has the alternate now. */
  inUse: 'first' | 'alternate'
  /** Of the other host, which has taken them already; [] where this one is the first. */
  taken: readonly AdmittedWitness[]
  /** By which the witness will know the other host; null: not known. */
  otherKey: (place: WitnessPlace) => string | null
  enrolmentToken: () => string | null
}

/** @throws with a sentence; nothing of this host was changed then */
export async function admittedWitnesses(wanted: WantedWitnesses, by: Admission): Promise<WitnessConfig> {
  const { first, alternate, awayS, anew } = wanted
  if (alternate !== null && samePlace(first, alternate))
    throw new Error(`arbitration.alternate is ${alternate.url}, the witness itself: name one on another machine`)
  const present = admittedOf({ witness: by.config.witness, stateDir: by.config.stateDir })
  // The one before may be the witness still: named again it is as it was, and a new admission would end its vote at once.
  const former = by.config.witness?.former ?? null
  const had = former === null ? present : [...present, former]
  const chosen = await admitted(first, { ...by, had, anew })
  const other = alternate === null ? null : await admitted(alternate, { ...by, had: present, anew: null })
  const before = by.inUse === 'alternate' ? by.config.witness?.alternate : present[0]
  const replaced = before !== undefined && before !== null && before.inc !== chosen.inc && before.inc !== other?.inc
  return { ...chosen, awayS, alternate: other, former: replaced ? before : null }
}

async function admitted(
  place: WitnessPlace,
  by: Admission & { had: readonly AdmittedWitness[]; anew: string | null },
): Promise<AdmittedWitness> {
  const { config, taken, had, anew } = by
  const keys = await witnessKeysOf(config, place)
  const own = keys[0]!
  const caller = {
    address: { url: place.url, trust: trustOf(place) },
    pair: config.pair,
    host: config.node,
    signingKey: own.signingKey,
    otherKeys: async () => keys.slice(1).map(key => key.signingKey),
  }
  const theirs = taken.find(one => samePlace(one, place))
  if (theirs !== undefined) return { ...placeOf(place), inc: await proven(caller, theirs.inc) }
  const known = anew === null ? had.find(one => samePlace(one, place)) : undefined
  // Kept also while it is away: it is no new one. An incarnation that will never vote again is of no use.
  if (known !== undefined && (await standingOf(caller, known.inc)) !== 'void') return known
  const otherKey = by.otherKey(place)
  if (otherKey === null)
    throw new Error('the key of the other host is not known here: it has to be heard, and run this version, first')
  const both = config.node === 'a' ? { a: own.publicKey, b: otherKey } : { a: otherKey, b: own.publicKey }
  const inc = await admissionOf(caller, { keys: both, token: by.enrolmentToken(), stateDir: config.stateDir, anew })
  return { ...placeOf(place), inc: await proven(caller, inc) }
}

async function admissionOf(
  caller: WitnessCaller,
  part: { keys: HostKeys; token: string | null; stateDir: string; anew: string | null },
): Promise<string> {
  const of = `${caller.address.url} ${part.anew ?? ''}`
  const nonce = await nonceFor(part.stateDir, of)
  const ask = (replaces: string | null) =>
    admitPair(caller, { request: { nonce, replaces, keys: part.keys }, enrolmentToken: part.token })
  let answer = await ask(null)
  // It knew this pair before; who signs is a host of it.
  if (!answer.ok && answer.present !== undefined) answer = await ask(answer.present)
  if (answer.ok) return answer.reply.inc
  throw new Error(`the witness ${caller.address.url} does not admit pair ${caller.pair}: ${answer.why}`)
}

/** Kept before it is sent: asked again after a crash it is the same admission. */
async function nonceFor(stateDir: string, of: string): Promise<string> {
  const path = join(stateDir, nonceFile)
  try {
    const kept = nonceSchema.parse(JSON.parse(existsSync(path) ? readFileSync(path, 'utf8') : ''))
    if (kept.of === of) return kept.nonce
  } catch {
    // None, or of another admission.
  }
  const nonce = randomBytes(24).toString('base64url')
  await writeWhole(path, `${JSON.stringify({ v: 1, of, nonce })}\n`)
  return nonce
}

/** Once it is done the next one is another. */
export const forgetAdmission = (stateDir: string): Promise<void> =>
  existsSync(join(stateDir, nonceFile))
    ? writeWhole(join(stateDir, nonceFile), `${JSON.stringify({ v: 1, of: '', nonce: '' })}\n`)
    : Promise.resolve()

async function standingOf(caller: WitnessCaller, inc: string): Promise<'votes' | 'empty' | 'void' | 'away'> {
  const answer = await askOnce(caller, { kind: 'read', req: 1, inc })
  if (!answer.ok) return 'away'
  if (answer.reply.kind !== 'none') return 'votes'
  return answer.reply.standing ?? 'empty'
}

/** Reached from this host, by its own key, and an acceptor of this pair. @throws with a sentence */
async function proven(caller: WitnessCaller, inc: string): Promise<string> {
  const answer = await askOnce(caller, { kind: 'read', req: 1, inc })
  if (!answer.ok) throw new Error(`the witness ${caller.address.url} is not reached from this host: ${answer.why}`)
  const { reply } = answer
  if (reply.kind === 'none' && reply.standing === 'void')
    throw new Error(`the witness ${caller.address.url} has no vote for this pair: ${reply.why}`)
  return inc
}

/** What one host tells the other of its witnesses. */
export const saidWitnesses = z
  .array(
    z.object({
      url: z.string().max(500),
      fingerprint: z.string().max(64).nullable(),
      hosted: z.boolean(),
      inc: z.string().max(64),
    }),
  )
  .max(4)
export const saidHostKey = publicKey.nullable()
