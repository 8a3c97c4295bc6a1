import { eq } from 'drizzle-orm'
import { id } from '../../shared/contract/api/common.ts'
import { clockSkewSecondsMax, signedRequest } from '../../shared/contract/documents.ts'
import { sha256Base64url, verifyCompact } from '../../shared/contract/signing.ts'
import { host } from '../db/schema/index.ts'
import { acrossOrganisations } from '../db/transaction.ts'
import type { Deps } from '../deps.ts'
import { spend, unauthenticated } from './bearer.ts'
import type { Caller } from './caller.ts'

/**
 * A host signs each request with the key it enrolled with. Who repeats a recorded request within its two minutes reads
 * what he could read before, or stores a report that its (boot, seq) makes void.
 * @throws Refusal
 */
export async function callerOfHost(
  deps: Deps,
  part: { request: Request; target: string; body: Uint8Array },
): Promise<Caller> {
  const jws = /^Understudy ([\w.-]{1,2000})$/.exec(part.request.headers.get('authorization') ?? '')?.[1]
  if (jws === undefined)
    throw unauthenticated('a host signs its requests: Authorization must be "Understudy " and a JWS')
  const named = hostNamedBy(jws)
  const row = named === null ? undefined : await hostById(deps, named)
  if (row === undefined || row.state !== 'active')
    throw unauthenticated('the signature is of no host that is enrolled here')
  const verified = await verifyCompact(jws, row.publicKey)
  const claims = verified.ok ? signedRequest.safeParse(verified.payload) : null
  if (claims?.success !== true) throw unauthenticated(`the signature of host ${row.id} is not valid`)
  const { data } = claims
  const nowSeconds = deps.now().getTime() / 1000
  if (Math.abs(nowSeconds - data.issuedAt) > clockSkewSecondsMax)
    throw unauthenticated(
      `the request is signed for ${new Date(data.issuedAt * 1000).toISOString()}, which is more than ${clockSkewSecondsMax} s from the time here: set the clock of the host`,
    )
  const meant = data.host === row.id && data.method === part.request.method && data.path === part.target
  if (!meant || data.body !== (await sha256Base64url(part.body)))
    throw unauthenticated('the signature is of another request')
  const cost = 1 + Math.floor(part.body.length / bytesOfOne)
  await spend(deps, { key: `host:${row.id}`, rate: deps.limits.perHost, cost })
  return { kind: 'host', subject: `host:${row.id} (${row.name})`, organisation: row.organisation, host: row.id }
}

/** What is large is more to store: so much counts as one request. */
const bytesOfOne = 16 * 1024

/** Not verified yet: it only says whose key is to be tried. */
function hostNamedBy(jws: string): string | null {
  try {
    const header = JSON.parse(atob((jws.split('.')[0] ?? '').replaceAll('-', '+').replaceAll('_', '/'))) as {
      kid?: unknown
    }
    return id.safeParse(header.kid).success ? (header.kid as string) : null
  } catch {
    return null
  }
}

async function hostById(deps: Deps, id: string) {
  const [row] = await acrossOrganisations(deps.database, tx => tx.select().from(host).where(eq(host.id, id)))
  return row
}
