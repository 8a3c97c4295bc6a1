import { z } from 'zod'
import { id, orNull, page, pageOf, time } from './common.ts'
import { permissions, roles } from './permissions.ts'
import { noBody, route } from './route.ts'

const permission = z.enum(permissions).meta({ id: 'Permission' })
const role = z.enum(roles).meta({ id: 'Role' })

export const organisation = z
  .object({ id, name: z.string(), createdAt: time })
  .meta({ id: 'Organisation', description: 'A tenant: it sees nothing of another one' })
const organisationName = z.string().trim().min(1).max(80)

export const createOrganisation = route({
  id: 'createOrganisation',
  method: 'post',
  path: '/v1/organisations',
  tag: 'organisations',
  summary: 'Makes an organisation and the first token of its administrator',
  access: 'instance',
  body: z.strictObject({ name: organisationName }),
  reply: z.object({ organisation, token: z.string().describe('Shown this once') }),
  status: 201,
  acts: true,
})

export const listOrganisations = route({
  id: 'listOrganisations',
  method: 'get',
  path: '/v1/organisations',
  tag: 'organisations',
  summary: 'The organisations of this control plane, oldest first',
  access: 'instance',
  query: z.strictObject(page),
  reply: pageOf(organisation),
})

export const createAdministratorToken = route({
  id: 'createAdministratorToken',
  method: 'post',
  path: '/v1/organisations/{organisation}/administrator-tokens',
  tag: 'organisations',
  summary:
    'Makes a token of an administrator for an organisation whose own are over or lost: nobody of it could make one. Its audit tells',
  access: 'instance',
  params: z.strictObject({ organisation: id }),
  reply: z.object({ organisation, token: z.string().describe('Shown this once; it ends after 30 days') }),
  status: 201,
  acts: true,
})

export const getOrganisation = route({
  id: 'getOrganisation',
  method: 'get',
  path: '/v1/organisation',
  tag: 'organisations',
  summary: 'The organisation of the caller',
  access: 'organisation:read',
  reply: organisation,
})

export const renameOrganisation = route({
  id: 'renameOrganisation',
  method: 'patch',
  path: '/v1/organisation',
  tag: 'organisations',
  summary: 'Renames the organisation of the caller',
  access: 'organisation:manage',
  body: z.strictObject({ name: organisationName }),
  reply: organisation,
  conditional: true,
})

/** A token that never ends is forgotten somewhere. */
const tokenDaysMax = 366

export const apiToken = z
  .object({
    id,
    name: z.string(),
    role,
    scopes: z.array(permission).nullable().describe('null: everything the role may do'),
    pairs: z.array(id).nullable().describe('null: every pair'),
    createdAt: time,
    expiresAt: time,
    revokedAt: time.nullable(),
    lastUsedAt: time.nullable().describe('To the minute'),
  })
  .meta({ id: 'ApiToken' })

export const createToken = route({
  id: 'createToken',
  method: 'post',
  path: '/v1/tokens',
  tag: 'tokens',
  summary: 'Makes an API token; it is shown this once and stored as a hash',
  access: 'token:manage',
  body: z.strictObject({
    name: z.string().trim().min(1).max(80),
    role,
    scopes: z.array(permission).min(1).nullable().default(null),
    pairs: z.array(id).min(1).max(100).nullable().default(null),
    expiresInDays: z.int().min(1).max(tokenDaysMax).default(90),
  }),
  reply: z.object({ token: z.string().describe('Shown this once'), record: apiToken }),
  status: 201,
  acts: true,
})

export const listTokens = route({
  id: 'listTokens',
  method: 'get',
  path: '/v1/tokens',
  tag: 'tokens',
  summary: 'The tokens of the organisation, without their secrets',
  access: 'token:manage',
  query: z.strictObject(page),
  reply: pageOf(apiToken),
})

export const revokeToken = route({
  id: 'revokeToken',
  method: 'delete',
  path: '/v1/tokens/{token}',
  tag: 'tokens',
  summary: 'Revokes a token at once',
  access: 'token:manage',
  params: z.strictObject({ token: id }),
  body: noBody,
  reply: apiToken,
})

export const getPermissions = route({
  id: 'getPermissions',
  method: 'get',
  path: '/v1/me/permissions',
  tag: 'me',
  summary: 'Who the caller is and what he may do, so that a portal shows only what works',
  access: 'authenticated',
  reply: z
    .object({
      subject: z.string(),
      organisation: id.nullable(),
      role: orNull(role),
      permissions: z.array(permission),
      pairs: z.array(id).nullable().describe('null: every pair'),
    })
    .meta({ id: 'Permissions' }),
})
