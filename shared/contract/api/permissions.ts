/** Who may do what. A role is a set of permissions; a token may narrow its role by scopes, never widen it. */
export const permissions = [
  'organisation:read',
  'organisation:manage',
  'token:manage',
  'host:read',
  'host:enrol',
  'host:manage',
  'pair:read',
  /** Prechecks, planned switchover, maintenance. */
  'pair:operate',
  /** Set-up, settings, unpairing. */
  'pair:manage',
  /** A forced takeover: it can lose acknowledged writes. */
  'pair:force',
  'operation:read',
  'event:read',
  'alarm:operate',
  'audit:read',
] as const
export type Permission = (typeof permissions)[number]

export const roles = ['viewer', 'operator', 'admin'] as const
export type Role = (typeof roles)[number]

const viewer: readonly Permission[] = ['organisation:read', 'host:read', 'pair:read', 'operation:read', 'event:read']
const operator: readonly Permission[] = [...viewer, 'pair:operate', 'alarm:operate']

export const permissionsOf: Record<Role, readonly Permission[]> = { viewer, operator, admin: permissions }

/** Of the organisation as a whole: whoever is limited to some pairs would see, or change, what is of the others. */
const ofWholeOrganisation: readonly Permission[] = ['organisation:manage', 'audit:read']

/** What a credential may do. */
export const grantedBy = (part: {
  role: Role
  scopes: readonly Permission[] | null
  pairs: readonly string[] | null
}): Permission[] =>
  permissionsOf[part.role].filter(
    one =>
      (part.scopes === null || part.scopes.includes(one)) &&
      (part.pairs === null || !ofWholeOrganisation.includes(one)),
  )
