import { z } from 'zod'
import { hostKeysProof } from '../../shared/contract/documents.ts'
import { readSecret, writeSecret } from '../keys/secret-file.ts'
import { Cloud, type CloudOptions } from './cloud.ts'
import { type HostKeyPair, hostKeysSchema, type Identity, newHostKeys, signText, writeIdentity } from './identity.ts'
import type { RunOutcome } from './session.ts'

/**
 * New keys in the place of those that this host enrolled with. There are never fewer than the ones that the control plane
 * knows: the new ones are durable here before it is told of them, and the ones before stay aside afterwards. Where an
 * answer was lost, or the control plane came back from a backup, the host is refused by one pair of keys and goes on with
 * the other. Who holds the identity of this process signs with the new ones from its next request on; the core, which
 * signs the votes of a hosted witness, from its next start on.
 */
export interface HostKeysPart {
  /** Renewed in place. */
  identity: Identity
  /** Of its file. */
  path: string
  cloud?: CloudOptions
}

const asideSchema = hostKeysSchema.extend({ v: z.literal(1) })

export class HostKeys {
  readonly #part: HostKeysPart

  constructor(part: HostKeysPart) {
    this.#part = part
  }

  /** Never throws. `done`: they are in use. */
  async change(operation: string): Promise<RunOutcome> {
    const { identity } = this.#part
    try {
      const next = newHostKeys()
      await this.#setAside(next)
      const { host } = identity
      const named = { host, operation, publicKey: next.key.x, sealingKey: next.sealingKey.x }
      const proof = await signText(next.key, hostKeysProof(named))
      const { publicKey, sealingKey } = named
      const told = await this.#cloudOf(identity).keys({ operation, publicKey, sealingKey, proof })
      if (!told.ok && !(await this.#isKnown(next)))
        return told.status === null
          ? {
              phase: 'failed',
              message: `whether the new keys were taken is not known (${told.why}): those that count are found out`,
            }
          : { phase: 'refused', message: `the keys are as they were: ${told.why}` }
      await this.#use(next)
      return { phase: 'done', message: 'this host has new keys; those before open nothing any more' }
    } catch (error) {
      return { phase: 'failed', message: error instanceof Error ? error.message : String(error) }
    }
  }

  /** This host is refused by the keys in use. @returns whether it goes on with those that lay aside */
  async tryAside(): Promise<boolean> {
    const aside = this.#readAside()
    if (aside === null || aside.key.x === this.#part.identity.key.x || !(await this.#isKnown(aside))) return false
    await this.#use(aside)
    return true
  }

  /** In use first, then the others aside: cut off between the two, this host has what counts. */
  async #use(keys: HostKeyPair): Promise<void> {
    const { identity, path } = this.#part
    const before = { key: identity.key, sealingKey: identity.sealingKey }
    await writeIdentity(path, { ...identity, ...keys })
    Object.assign(identity, keys)
    await this.#setAside(before)
  }

  /** The first answer also tells the time there, without which no signature counts. */
  async #isKnown(keys: HostKeyPair): Promise<boolean> {
    const cloud = this.#cloudOf({ ...this.#part.identity, ...keys })
    return (await cloud.pull()).ok || (await cloud.pull()).ok
  }

  #cloudOf(identity: Identity): Cloud {
    return new Cloud(identity, this.#part.cloud ?? {})
  }

  get #asidePath(): string {
    return `${this.#part.path}.aside`
  }

  #setAside({ key, sealingKey }: HostKeyPair): Promise<void> {
    return writeSecret(this.#asidePath, Buffer.from(`${JSON.stringify({ v: 1, key, sealingKey })}\n`))
  }

  /** null: none, or damaged. */
  #readAside(): HostKeyPair | null {
    try {
      const bytes = readSecret(this.#asidePath)
      if (bytes === null) return null
      const { key, sealingKey } = asideSchema.parse(JSON.parse(bytes.toString()))
      return { key, sealingKey }
    } catch {
      return null
    }
  }
}
