import { createHash, timingSafeEqual } from 'node:crypto'
import type { HostKeys } from '../../shared/contract/witness.ts'
import { importPublicKey, type SignedRequest, type SigningKey, verifyRequest } from '../../shared/signing.ts'

/** Who may do what: hosts by their signature, people by a token. */
export class Authority {
  /** Importing a key costs as much as a signature. Bounded by forgetting all: two keys for each pair come back soon. */
  readonly #imported = new Map<string, SigningKey>()

  async signedBy(keys: HostKeys, request: SignedRequest, signature: string): Promise<boolean> {
    const text = keys[request.host]
    if (text === undefined) return false
    const key = await this.#import(text)
    return key !== null && verifyRequest(key, request, signature)
  }

  async #import(text: string): Promise<SigningKey | null> {
    const present = this.#imported.get(text)
    if (present !== undefined) return present
    const key = await importPublicKey(text)
    if (this.#imported.size >= importedMax) this.#imported.clear()
    if (key !== null) this.#imported.set(text, key)
    return key
  }
}

const importedMax = 20_000

/** Compares in constant time. */
export function sameToken(given: string | undefined, token: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  return given !== undefined && timingSafeEqual(digest(given), digest(token))
}
