import { OpenAPIHono } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { z } from 'zod'
import { problem } from '../../shared/contract/api/common.ts'
import type { Route } from '../../shared/contract/api/route.ts'
import { sha256Hex } from '../../shared/contract/signing.ts'
import { ulid } from '../../shared/ids.ts'
import { callerOfBearer, limitByAddress } from '../auth/bearer.ts'
import type { Caller } from '../auth/caller.ts'
import { callerOfHost } from '../auth/host-signature.ts'
import type { Deps } from '../deps.ts'
import { faultText } from '../fault-text.ts'
import { admit } from './admit.ts'
import { parseJson, readBody } from './body.ts'
import { type Call, type Handler, type Result, versionOf } from './call.ts'
import { classify, invalid, problemResponse, Refusal, witnessRefusal } from './problem.ts'
import { validated } from './validate.ts'

/** Of one request, from the runtime. */
export type Provide = (context: Context) => Deps

/** Answers longer than this are cut by proxies; a portal asks again. */
export const waitSecondsMax = 25

/** Registers routes: each is validated, authenticated and described by what shared/contract says of it. */
export class Api {
  readonly app = new OpenAPIHono()
  readonly #provide: Provide
  readonly #implemented = new Set<Route>()

  constructor(provide: Provide) {
    this.#provide = provide
  }

  get implemented(): ReadonlySet<Route> {
    return this.#implemented
  }

  /** Of a path that is there, in capitals; [] where none is. */
  methodsAt(pathname: string): string[] {
    const isAt = ({ path }: Route): boolean =>
      new RegExp(`^${path.replaceAll('.', '\\.').replaceAll(/\{\w+\}/g, '[^/]+')}$`).test(pathname)
    return [...this.#implemented].filter(isAt).map(route => route.method.toUpperCase())
  }

  implement<R extends Route>(route: R, handler: Handler<R>): void {
    this.implementRaw(route, async call => resultResponse(route, await handler(call)))
  }

  /** For what answers with a stream. */
  implementRaw<R extends Route>(route: R, handler: (call: Call<R>) => Promise<Response>): void {
    if (this.#implemented.has(route)) throw new Error(`${route.id} is implemented twice`)
    this.#implemented.add(route)
    this.app.openAPIRegistry.registerPath(described(route))
    this.app.on(route.method.toUpperCase(), route.path.replaceAll(/\{(\w+)\}/g, ':$1'), context =>
      this.respond(
        context,
        async (deps, requestId) => {
          const call = await callOf(route, { context, deps, requestId })
          return handler(call)
        },
        route.access === 'pair host' ? witnessRefusal : problemResponse,
      ),
    )
  }

  /** Runs work for a request; whatever it throws becomes a refusal, a problem document mostly. */
  async respond(
    context: Context,
    work: (deps: Deps, requestId: string) => Promise<Response>,
    refuse: (refusal: Refusal, requestId: string) => Response = problemResponse,
  ): Promise<Response> {
    const requestId = requestIdOf(context.req.raw)
    const deps = this.#provide(context)
    const response = await work(deps, requestId).catch((error: unknown) => {
      const refusal = classify(error)
      if (refusal.code === 'internal') {
        deps.log({ level: 'error', requestId, message: faultText(error) })
      }
      return refuse(refusal, requestId)
    })
    response.headers.set('request-id', requestId)
    response.headers.set('x-content-type-options', 'nosniff')
    return response
  }
}

const requestIdOf = (request: Request): string => {
  const given = request.headers.get('x-request-id') ?? ''
  return /^[\w.-]{8,64}$/.test(given) ? given : ulid(Date.now())
}

async function callOf<R extends Route>(
  route: R,
  { context, deps, requestId }: { context: Context; deps: Deps; requestId: string },
): Promise<Call<R>> {
  const request = context.req.raw
  const url = new URL(request.url)
  refuseUnstorable([...Object.values(context.req.param()), ...[...url.searchParams].flat()])
  refuseTwice([...url.searchParams.keys()])
  const bytes = route.method === 'get' ? new Uint8Array() : await readBody(request, route.bodyBytesMax)
  const caller = await callerOf(route, { deps, request, bytes, target: url.pathname + url.search })
  const params = validated<R['params']>(route.params, context.req.param(), 'path')
  await admit(route, { caller, params, deps, requestId })
  const body = validated<R['body']>(route.body, bodyOf(route, { request, bytes }), 'body')
  return {
    route,
    params,
    query: validated<R['query']>(route.query, Object.fromEntries(url.searchParams), 'query'),
    body,
    bytes,
    deps,
    caller,
    requestId,
    ifMatch: ifMatchOf(route, request),
    idempotency: await idempotencyOf(route, { request, bytes, target: url.pathname }),
    waitSeconds: waitOf(request),
    request,
  }
}

async function callerOf(
  route: Route,
  part: { deps: Deps; request: Request; bytes: Uint8Array; target: string },
): Promise<Caller> {
  const { deps, request, bytes, target } = part
  if (route.access === 'public') {
    // What only says that we live must not cost the database anything.
    if (route.method === 'post') await limitByAddress(deps, request)
    return { kind: 'nobody' }
  }
  // The witness looks the key up by pair; until then nobody is known.
  if (route.access === 'pair host') return { kind: 'nobody' }
  const known =
    route.access === 'host'
      ? callerOfHost(deps, { request, target, body: bytes })
      : callerOfBearer(deps, request.headers.get('authorization') ?? '')
  return known.catch(async (error: unknown) => {
    // Who guesses, or has us ask for keys that are away, is told to wait; a valid credential from the same address is not.
    if (error instanceof Refusal && (error.code === 'unauthenticated' || error.code === 'busy'))
      await limitByAddress(deps, request)
    throw error
  })
}

/** PostgreSQL's text cannot hold it, so nothing that is here can have it. */
function refuseUnstorable(texts: readonly string[]): void {
  if (texts.some(text => text.includes('\0'))) throw new Refusal('malformed', 'the address holds U+0000')
}

/** One of the two would not count. @throws Refusal */
function refuseTwice(names: readonly string[]): void {
  const twice = names.filter((name, at) => names.indexOf(name) < at)
  if (twice.length > 0)
    throw invalid(
      [...new Set(twice)].map(name => ({ field: `query.${name}`, message: 'stands there twice' })),
      'twice',
    )
}

function bodyOf(route: Route, { request, bytes }: { request: Request; bytes: Uint8Array }): unknown {
  if (bytes.length === 0) return undefined
  if (route.body instanceof z.ZodUndefined) throw new Refusal('malformed', `${route.id} takes no body`)
  const type = request.headers.get('content-type') ?? ''
  if (!/^application\/([\w.-]+\+)?json\b/.test(type))
    throw new Refusal('not_json', `the Content-Type is ${type === '' ? 'missing' : type}; send application/json`)
  return parseJson(bytes)
}

function ifMatchOf(route: Route, request: Request): number | null {
  if (!route.conditional) return null
  const given = request.headers.get('if-match')
  if (given === null)
    throw new Refusal(
      'if_match_missing',
      'send If-Match with the ETag of what you saw, so that nobody’s change is lost',
    )
  const version = versionOf(given)
  if (version === null) throw new Refusal('stale', `${given.slice(0, 40)} is no ETag of this API`)
  return version
}

async function idempotencyOf(
  route: Route,
  { request, bytes, target }: { request: Request; bytes: Uint8Array; target: string },
): Promise<Call['idempotency']> {
  if (!route.acts || route.access === 'public') return null
  const key = request.headers.get('idempotency-key')
  if (key === null || !/^[\x21-\x7e]{8,128}$/.test(key))
    throw new Refusal(
      'idempotency_key_missing',
      'send Idempotency-Key: 8 to 128 printable characters, new for each wish and the same for each repetition of it',
    )
  const digest = await sha256Hex(bytes)
  return { key, fingerprint: await sha256Hex(`${request.method} ${target} ${digest}`) }
}

/** RFC 7240. Anything else in the header is ignored, as it says. */
function waitOf(request: Request): number {
  const match = /\bwait=(\d{1,4})\b/.exec(request.headers.get('prefer') ?? '')
  return match === null ? 0 : Math.min(Number(match[1]), waitSecondsMax)
}

function resultResponse<R extends Route>(route: R, result: Result<R>): Response {
  const status = result.status ?? route.status
  const headers = { 'cache-control': 'no-store', ...result.headers }
  if (status === 204 || status === 304) return new Response(null, { status, headers })
  // The reply's schema is the view: what it does not name does not leave.
  const body = JSON.stringify(route.reply.parse(result.body))
  return new Response(body, { status, headers: { 'content-type': 'application/json', ...headers } })
}

function described(route: Route): Parameters<OpenAPIHono['openAPIRegistry']['registerPath']>[0] {
  const headers: Record<string, z.ZodType> = {
    ...(route.acts && route.access !== 'public' && { 'idempotency-key': z.string().min(8).max(128) }),
    ...(route.conditional && { 'if-match': z.string() }),
  }
  const hasBody = !(route.body instanceof z.ZodUndefined)
  const needsCredential = route.access !== 'public'
  return {
    method: route.method,
    path: route.path,
    operationId: route.id,
    tags: [route.tag],
    summary: route.summary,
    description: `Who: \`${route.access}\``,
    ...(needsCredential && {
      security: [{ [route.access === 'host' || route.access === 'pair host' ? 'host' : 'bearer']: [] }],
    }),
    request: {
      params: route.params as z.ZodObject,
      query: route.query as z.ZodObject,
      ...(Object.keys(headers).length > 0 && { headers: z.object(headers) }),
      ...(hasBody && { body: { required: true, content: { 'application/json': { schema: route.body } } } }),
    },
    responses: {
      [route.status]: { description: 'As expected', content: { 'application/json': { schema: route.reply } } },
      default: { description: 'Refused', content: { 'application/problem+json': { schema: problem } } },
    },
  }
}
