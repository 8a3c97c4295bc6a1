import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createApp } from '../../control-plane/app.ts'
import { routes } from '../../shared/contract/api/index.ts'
import { permissions, permissionsOf, roles } from '../../shared/contract/api/permissions.ts'

/** Nothing is asked of the surroundings before a request comes. */
const application = createApp(() => {
  throw new Error('no request is made here')
})

/** Documents without anything of anybody, beside the table. */
const documents = [
  ...['GET /openapi.json', 'GET /asyncapi.json'],
  ...['GET /docs', 'GET /docs.js', 'GET /docs.css', 'GET /problems/:code'],
]

test('every route stands in the table of permissions, and nothing is served that does not', () => {
  const listed = routes.map(route => `${route.method.toUpperCase()} ${route.path.replaceAll(/\{(\w+)\}/g, ':$1')}`)
  const served = application.app.routes.map(route => `${route.method} ${route.path}`)
  assert.deepEqual([...new Set(served)].sort(), [...listed, ...documents].sort())
  assert.deepEqual([...application.implemented].sort(byId), [...routes].sort(byId))
})

const byId = (one: { id: string }, other: { id: string }): number => (one.id < other.id ? -1 : 1)

test('no two routes have the same name, or the same method and path', () => {
  assert.equal(new Set(routes.map(route => route.id)).size, routes.length)
  assert.equal(new Set(routes.map(route => `${route.method} ${route.path}`)).size, routes.length)
})

test('who calls without a credential reaches what is meant for that, and no more', () => {
  const open = routes.filter(route => route.access === 'public').map(route => route.id)
  assert.deepEqual(open.sort(), ['enrolHost', 'getTime', 'health', 'ready', 'witnessHealth'])
})

test('reading never needs more than a viewer, but for what holds secrets or names', () => {
  const more = routes.filter(
    route =>
      route.method === 'get' &&
      (permissions as readonly string[]).includes(route.access) &&
      !(permissionsOf.viewer as readonly string[]).includes(route.access),
  )
  assert.deepEqual(
    more.map(route => route.id).sort(),
    ['getAuditHead', 'listAudit', 'listEnrolmentTokens', 'listTokens', 'listToolKeys', 'verifyAudit'].sort(),
  )
})

test('each role may do all that the one before it may', () => {
  for (const [at, role] of roles.entries()) {
    const before = roles[at - 1]
    if (before === undefined) continue
    assert.deepEqual(
      permissionsOf[before].filter(one => !permissionsOf[role].includes(one)),
      [],
    )
  }
})

test('every POST that acts wants an Idempotency-Key, and every change of what is there an If-Match or one', () => {
  const unguarded = routes.filter(
    route =>
      !route.access.endsWith('host') &&
      route.access !== 'public' &&
      route.method !== 'get' &&
      !route.acts &&
      !route.conditional,
  )
  // Revoking is the same however often it is done.
  assert.deepEqual(
    unguarded.map(route => route.id),
    ['revokeToken', 'withdrawEnrolmentToken', 'revokeToolKey'],
  )
})
