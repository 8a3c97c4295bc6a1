import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Heartbeat } from './report.ts'

/**
 * Heartbeats pass through a broker that nobody trusts, and there are thousands a second: a MAC costs a thirtieth of a
 * signature. The key is the host's own, made of one secret of the control plane, so that nothing has to be kept for
 * it; the host gets it with its documents, sealed, so that whoever hears those on a way without TLS has no key. (Node's module is there under Deno and on Workers too.)
 */
type Unsealed = Omit<Heartbeat, 'mac'>

/** 128 bits: a forger has one try for each message, and no way to test one without sending it. */
const macBytes = 16
const purpose = {
  secret: 'understudy-heartbeat-secret-1',
  key: 'understudy-heartbeat-key-1',
  mac: 'understudy-heartbeat-1',
}

const hmac = (key: string | Uint8Array, text: string): Buffer => createHmac('sha256', key).update(text).digest()

/** Of the private signing key: whoever holds that one can make every document, so this gives him nothing more. */
export const heartbeatSecretOf = (signingKey: string): Uint8Array => hmac(signingKey, purpose.secret)

/** Base64url. */
export const heartbeatKeyOf = (secret: Uint8Array, host: string): string =>
  hmac(secret, `${purpose.key}\n${host}`).toString('base64url')

/** What a sealed key says it is for. */
export const heartbeatKeyPurpose = (host: string): string => `understudy-heartbeat-key ${host}`

/** Base64url, over every field in one order: numbers and words without line breaks need no further quoting. */
export function heartbeatMac(key: string, of: { host: string; heartbeat: Unsealed }): string {
  return macOf(key, of).toString('base64url')
}

export function isGenuine(key: string, { host, heartbeat }: { host: string; heartbeat: Heartbeat }): boolean {
  const given = Buffer.from(heartbeat.mac, 'base64url')
  return given.length === macBytes && timingSafeEqual(given, macOf(key, { host, heartbeat }))
}

function macOf(key: string, { host, heartbeat }: { host: string; heartbeat: Unsealed }): Buffer {
  const { v, boot, seq, role, epoch, observedGeneration, at } = heartbeat
  return hmac(key, [purpose.mac, host, v, boot, seq, role, epoch, observedGeneration, at].join('\n')).subarray(
    0,
    macBytes,
  )
}
