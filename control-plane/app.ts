import type { OpenAPIHono } from '@hono/zod-openapi'
import type { Route } from '../shared/contract/api/route.ts'
import { asyncApiDocument } from './console/asyncapi.ts'
import { docsPage, docsStyle } from './console/docs.ts'
import { docsScript } from './console/docs-script.ts'
import { Api, type Provide } from './http/api.ts'
import { problemCodes, Refusal } from './http/problem.ts'
import { agentRoutes } from './routes/agents.ts'
import { hostTabRoutes } from './routes/host-tabs.ts'
import { hostRoutes } from './routes/hosts.ts'
import { observationRoutes } from './routes/observation.ts'
import { operationRoutes } from './routes/operations.ts'
import { organisationRoutes } from './routes/organisations.ts'
import { pairRoutes } from './routes/pairs.ts'
import { publicRoutes } from './routes/public.ts'
import { toolKeyRoutes } from './routes/tool-keys.ts'
import { witnessRoutes } from './routes/witness.ts'

export interface Application {
  app: OpenAPIHono
  /** What the table of routes is compared with. */
  implemented: ReadonlySet<Route>
}

/** Letters of a path that are said back. */
const shownMax = 500

/** The page loads what lies beside it, and nothing else; nobody shows it within a page of his own. */
const documentHeaders = {
  'content-security-policy':
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-cache',
}

function once<T>(make: () => T): () => T {
  let made: { value: T } | null = null
  return () => {
    made ??= { value: make() }
    return made.value
  }
}

/** Of the API, not of the software: it changes when a client has to change. */
export const apiVersion = '1.0.0'

/**
 * The whole application, the same in every runtime. It is built once; what it uses comes anew with each request, since
 * on Workers connections belong to one.
 */
export function createApp(provide: Provide): Application {
  const api = new Api(provide)
  for (const register of [
    organisationRoutes,
    hostRoutes,
    hostTabRoutes,
    pairRoutes,
    operationRoutes,
    observationRoutes,
    agentRoutes,
    publicRoutes,
    toolKeyRoutes,
    witnessRoutes,
  ])
    register(api)
  const { app } = api
  app.openAPIRegistry.registerComponent('securitySchemes', 'bearer', {
    type: 'http',
    scheme: 'bearer',
    description: 'An API token, or a token of an OpenID Connect provider that this control plane knows',
  })
  app.openAPIRegistry.registerComponent('securitySchemes', 'host', {
    type: 'apiKey',
    in: 'header',
    name: 'authorization',
    description: '"Understudy " and a JWS by the host’s key over method, path, body and time',
  })
  // Made once, when somebody asks: anybody may, and each making costs as much as a hundred requests.
  const openApi = once(() =>
    JSON.stringify(
      app.getOpenAPI31Document({
        openapi: '3.1.0',
        info: {
          title: 'Understudy control plane',
          version: apiVersion,
          description: `Pairs of hosts that keep a stateful service running. Refusals are problem documents (RFC 9457) with one of the codes ${problemCodes.join(', ')}.`,
        },
      }),
    ),
  )
  const asyncApi = once(() => JSON.stringify(asyncApiDocument({ version: apiVersion })))
  const json = 'application/json'
  const documents: [path: string, type: string, text: () => string][] = [
    ['/openapi.json', json, openApi],
    ['/asyncapi.json', json, asyncApi],
    ['/docs', 'text/html; charset=utf-8', () => docsPage],
    ['/docs.js', 'text/javascript; charset=utf-8', () => docsScript],
    ['/docs.css', 'text/css; charset=utf-8', () => docsStyle],
  ]
  for (const [path, type, text] of documents)
    app.get(path, context => context.body(text(), 200, { 'content-type': type, ...documentHeaders }))
  // What `type` of a problem document names, for people. Relative, as that is: a proxy may put something before both.
  app.get('/problems/:code', context =>
    context.redirect(`../docs#problem-${encodeURIComponent(context.req.param('code'))}`),
  )
  app.notFound(context =>
    api.respond(context, async () => {
      const { method } = context.req
      const pathname = new URL(context.req.url).pathname.slice(0, shownMax)
      const methods = api.methodsAt(pathname)
      if (methods.length === 0)
        throw new Refusal('not_found', `there is no ${method} ${pathname}; /docs lists what there is`)
      throw new Refusal('method_not_allowed', `${pathname} knows no ${method}; it knows ${methods.join(', ')}`, {
        headers: { allow: methods.join(', ') },
      })
    }),
  )
  return { app, implemented: api.implemented }
}
