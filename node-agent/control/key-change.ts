import { randomBytes } from 'node:crypto'
import { rmSync } from 'node:fs'
import { z } from 'zod'
import { documentSigner, verifyDocument } from '../../shared/contract/signing.ts'
import { seal, unseal } from '../../shared/sealing.ts'
import type { Config } from '../config.ts'
import { type KeyAndCertificate, writeKeyAndCertificate } from '../keys/certificates.ts'
import { readSecret } from '../keys/secret-file.ts'
import { addKey, dropKey, readKeyRing } from '../pair/key-ring.ts'
import { tlsPaths } from '../pair/keys.ts'
import { writeWhole } from '../pair/setup-file.ts'
import { pairKeyBytes } from '../peer/session.ts'
import type { Identity } from './identity.ts'
import { offerFile } from './key-offer.ts'
import type { PairWish } from './wished-config.ts'

/**
 * New keys and certificates for a pair that serves. The host that goes first makes the pair's new key and offers it to the
 * other one: sealed to the key of that one's enrolment and signed with its own, as both signed wishes name them, so that
 * whoever knows the old key can neither read nor replace it. Each host gets a new certificate from the pair's authority.
 * Old and new are taken until both hosts use the new ones, or the change is taken back.
 */
export interface KeyChangePart {
  identity: Pick<Identity, 'host' | 'key' | 'sealingKey'>
  /** For this host, from the pair's authority. @throws with a sentence */
  certificate: (config: Config) => Promise<KeyAndCertificate>
}

interface Change {
  wish: PairWish
  /** Names it. */
  name: string
  /** Of the other host, which has the key already; null: this one goes first. */
  offer: string | null
  /** Where an earlier change is not at its end: the hosts talk by its key. */
  usesNewestKey: boolean
}

const offerSchema = z.object({ v: z.literal(1), pair: z.string(), change: z.string(), sealed: z.string().max(500) })
const before = '.before'

export class KeyChange {
  readonly #part: KeyChangePart

  constructor(part: KeyChangePart) {
    this.#part = part
  }

  /** Both keys are taken here from the agent's next start on. Again for the same change it changes nothing. @throws with a sentence */
  async begin(config: Config, { wish, name, offer, usesNewestKey }: Change): Promise<void> {
    const key = offer === null ? randomBytes(pairKeyBytes) : await this.#offered(offer, { wish, name })
    const made = config.postgres.tls === null ? await this.#part.certificate(config) : null
    if (usesNewestKey && readKeyRing(config.pairKeyFile).change?.name !== name)
      await dropKey(config.pairKeyFile, 'before')
    await addKey(config.pairKeyFile, { name, key })
    // What was made first counts, also where this was cut off in the middle.
    if (offer === null) await this.#write(config, { wish, name, key: readKeyRing(config.pairKeyFile).newest })
    if (made !== null) await replaceCertificate(config, made)
  }

  /** As before it. */
  async takeBack(config: Config): Promise<void> {
    await dropKey(config.pairKeyFile, 'newest')
    forget(offerFile(config.stateDir))
    const kept = keptCertificate(config)
    if (kept !== null) await writeKeyAndCertificate(tlsPaths(config), kept)
    forgetCertificate(config)
  }

  /** Both keys are still taken here. */
  isOpen(config: Config): boolean {
    return readKeyRing(config.pairKeyFile).change !== null
  }

  /** Both hosts use the new key: the one before goes. */
  async settle(config: Config): Promise<void> {
    await dropKey(config.pairKeyFile, 'before')
    forget(offerFile(config.stateDir))
    forgetCertificate(config)
  }

  async #write(config: Config, { wish, name, key }: { wish: PairWish; name: string; key: Buffer }): Promise<void> {
    const { host, key: own } = this.#part.identity
    const sealed = await seal(key.toString('base64url'), { to: wish.peer.sealingKey, purpose: purposeOf(wish, name) })
    const signer = await documentSigner(host, own)
    await writeWhole(
      offerFile(config.stateDir),
      await signer.sign('pairKey', { v: 1, pair: wish.id, change: name, sealed }),
    )
  }

  async #offered(offer: string, { wish, name }: Pick<Change, 'wish' | 'name'>): Promise<Buffer> {
    const verified = await verifyDocument(offer, 'pairKey', kid =>
      kid === wish.peer.host ? wish.peer.publicKey : null,
    )
    if (!verified.ok)
      throw new Error(`the new key of the pair was not signed by host ${wish.peer.name}: ${verified.why}`)
    const { pair, change, sealed } = offerSchema.parse(verified.payload)
    if (pair !== wish.id || change !== name)
      throw new Error(`host ${wish.peer.name} offers a key of change ${change}, and the wish is for ${name}`)
    const { sealingKey } = this.#part.identity
    const text = await unseal(sealed, { key: sealingKey, purpose: purposeOf(wish, name) })
    if (text === null) throw new Error('the new key of the pair was not sealed for this host')
    const key = Buffer.from(text, 'base64url')
    if (key.length === pairKeyBytes) return key
    throw new Error(`the new key of the pair has ${key.length} bytes, and not ${pairKeyBytes}`)
  }
}

const purposeOf = (wish: PairWish, name: string): string => `understudy-pair-key ${wish.id} ${name}`

/** Gone, whether it was there or not. */
const forget = (path: string): void => rmSync(path, { force: true })

/** The one before is kept beside it; where there is a kept one already, that is the one before. */
async function replaceCertificate(config: Config, made: KeyAndCertificate): Promise<void> {
  const paths = tlsPaths(config)
  const [key, certificate] = [readSecret(paths.key), readSecret(paths.certificate)]
  if (keptCertificate(config) === null && key !== null && certificate !== null)
    await writeKeyAndCertificate(
      { key: paths.key + before, certificate: paths.certificate + before },
      { keyPem: key.toString(), certificatePem: certificate.toString() },
    )
  await writeKeyAndCertificate(paths, made)
}

function keptCertificate(config: Config): KeyAndCertificate | null {
  const paths = tlsPaths(config)
  const [key, certificate] = [readSecret(paths.key + before), readSecret(paths.certificate + before)]
  if (key === null || certificate === null) return null
  return { keyPem: key.toString(), certificatePem: certificate.toString() }
}

function forgetCertificate(config: Config): void {
  const { key, certificate } = tlsPaths(config)
  for (const path of [certificate, key]) forget(path + before)
}
