import type { AdmitReply } from '../../shared/contract/witness.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import type { SigningKey } from '../../shared/signing.ts'
import type { Config, WitnessPlace } from '../config.ts'
import { hostKeyOf, hostKeysMax, makeHostKeyPem, pemsOf, readHostKeyText, writeHostKey } from '../keys/host-key.ts'
import { type CallResult, changeHostKeys, presentKeys, type WitnessCaller } from './admission.ts'
import { trustOf } from './connection.ts'

/**
 * A new key by which witnesses of one's own know this host, while it votes. At any moment this host, and the other one for
 * whoever joins in its place, holds every key that a witness may know it by: the new one is durable on both before the first
 * witness is told, and the one before stays. Who is refused by one of them signs by the next (client.ts), so a vote fails
 * neither in the middle nor after a crash at any step, and a change that was cut off is simply asked for again. The other
 * host's key is not touched. The generation of the keys at the witness keeps a request that comes late from counting.
 */
export interface HostKeyChange {
  config: Pick<Config, 'pair' | 'node' | 'witness' | 'hostKeyFile'>
  /** All keys of this host. @throws with a sentence where the other one does not have them then */
  tellOther: (text: string) => Promise<void>
}

/** Of the pair's witnesses those that know this host by its host key; a hosted one knows it by its enrolment. */
export function ownPlaces({ witness }: Pick<Config, 'witness'>): WitnessPlace[] {
  if (witness === null) return []
  return [witness, ...(witness.alternate === null ? [] : [witness.alternate])].filter(place => !place.hosted)
}

/** A witness, and how it is asked: by whichever of this host's keys it knows. */
interface Place {
  url: string
  caller: WitnessCaller
  keys: SigningKey[]
  /** This host's public key there before the change. */
  before: string
}

/** The other host's change may come between a question and what follows from it, and an answer may be lost. */
const triesMax = 2

/** @returns a sentence. @throws with a sentence that says how things are */
export async function changeHostKey({ config, tellOther }: HostKeyChange): Promise<string> {
  const { node, hostKeyFile } = config
  const wanted = ownPlaces(config)
  if (wanted.length === 0)
    throw new Error('no witness of this pair knows its hosts by their host keys; nothing was changed')
  const before = pemsOf(readHostKeyText(hostKeyFile))
  const places = await Promise.all(wanted.map(place => placeOf(config, place, before))).catch((error: unknown) => {
    throw new Error(`${sentenceOf(error)}; nothing was changed`)
  })
  const kept = await inUseFirst(before, new Set(places.map(place => place.before)))
  const pem = makeHostKeyPem()
  const { publicKey, signingKey } = await hostKeyOf(pem)
  for (const { keys } of places) keys.push(signingKey)
  const hold = async (pems: readonly string[]): Promise<void> => {
    await writeHostKey(hostKeyFile, pems.join(''))
    await tellOther(pems.join(''))
  }
  const told: Place[] = []
  try {
    await hold([...kept, pem])
    for (const place of places) {
      told.push(place)
      await tell(place, { node, publicKey })
    }
  } catch (error) {
    const left = await takenBack(told, node)
    if (left !== '')
      throw new Error(
        `${sentenceOf(error)}. Every key of this host is kept and used, and the change may be asked for again: ${left}`,
      )
    await hold(kept).catch(() => undefined)
    throw new Error(`${sentenceOf(error)}; the key of host ${node} is as it was`)
  }
  // Both have all of them already: this only says which one counts.
  await hold([pem, ...kept.slice(0, hostKeysMax - 1)]).catch(() => undefined)
  return `${places.map(place => place.url).join(' and ')} ${places.length === 1 ? 'knows' : 'know'} host ${node} by a new key; the one before opens nothing there any more`
}

/**
 * The other host is gone for good: a key in the place of its own, for whoever joins instead. What it had is kept beside until
 * every witness has taken that, so that one which joins meanwhile has whichever counts.
 *
 * @param part.before the other host's keys as they are kept here; '' where there are none
 * @param part.hold durable here when it resolves
 * @returns which witnesses know the lost host still, in a sentence, or ''
 */
export async function changeLostHostKey(part: {
  config: HostKeyChange['config']
  before: string
  hold: (text: string) => Promise<void>
}): Promise<string> {
  const { config, before, hold } = part
  const pem = makeHostKeyPem()
  const { publicKey } = await hostKeyOf(pem)
  const kept = before === '' ? [] : pemsOf(before).slice(0, hostKeysMax - 1)
  await hold([pem, ...kept].join(''))
  const pems = pemsOf(readHostKeyText(config.hostKeyFile))
  const left: string[] = []
  for (const at of ownPlaces(config)) {
    const told = placeOf(config, at, pems).then(place => tell(place, { node: otherNode(config.node), publicKey }))
    const why = await told.then(() => '', sentenceOf)
    if (why !== '') left.push(why)
  }
  if (left.length === 0) await hold(pem)
  return left.join('; ')
}

/** Whoever is known by a key that this host does not have can't change it. */
async function placeOf(config: HostKeyChange['config'], at: WitnessPlace, pems: readonly string[]): Promise<Place> {
  const keys = await Promise.all(pems.map(hostKeyOf))
  const signing = keys.map(key => key.signingKey)
  const caller: WitnessCaller = {
    address: { url: at.url, trust: trustOf(at) },
    pair: config.pair,
    host: config.node,
    signingKey: signing[0]!,
    otherKeys: async () => signing.slice(1),
  }
  const known = present(at.url, await presentKeys(caller)).keys[config.node]
  if (known !== undefined && keys.some(key => key.publicKey === known))
    return { url: at.url, caller, keys: signing, before: known }
  throw new Error(`the witness ${at.url} knows host ${config.node} by a key that this host does not have`)
}

/** What a witness knows, then what it knew: a former one may know the host by the latter. */
async function inUseFirst(pems: readonly string[], inUse: ReadonlySet<string>): Promise<string[]> {
  const keys = await Promise.all(pems.map(async pem => ({ pem, isUsed: inUse.has((await hostKeyOf(pem)).publicKey) })))
  const sorted = [...keys.filter(key => key.isUsed), ...keys.filter(key => !key.isUsed)]
  return sorted.map(({ pem }) => pem).slice(0, hostKeysMax - 1)
}

/** @throws with a sentence; whether it was taken is not known then */
async function tell({ url, caller }: Place, part: { node: 'a' | 'b'; publicKey: string }): Promise<void> {
  let why = ''
  for (let tries = 0; tries < triesMax; tries++) {
    const { inc, keysGeneration, keys } = present(url, await presentKeys(caller))
    const generation = keysGeneration + 1
    const answer = await changeHostKeys(caller, { inc, generation, keys: { ...keys, [part.node]: part.publicKey } })
    if (answer.ok) return
    why = answer.why
  }
  throw new Error(`the witness ${url} did not take ${part.publicKey} as the key of host ${part.node}: ${why}`)
}

/** Written again also where it was not taken: a request that is still on its way is of a generation that is over then. */
async function takenBack(places: readonly Place[], node: 'a' | 'b'): Promise<string> {
  const left: string[] = []
  for (const place of places) {
    const why = await tell(place, { node, publicKey: place.before }).then(() => '', sentenceOf)
    if (why !== '') left.push(why)
  }
  return left.join('; ')
}

function present(url: string, answer: CallResult<AdmitReply>): AdmitReply {
  if (answer.ok) return answer.reply
  throw new Error(`the witness ${url} does not say by which keys it knows this pair: ${answer.why}`)
}

const sentenceOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
