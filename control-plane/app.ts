import type { OpenAPIHono } from '@hono/zod-openapi'
import type { Route } from '../shared/contract/api/route.ts'
import { asyncApiDocument } from './console/asyncapi.ts'
import { docsPage, docsScript } from './console/docs.ts'
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
  app.doc31('/openapi.json', {
    openapi: '3.1.0',
    info: {
      title: 'Understudy control plane',
      version: apiVersion,
      description: `Pairs of hosts that keep a stateful service running. Refusals are problem documents (RFC 9457) with one of the codes ${problemCodes.join(', ')}.`,
    },
  })
  app.get('/asyncapi.json', context => context.json(asyncApiDocument({ version: apiVersion })))
  const page = {
    'content-security-policy':
      "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  }
  app.get('/docs', context => context.html(docsPage, 200, page))
  app.get('/docs.js', context => context.body(docsScript, 200, { 'content-type': 'text/javascript; charset=utf-8' }))
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
