import { toBase64url } from '../../shared/signing.ts'

/** Told from other texts at a glance, also by those who search logs and repositories for secrets. */
export const tokenPrefix = 'understudy_'
const tokenBytes = 32

export const newToken = (): string => tokenPrefix + newSecret()
/** 256 bits of chance, base64url. */
export const newSecret = (): string => toBase64url(crypto.getRandomValues(new Uint8Array(tokenBytes)))

export async function hashOf(secret: string): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(secret)))
}
