import { z } from 'zod'
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
  /** null: no broker; agents use HTTPS. */
  mqttUrl: string | null
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
    const parsed = schema.safeParse(JSON.parse(value))
    if (parsed.success) return parsed.data
    throw new Error(`${name} is not as \`npm run control-plane\` wrote it to its keys folder`)
  }
  const authority = text('BROKER_AUTHORITY')
  const publicUrl = needed('PUBLIC_URL', 'where this API is reached').replace(/\/+$/, '')
  return {
    databaseUrl: needed('DATABASE_URL', 'the address of the PostgreSQL database'),
    secrets: json('SIGNING_SECRETS', signingSecrets, needed('SIGNING_SECRETS', 'the content of keys/signing.json')),
    publicUrl,
    witness: witnessOf(text('WITNESS_URL'), publicUrl),
    mqttUrl: text('MQTT_URL'),
    authority: authority === null ? null : json('BROKER_AUTHORITY', authoritySecrets, authority),
    identityProviders: identityProvidersOf(text('OIDC_PROVIDERS') ?? undefined),
    limits: limitsOf(text('RATE_LIMIT_PER_SECOND')),
  }
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
  return { perToken: rate, perAddress: rate, perHost: rate }
}
