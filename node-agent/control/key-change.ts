import { randomBytes, X509Certificate } from 'node:crypto'
import { rmSync } from 'node:fs'
import { z } from 'zod'
import { documentSigner, verifyDocument } from '../../shared/contract/signing.ts'
import { seal, unseal } from '../../shared/sealing.ts'
import type { Config } from '../config.ts'
import { fingerprintOf, type KeyAndCertificate, writeKeyAndCertificate } from '../keys/certificates.ts'
import { readSecret } from '../keys/secret-file.ts'
import {
  authoritiesInForce,
  forgetNextAuthority,
  isCertifiedBy,
  readNextAuthority,
  settleNextAuthority,
  trustNextAuthority,
} from '../pair/authority.ts'
import { addKey, dropKey, readKeyRing } from '../pair/key-ring.ts'
import { certificateBy, keptSuffix, tlsPaths } from '../pair/keys.ts'
import { writeWhole } from '../pair/setup-file.ts'
import { pairKeyBytes } from '../peer/session.ts'
import type { Identity } from './identity.ts'
import { offerFile } from './key-offer.ts'
import type { PairWish } from './wished-config.ts'

/**
 * New keys, another authority and new certificates for a pair that serves. The host that goes first makes the pair's new key
 * and the authority and offers them to the other one: sealed to the key of that one's enrolment and signed with its own, as
 * both signed wishes name them, so that whoever knows the old ones can neither read nor replace them.
 *
 * Old and new are taken from the beginning on (`begin`); once both hosts take both, each gets a certificate of the new
 * authority (`certify`), the backup first; once both show theirs and talk by the new key, the old ones go (`settle`). Until
 * then the change is taken back by either host alone: the old key and certificate are in force again, and the new authority
 * stays trusted until the next change, as the other host may still show a certificate of it.
 */
export interface KeyChangePart {
  identity: Pick<Identity, 'host' | 'key' | 'sealingKey'>
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

const offerSchema = z.object({ v: z.literal(2), pair: z.string(), change: z.string(), sealed: z.string().max(5000) })
/** What is sealed. `authority`: null where certificates are the operator's own. */
const secretsSchema = z.object({
  key: z.string().max(100),
  authority: z.object({ keyPem: z.string().max(1000), certificatePem: z.string().max(2000) }).nullable(),
})
type Secrets = z.output<typeof secretsSchema>

export class KeyChange {
  readonly #part: KeyChangePart

  constructor(part: KeyChangePart) {
    this.#part = part
  }

  /** Both keys are taken here from the agent's next start on. Again for the same change it changes nothing. @throws with a sentence */
  async begin(config: Config, { wish, name, offer, usesNewestKey }: Change): Promise<void> {
    const offered = offer === null ? null : await this.#offered(offer, { wish, name })
    const key = offered === null ? randomBytes(pairKeyBytes) : offered.key
    const given = offered?.authority ?? null
    // A host with certificates of its own has nothing to make another one's from.
    const isOwn = config.postgres.tls !== null || (offered !== null && given === null)
    const authority = isOwn ? null : await trustNextAuthority(config, { change: name, given })
    if (usesNewestKey && readKeyRing(config.pairKeyFile).change?.name !== name)
      await dropKey(config.pairKeyFile, 'before')
    await addKey(config.pairKeyFile, { name, key })
    // What was made first counts, also where this was cut off in the middle.
    const { newest } = readKeyRing(config.pairKeyFile)
    if (offer === null)
      await this.#write(config, { wish, name, secrets: { key: newest.toString('base64url'), authority } })
  }

  /** The fingerprint of the authority whose certificate each host has to show before the old one goes; null: of none. */
  nextAuthority(config: Config): string | null {
    const next = readNextAuthority(config)
    return next === null ? null : fingerprintOf(new X509Certificate(next.certificatePem))
  }

  isCertified(config: Config): boolean {
    const next = readNextAuthority(config)
    return next !== null && isCertifiedBy(next, config)
  }

  /** What the files say, this host's database takes and shows. */
  isInForce(config: Config): boolean {
    const next = this.nextAuthority(config)
    const { shown, taken } = authoritiesInForce(config)
    return next !== null && taken.includes(next) && (shown === next || !this.isCertified(config))
  }

  /** Once both hosts trust it. False: this host has a certificate of it, in force from its last start on. */
  async certify(config: Config): Promise<boolean> {
    const next = readNextAuthority(config)
    if (next === null || isCertifiedBy(next, config)) return false
    await replaceCertificate(config, await certificateBy(config, next))
    return true
  }

  /** As before it. */
  async takeBack(config: Config): Promise<void> {
    await dropKey(config.pairKeyFile, 'newest')
    forget(offerFile(config.stateDir))
    const kept = keptCertificate(config)
    if (kept !== null) await writeKeyAndCertificate(tlsPaths(config), kept)
    forgetCertificate(config)
    forgetNextAuthority(config)
  }

  /** Both keys are still taken here. */
  isOpen(config: Config): boolean {
    return readKeyRing(config.pairKeyFile).change !== null
  }

  /** Both hosts use the new ones: those before go. */
  async settle(config: Config): Promise<void> {
    await settleNextAuthority(config)
    await dropKey(config.pairKeyFile, 'before')
    forget(offerFile(config.stateDir))
    forgetCertificate(config)
  }

  async #write(config: Config, part: { wish: PairWish; name: string; secrets: Secrets }): Promise<void> {
    const { wish, name, secrets } = part
    const { host, key: own } = this.#part.identity
    const sealed = await seal(JSON.stringify(secrets), { to: wish.peer.sealingKey, purpose: purposeOf(wish, name) })
    const signer = await documentSigner(host, own)
    await writeWhole(
      offerFile(config.stateDir),
      await signer.sign('pairKey', { v: 2, pair: wish.id, change: name, sealed }),
    )
  }

  async #offered(
    offer: string,
    { wish, name }: Pick<Change, 'wish' | 'name'>,
  ): Promise<Pick<Secrets, 'authority'> & { key: Buffer }> {
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
    const { authority, ...secrets } = secretsSchema.parse(JSON.parse(text))
    const key = Buffer.from(secrets.key, 'base64url')
    if (key.length === pairKeyBytes) return { key, authority }
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
      { key: paths.key + keptSuffix, certificate: paths.certificate + keptSuffix },
      { keyPem: key.toString(), certificatePem: certificate.toString() },
    )
  await writeKeyAndCertificate(paths, made)
}

function keptCertificate(config: Config): KeyAndCertificate | null {
  const paths = tlsPaths(config)
  const [key, certificate] = [readSecret(paths.key + keptSuffix), readSecret(paths.certificate + keptSuffix)]
  if (key === null || certificate === null) return null
  return { keyPem: key.toString(), certificatePem: certificate.toString() }
}

function forgetCertificate(config: Config): void {
  const { key, certificate } = tlsPaths(config)
  for (const path of [certificate, key]) forget(path + keptSuffix)
}
