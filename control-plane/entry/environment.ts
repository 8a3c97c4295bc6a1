import { z } from 'zod'
import type { IdentityProvider } from '../deps.ts'

const provider = z.strictObject({
  issuer: z.url({ protocol: /^https?$/ }),
  audience: z.string().min(1),
  jwksUrl: z.url({ protocol: /^https?$/ }),
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
