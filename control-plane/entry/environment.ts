import { z } from 'zod'
import { id } from '../../shared/contract/api/common.ts'
import { parseAddress } from '../../shared/ip.ts'
import { type SigningSecrets, signingSecrets } from '../auth/signing-keys.ts'
import type { AuthoritySecrets } from '../auth/x509.ts'
import { defaultLimits, type IdentityProvider, type Limits, publicWitness, type WitnessPlace } from '../deps.ts'

/** Whoever stands between and gives other keys is everybody: so not over the network in the clear. */
const keysUrl = z.url({ protocol: /^https?$/ }).refine(text => {
  const { protocol, hostname } = new URL(text)
  return protocol === 'https:' || ['localhost', '127.0.0.1', '[::1]'].includes(hostname)
}, 'must begin with https:// unless it is on this machine')

const provider = z.strictObject({
  issuer: z.url({ protocol: /^https?$/ }),
  audience: z.string().min(1),
  jwksUrl: keysUrl,
  organisations: z.array(id).min(1).optional(),
  organisationClaim: z.string().min(1).default('organisation'),
  roleClaim: z.string().min(1).default('role'),
})

/** From JSON in the variable OIDC_PROVIDERS. @throws with what is wrong with it */
export function identityProvidersOf(json: string | undefined): IdentityProvider[] {
  if (json === undefined || json === '') return []
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch {
    throw new Error('OIDC_PROVIDERS is not JSON; write a list of objects with issuer, audience and jwksUrl')
  }
  const parsed = z.array(provider).max(16).safeParse(value)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw new Error(`OIDC_PROVIDERS: ${issue?.path.join('.')}: ${issue?.message}`)
}

/** What a control plane without a disk of its own is told: the same names on Workers and Deno. */
export interface Settings {
  databaseUrl: string
  secrets: SigningSecrets
  publicUrl: string
  /** Where hosts ask the hosted witness, over TLS; null: nowhere, so none is offered. */
  witness: WitnessPlace | null
  /** Of this control plane alone, with the user and the password it may have; null: no broker, agents use HTTPS. */
  mqttUrl: string | null
  /** The same as hosts and tooling are told it. */
  brokerUrl: string | null
  authority: AuthoritySecrets | null
  identityProviders: IdentityProvider[]
  limits: Limits
}

const authoritySecrets = z.object({ privateKey: z.string(), certificate: z.string(), name: z.string() })

/** @throws with the variable and what is wrong with it */
export function settingsOf(env: Readonly<Record<string, unknown>>): Settings {
  const text = (name: string): string | null => {
    const value = env[name]
    return typeof value === 'string' && value !== '' ? value : null
  }
  const needed = (name: string, what: string): string => {
    const value = text(name)
    if (value === null) throw new Error(`${name} is missing: ${what}`)
    return value
  }
  const json = <T>(name: string, schema: z.ZodType<T>, value: string): T => {
    const parsed = schema.safeParse(jsonOf(value))
    if (parsed.success) return parsed.data
    throw new Error(`${name} is not as \`npm run control-plane\` wrote it to its keys folder`)
  }
  const authority = text('BROKER_AUTHORITY')
  const publicUrl = publicUrlOf(needed('PUBLIC_URL', 'where this API is reached'))
  const mqttUrl = mqttUrlOf(text('MQTT_URL') ?? noBroker)
  return {
    databaseUrl: databaseUrlOf(needed('DATABASE_URL', 'the address of the PostgreSQL database')),
    secrets: json('SIGNING_SECRETS', signingSecrets, needed('SIGNING_SECRETS', 'the content of keys/signing.json')),
    publicUrl,
    witness: witnessOf(text('WITNESS_URL'), publicUrl),
    mqttUrl,
    brokerUrl: mqttUrl === null ? null : withoutCredentials(mqttUrl),
    authority: authority === null ? null : json('BROKER_AUTHORITY', authoritySecrets, authority),
    identityProviders: identityProvidersOf(text('OIDC_PROVIDERS') ?? undefined),
    limits: limitsOf(text('RATE_LIMIT_PER_SECOND')),
  }
}

/** undefined: it is none. What it holds is said nowhere: it may be a secret. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Without a slash at its end. @throws with what is wrong */
export function publicUrlOf(text: string): string {
  if (!/^https?:\/\//.test(text) || !URL.canParse(text))
    throw new Error(`PUBLIC_URL is ${text}; write where hosts and people reach this API, as https://cp.example`)
  return text.replace(/\/+$/, '')
}

/** @throws with what is wrong; not with the address, which may hold a password */
export function databaseUrlOf(text: string): string {
  if (/^postgres(?:ql)?:\/\//.test(text) && URL.canParse(text)) return text
  throw new Error('DATABASE_URL is no address of a database; write it as postgres://user:password@host:5432/name')
}

const noBroker = 'none'

/** null: there is to be none. @throws with what is wrong; not with the address, which may hold a password */
export function mqttUrlOf(text: string): string | null {
  if (text === noBroker) return null
  if (/^mqtts?:\/\//.test(text) && URL.canParse(text)) return text
  throw new Error(
    `MQTT_URL is no address of a broker; write it as mqtts://host:8883, or "${noBroker}" where everything is to travel by HTTPS`,
  )
}

/** As hosts and tooling are told where to go: user and password in it are this control plane's own. */
export function withoutCredentials(url: string): string {
  const parsed = new URL(url)
  parsed.username = ''
  parsed.password = ''
  return parsed.href
}

export interface ListenAddress {
  address: string
  port: number
}

/** @throws with what is wrong */
export function listenOf(text: string): ListenAddress {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text)
  const address = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  if (address === undefined || parseAddress(address) === null || port > 65_535)
    throw new Error(`LISTEN is ${text}; write it as address:port, such as 127.0.0.1:7480 or [::]:7480`)
  return { address, port }
}
export const listenDefault = '127.0.0.1:7480'

/**
 * Servers of our own (broker, hosted witness) listen where this API does; where that is every address, on loopback.
 * @returns why hosts on other machines do not reach them, or null
 */
export function whyUnreached({ listen, publicUrl }: { listen: ListenAddress; publicUrl: string }): string | null {
  const here = ['0.0.0.0', '::', '127.0.0.1', '::1'].includes(listen.address)
  const { hostname } = new URL(publicUrl)
  if (!here || ['127.0.0.1', '[::1]', 'localhost'].includes(hostname)) return null
  return `hosts come to ${publicUrl}, and servers of this control plane's own listen on loopback, where hosts on other machines do not reach them: write in LISTEN the address by which they reach this one, or set MQTT_URL and a PUBLIC_URL that begins with https://`
}

function witnessOf(url: string | null, publicUrl: string): WitnessPlace | null {
  if (url === null) return publicWitness(publicUrl)
  const place = publicWitness(url.replace(/\/+$/, ''))
  if (place === null) throw new Error(`WITNESS_URL is ${url}; write an address that begins with https://`)
  return place
}

/** Of each token, address and host; four seconds' worth at once. */
export function limitsOf(text: string | null): Limits {
  if (text === null) return defaultLimits
  const perSecond = Number(text)
  if (!Number.isFinite(perSecond) || perSecond <= 0) throw new Error('RATE_LIMIT_PER_SECOND is no number above 0')
  const rate = { perSecond, burst: perSecond * 4 }
  return { ...defaultLimits, perToken: rate, perAddress: rate, perHost: rate }
}
