import { concatBytes } from '../../shared/bytes.ts'
import { parseAddress } from '../../shared/ip.ts'
import { fromBase64url, toBase64url } from '../../shared/signing.ts'

/**
 * Certificates of the broker and its clients (RFC 5280), issued with WebCrypto alone so that every runtime can: an
 * authority with one P-256 key, and short-lived leaves. Only writes DER (ITU-T X.690); nothing here reads it.
 */
export interface AuthoritySecrets {
  /** PKCS #8, base64url. */
  privateKey: string
  /** DER, base64url. */
  certificate: string
  name: string
}

type CryptoKeyLike = Parameters<typeof crypto.subtle.sign>[1]
const curve = { name: 'ECDSA', namedCurve: 'P-256' } as const
const signature = { name: 'ECDSA', hash: 'SHA-256' } as const
const dayMs = 86_400_000
/** A clock that is behind by this still sees a certificate as begun. */
const backdateMs = 10 * 60_000
const authorityDays = 3650

export type LeafUse = 'server' | 'client'

export interface LeafRequest {
  commonName: string
  /** SubjectPublicKeyInfo, DER; the subject is ours, never the asker's. */
  publicKey: Uint8Array
  use: LeafUse
  /** IP addresses, DNS names, URIs. */
  names: readonly { kind: 'ip' | 'dns' | 'uri'; value: string }[]
  notAfter: Date
}

export async function makeAuthority(name: string, now: Date): Promise<AuthoritySecrets> {
  const keys = (await crypto.subtle.generateKey(curve, true, ['sign', 'verify'])) as {
    privateKey: CryptoKeyLike
    publicKey: CryptoKeyLike
  }
  const publicKey = new Uint8Array(await crypto.subtle.exportKey('spki', keys.publicKey))
  const tbs = certificateBody({
    issuer: name,
    subject: name,
    publicKey,
    notBefore: new Date(now.getTime() - backdateMs),
    notAfter: new Date(now.getTime() + authorityDays * dayMs),
    extensions: [
      extension(oid.basicConstraints, sequence(boolean(true))),
      extension(oid.keyUsage, bits(1, 0b0000_0110)),
    ],
  })
  return {
    name,
    privateKey: toBase64url(new Uint8Array(await crypto.subtle.exportKey('pkcs8', keys.privateKey))),
    certificate: toBase64url(await signed(tbs, keys.privateKey)),
  }
}

/** @returns PEM */
export async function issueCertificate(authority: AuthoritySecrets, request: LeafRequest, now: Date): Promise<string> {
  const key = await crypto.subtle.importKey('pkcs8', fromBase64url(authority.privateKey)!, curve, false, ['sign'])
  const usage = request.use === 'server' ? oid.serverAuth : oid.clientAuth
  const tbs = certificateBody({
    issuer: authority.name,
    subject: request.commonName,
    publicKey: request.publicKey,
    notBefore: new Date(now.getTime() - backdateMs),
    notAfter: request.notAfter,
    extensions: [
      extension(oid.basicConstraints, sequence()),
      extension(oid.keyUsage, bits(7, 0b1000_0000)),
      extension(oid.extendedKeyUsage, sequence(objectId(usage))),
      ...(request.names.length > 0 ? [extension(oid.subjectAltName, sequence(...request.names.map(generalName)))] : []),
    ],
  })
  return pem('CERTIFICATE', await signed(tbs, key))
}

export const authorityPem = (authority: AuthoritySecrets): string =>
  pem('CERTIFICATE', fromBase64url(authority.certificate)!)

/** Whether these bytes are a P-256 key: a browser-grade parser looks, not ours. */
export async function isPublicKey(spki: Uint8Array): Promise<boolean> {
  return crypto.subtle.importKey('spki', new Uint8Array(spki), curve, true, ['verify']).then(
    () => true,
    () => false,
  )
}

export function pem(label: string, der: Uint8Array): string {
  const text = btoa(String.fromCharCode(...der))
  return `-----BEGIN ${label}-----\n${text.replaceAll(/.{64}/g, '$&\n').trimEnd()}\n-----END ${label}-----\n`
}

const oid = {
  commonName: '2.5.4.3',
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  basicConstraints: '2.5.29.19',
  keyUsage: '2.5.29.15',
  extendedKeyUsage: '2.5.29.37',
  subjectAltName: '2.5.29.17',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const

function certificateBody(part: {
  issuer: string
  subject: string
  publicKey: Uint8Array
  notBefore: Date
  notAfter: Date
  extensions: Uint8Array[]
}): Uint8Array {
  const serial = crypto.getRandomValues(new Uint8Array(16))
  serial[0] = (serial[0]! & 0x7f) | 0x40
  return sequence(
    tagged(0xa0, tagged(0x02, new Uint8Array([2]))),
    tagged(0x02, serial),
    sequence(objectId(oid.ecdsaWithSha256)),
    name(part.issuer),
    sequence(time(part.notBefore), time(part.notAfter)),
    name(part.subject),
    part.publicKey,
    tagged(0xa3, sequence(...part.extensions)),
  )
}

async function signed(tbs: Uint8Array, key: CryptoKeyLike): Promise<Uint8Array> {
  const raw = new Uint8Array(await crypto.subtle.sign(signature, key, new Uint8Array(tbs)))
  const value = sequence(integer(raw.subarray(0, 32)), integer(raw.subarray(32)))
  return sequence(tbs, sequence(objectId(oid.ecdsaWithSha256)), tagged(0x03, concatBytes(new Uint8Array([0]), value)))
}

const name = (text: string): Uint8Array =>
  sequence(tagged(0x31, sequence(objectId(oid.commonName), tagged(0x0c, new TextEncoder().encode(text)))))

function generalName({ kind, value }: LeafRequest['names'][number]): Uint8Array {
  if (kind === 'ip') return tagged(0x87, addressBytes(value))
  return tagged(kind === 'dns' ? 0x82 : 0x86, new TextEncoder().encode(value))
}

/** RFC 5280, 4.2.1.6: four bytes, or sixteen. */
function addressBytes(text: string): Uint8Array {
  const address = parseAddress(text)
  if (address === null) throw new Error(`${text} is no IP address`)
  const digits = address.value.toString(16).padStart(address.family === 4 ? 8 : 32, '0')
  return new Uint8Array(digits.match(/../g)!.map(byte => Number.parseInt(byte, 16)))
}

/** GeneralizedTime; RFC 5280 wants UTCTime before 2050. */
function time(at: Date): Uint8Array {
  const digits = at.toISOString().replaceAll(/[-:T]|\.\d+/g, '')
  return at.getUTCFullYear() < 2050 ? tagged(0x17, ascii(digits.slice(2))) : tagged(0x18, ascii(digits))
}

const extension = (id: string, value: Uint8Array): Uint8Array =>
  sequence(objectId(id), boolean(true), tagged(0x04, value))
const boolean = (value: boolean): Uint8Array => tagged(0x01, new Uint8Array([value ? 0xff : 0]))
const bits = (unused: number, value: number): Uint8Array => tagged(0x03, new Uint8Array([unused, value]))
const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)
const sequence = (...parts: Uint8Array[]): Uint8Array => tagged(0x30, concatBytes(...parts))

/** Without leading zeros, and never negative. */
function integer(bytes: Uint8Array): Uint8Array {
  const first = bytes.findIndex(byte => byte !== 0)
  const short = first < 0 ? new Uint8Array([0]) : bytes.subarray(first)
  return tagged(0x02, short[0]! & 0x80 ? concatBytes(new Uint8Array([0]), short) : short)
}

function objectId(text: string): Uint8Array {
  const [first = 0, second = 0, ...rest] = text.split('.').map(Number)
  const bytes = [first * 40 + second]
  for (const part of rest) {
    const groups = [part & 0x7f]
    for (let left = part >>> 7; left > 0; left >>>= 7) groups.unshift((left & 0x7f) | 0x80)
    bytes.push(...groups)
  }
  return tagged(0x06, new Uint8Array(bytes))
}

function tagged(tag: number, content: Uint8Array): Uint8Array {
  const { length } = content
  const head =
    length < 0x80 ? [tag, length] : length < 0x100 ? [tag, 0x81, length] : [tag, 0x82, length >> 8, length & 0xff]
  return concatBytes(new Uint8Array(head), content)
}
