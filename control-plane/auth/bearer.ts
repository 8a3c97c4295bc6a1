import { sql } from 'drizzle-orm'
import { createRemoteJWKSet, decodeJwt, errors, type JWTPayload, jwtVerify } from 'jose'
import { id } from '../../shared/contract/api/common.ts'
import { grantedBy, type Permission, permissions, type Role, roles } from '../../shared/contract/api/permissions.ts'
import { sha256Hex } from '../../shared/contract/signing.ts'
import { parseAddress } from '../../shared/ip.ts'
import type { Transaction } from '../db/client.ts'
import type { Deps, IdentityProvider, Rate } from '../deps.ts'
import { Refusal } from '../http/problem.ts'
import type { Caller, Member } from './caller.ts'
import { hashOf, tokenPrefix } from './tokens.ts'

/** Longer than any token of ours or of an identity provider; a header of a megabyte is not hashed. */
const bearerLettersMax = 8192

/** @throws Refusal for everything that is no valid credential. */
export async function callerOfBearer(deps: Deps, authorization: string): Promise<Caller> {
  const bearer = bearerIn(authorization)
  return bearer.startsWith(tokenPrefix) ? callerOfToken(deps, bearer) : callerOfIdToken(deps, bearer)
}

/** Of an answer that goes on for minutes: whether its credential is one still. It asks nothing, so it costs nothing of the rate. */
export async function isInForce(deps: Deps, authorization: string): Promise<boolean> {
  const bearer = bearerIn(authorization)
  if (bearer.startsWith(tokenPrefix)) {
    const hash = await hashOf(bearer)
    const [row] = await deps.database.execute(
      sql`select 1 from api_token where hash = ${hash} and revoked_at is null and expires_at > now()`,
    )
    return row !== undefined
  }
  return personOf(deps, bearer).then(
    () => true,
    (error: unknown) => {
      if (error instanceof Refusal) return error.code !== 'unauthenticated'
      throw error
    },
  )
}

function bearerIn(authorization: string): string {
  // RFC 9110, 11.1: the scheme is written in letters of either case.
  const bearer = /^Bearer +([\x21-\x7e]+)$/i.exec(authorization)?.[1]
  if (bearer === undefined || bearer.length > bearerLettersMax)
    throw unauthenticated('Authorization must be "Bearer " and a token')
  return bearer
}

export const unauthenticated = (detail: string): Refusal =>
  new Refusal('unauthenticated', detail, { headers: { 'www-authenticate': 'Bearer realm="understudy"' } })

interface TokenRow extends Record<string, unknown> {
  id: string
  organisation: string | null
  name: string
  role: Role
  scopes: Permission[] | null
  pairs: string[] | null
  left: number
}

/** Look-up, rate limit and the mark of use in one round trip. */
async function callerOfToken(deps: Deps, token: string): Promise<Caller> {
  const hash = await hashOf(token)
  const { perSecond, burst } = deps.limits.perToken
  const [row] = await deps.database.execute<TokenRow>(sql`
    with token as (
      select id, organisation, name, role, scopes, pairs from api_token
      where hash = ${hash} and revoked_at is null and expires_at > now()
    ), bucket as (
      insert into rate_bucket as b (key, tokens, at)
      select 'token:' || id, ${burst}::real - 1, now() from token
      on conflict (key) do update set tokens = ${refilled({ perSecond, burst })}, at = now()
      returning tokens
    ), used as (
      update api_token set last_used_at = date_trunc('minute', now()) from token
      where api_token.id = token.id and (api_token.last_used_at is null or api_token.last_used_at < now() - interval '1 minute')
    )
    select token.*, bucket.tokens as left from token, bucket`)
  if (row === undefined) throw unauthenticated('the token is unknown, revoked or over')
  if (row.left < 0) throw rateLimited(deps.limits.perToken)
  const credential = `token:${row.id}`
  const subject = `${credential} (${row.name})`
  if (row.organisation === null) return { kind: 'instance', subject }
  return member({ ...row, subject, credential, organisation: row.organisation })
}

/** A bucket that is overdrawn stays at -1, so that a flood does not lock its owner out for hours. */
const refilled = ({ perSecond, burst }: Rate) =>
  sql`greatest(-1, least(${burst}::real, b.tokens + extract(epoch from now() - b.at)::real * ${perSecond}::real) - 1)`

/** For those who show no valid credential, by address. @throws Refusal */
export async function limitByAddress(deps: Deps, request: Request): Promise<void> {
  const address = deps.clientAddress(request)
  if (address !== '') await spend(deps, { key: `address:${networkOf(address)}`, rate: deps.limits.perAddress })
}

/** Whoever has one address of IPv6 has the 2^64 beside it. An IPv4 one may come written as IPv6 (RFC 4291, 2.5.5.2). */
export function networkOf(address: string): string {
  const parsed = parseAddress(address)
  if (parsed === null || parsed.family === 4) return address
  const dotted = /^::ffff:([\d.]+)$/i.exec(address)?.[1]
  return dotted ?? `${(parsed.value >> 64n).toString(16)}::/64`
}

export interface Spending {
  key: string
  rate: Rate
  /** Of the share; more than a whole one costs a whole one. */
  cost?: number
  /** What is counted, for the sentence. */
  what?: string
}

/**
 * A part of somebody's share, which a refusal leaves as it is: whoever is too quick has the rest as time gives it.
 * Not within a transaction, since it takes a connection of its own.
 * @throws Refusal when there is not enough left
 */
export async function spend(deps: Deps, { key, rate, cost = 1, what }: Spending): Promise<void> {
  const { perSecond, burst } = rate
  const part = sql`least(${burst}::real, ${cost}::real)`
  const there = sql`least(${burst}::real, b.tokens + extract(epoch from now() - b.at)::real * ${perSecond}::real)`
  const [row] = await deps.database.execute(sql`
    insert into rate_bucket as b (key, tokens, at) values (${key}, ${burst}::real - ${part}, now())
    on conflict (key) do update set tokens = ${there} - ${part}, at = now() where ${there} >= ${part}
    returning 1`)
  if (row === undefined) throw rateLimited(rate, { cost, ...(what !== undefined && { what }) })
}

/**
 * As many of a share as are there, in a transaction that holds what it is about, so that nobody else takes of it meanwhile.
 * @returns how many of the wanted
 */
export async function takeShare(
  tx: Transaction,
  { key, rate: { perSecond, burst }, wanted }: { key: string; rate: Rate; wanted: number },
): Promise<number> {
  const [share] = await tx.execute<{ given: number }>(sql`
    with there as (
      select least(${burst}::real, coalesce(max(tokens + extract(epoch from now() - at) * ${perSecond}::real), ${burst}::real)) as tokens
      from rate_bucket where key = ${key}
    ), share as (
      select tokens, greatest(0, least(${wanted}::int, floor(tokens)))::int as given from there
    ), kept as (
      insert into rate_bucket (key, tokens, at) select ${key}, tokens - given, now() from share
      on conflict (key) do update set tokens = excluded.tokens, at = excluded.at
    )
    select given from share`)
  return share?.given ?? 0
}

function rateLimited(
  { perSecond, burst }: Rate,
  { cost = 1, what = 'requests' }: { cost?: number; what?: string } = {},
): Refusal {
  const afterSeconds = Math.max(1, Math.ceil(Math.min(cost, burst) / perSecond))
  return new Refusal('rate_limited', `more than ${burst} ${what} at once, or ${perSecond} a second`, {
    headers: { 'retry-after': String(afterSeconds), 'ratelimit-policy': `"default";q=${perSecond};w=1` },
  })
}

/** Key sets are a cache: jose fetches them again when an unknown key turns up, not more often than each half minute. */
const keySets = new Map<string, ReturnType<typeof createRemoteJWKSet>>()

/** No symmetric algorithm, and none that the key does not name: the token must not choose how it is checked. */
const algorithms = ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA']
const clockToleranceSeconds = 30

async function callerOfIdToken(deps: Deps, bearer: string): Promise<Caller> {
  const person = await personOf(deps, bearer)
  await spend(deps, { key: person.credential, rate: deps.limits.perToken })
  return person
}

async function personOf(deps: Deps, bearer: string): Promise<Member> {
  const provider = providerOf(deps.identityProviders, bearer)
  if (provider === undefined)
    throw unauthenticated('the token is none of this API, and of no identity provider it knows')
  const { issuer, audience, jwksUrl } = provider
  let keys = keySets.get(jwksUrl)
  if (keys === undefined) {
    keys = createRemoteJWKSet(new URL(jwksUrl))
    keySets.set(jwksUrl, keys)
  }
  const { payload } = await jwtVerify(bearer, keys, {
    issuer,
    audience,
    algorithms,
    clockTolerance: clockToleranceSeconds,
    currentDate: deps.now(),
    requiredClaims: ['exp', 'sub'],
  }).catch((error: unknown) => {
    const why = error instanceof Error ? error.message : ''
    if (areKeysAway(error))
      throw new Refusal('busy', `the keys of ${issuer} cannot be had from ${jwksUrl} now (${why}); try again`, {
        headers: { 'retry-after': '5' },
      })
    throw unauthenticated(`the token of ${issuer} is not valid: ${why}`)
  })
  const organisation = payload[provider.organisationClaim]
  const role = highestRole(payload[provider.roleClaim])
  if (typeof organisation !== 'string' || role === null)
    throw unauthenticated(
      `the token of ${issuer} names no organisation (${provider.organisationClaim}) or no role (${provider.roleClaim}: ${roles.join(', ')})`,
    )
  if (provider.organisations !== undefined && !provider.organisations.includes(organisation))
    throw unauthenticated(`${issuer} does not speak for the organisation that its token names`)
  const [known] = id.safeParse(organisation).success
    ? await deps.database.execute(sql`select 1 from organisation where id = ${organisation}`)
    : []
  if (known === undefined) throw unauthenticated('the token names an organisation that is not here')
  // Any number of letters: what it is kept by has a length of its own.
  const credential = `person:${await sha256Hex(`${issuer}\n${payload.sub}`)}`
  return member({ subject: `${issuer} ${nameOf(payload)}`, credential, organisation, role, scopes: null, pairs: null })
}

/** That the token is no good is the token's fault; that nobody can tell is not, and nobody is sent away for it. */
const areKeysAway = (error: unknown): boolean =>
  !(error instanceof errors.JOSEError) ||
  ['ERR_JWKS_TIMEOUT', 'ERR_JWKS_INVALID', 'ERR_JOSE_GENERIC'].includes(error.code)

/**
 * An address that the provider does not say it has verified is whatever its holder wrote: the audit then has the subject alone.
 * Some providers write the claim as text (OpenID Connect Core, 5.1, has it a boolean).
 */
function nameOf({ email, email_verified: verified, sub = '' }: JWTPayload): string {
  return typeof email === 'string' && (verified === true || verified === 'true')
    ? `${email} (${sub})`.slice(0, nameMax)
    : sub.slice(0, nameMax)
}
const nameMax = 150

function providerOf(providers: readonly IdentityProvider[], bearer: string): IdentityProvider | undefined {
  try {
    const { iss, aud } = decodeJwt(bearer)
    const audiences = Array.isArray(aud) ? aud : [aud]
    return providers.find(one => one.issuer === iss && audiences.includes(one.audience))
  } catch {
    return undefined
  }
}

function highestRole(claim: unknown): Role | null {
  const named = Array.isArray(claim) ? claim : [claim]
  return [...roles].reverse().find(role => named.includes(role)) ?? null
}

function member(part: {
  subject: string
  credential: string
  organisation: string
  role: Role
  scopes: readonly Permission[] | null
  pairs: readonly string[] | null
}): Member {
  const { subject, credential, organisation, role, scopes, pairs } = part
  const allowed = grantedBy({ role, scopes, pairs })
  return {
    kind: 'member',
    subject,
    credential,
    organisation,
    role,
    permissions: new Set(permissions.filter(one => allowed.includes(one))),
    pairs: pairs === null ? null : new Set(pairs),
  }
}
