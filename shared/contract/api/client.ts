import type { z } from 'zod'
import { type Problem, problem } from './common.ts'
import type { Route } from './route.ts'

/** The typed client: what a route says is what a call takes and gives. Needs `fetch` alone. */
export interface ClientOptions {
  /** Without a slash at its end. */
  url: string
  token: string | null
  fetch?: typeof fetch
}

export interface CallOptions {
  idempotencyKey?: string
  ifMatch?: string
  /** Seconds to wait for an operation's end. */
  wait?: number
  ifNoneMatch?: string
}

type Part<Schema extends z.ZodType, Name extends string> =
  undefined extends z.input<Schema>
    ? { [key in Name]?: z.input<Schema> }
    : Record<string, never> extends z.input<Schema>
      ? { [key in Name]?: z.input<Schema> }
      : { [key in Name]: z.input<Schema> }
export type CallInput<R extends Route> = Part<R['params'], 'params'> &
  Part<R['query'], 'query'> &
  Part<R['body'], 'body'>

export interface Answer<R extends Route> {
  status: number
  body: z.output<R['reply']>
  etag: string | null
  headers: Headers
}

/** The API refused; `problem` says why, field by field where it can. */
export class ApiProblem extends Error {
  override name = 'ApiProblem'
  readonly problem: Problem
  constructor(refusal: Problem) {
    super(`${refusal.status} ${refusal.code}: ${refusal.detail}`)
    this.problem = refusal
  }
}

export class ApiClient {
  readonly #options: ClientOptions

  constructor(options: ClientOptions) {
    this.#options = options
  }

  /** @throws ApiProblem for every answer that is no success. */
  async call<R extends Route>(route: R, input: CallInput<R> & CallOptions): Promise<Answer<R>> {
    const given = input as { params?: object; query?: object; body?: unknown } & CallOptions
    const response = await (this.#options.fetch ?? fetch)(this.#options.url + targetOf(route, given), {
      method: route.method.toUpperCase(),
      headers: this.#headers(route, given),
      ...(given.body !== undefined && { body: JSON.stringify(given.body) }),
    })
    const text = await response.text()
    const body: unknown = text === '' ? undefined : JSON.parse(text)
    if (!response.ok) {
      const parsed = problem.safeParse(body)
      if (parsed.success) throw new ApiProblem(parsed.data)
      throw new Error(`${route.id}: status ${response.status} without a problem document`)
    }
    const { status, headers } = response
    return { status, body: body as z.output<R['reply']>, etag: headers.get('etag'), headers }
  }

  #headers(route: Route, given: { body?: unknown } & CallOptions): Record<string, string> {
    const { token } = this.#options
    const key = given.idempotencyKey ?? (route.acts ? crypto.randomUUID() : undefined)
    return {
      ...(token !== null && { authorization: `Bearer ${token}` }),
      ...(given.body !== undefined && { 'content-type': 'application/json' }),
      ...(key !== undefined && { 'idempotency-key': key }),
      ...(given.ifMatch !== undefined && { 'if-match': given.ifMatch }),
      ...(given.ifNoneMatch !== undefined && { 'if-none-match': given.ifNoneMatch }),
      ...(given.wait !== undefined && { prefer: `wait=${given.wait}` }),
    }
  }
}

export function targetOf(route: Pick<Route, 'path'>, given: { params?: object; query?: object }): string {
  const params = (given.params ?? {}) as Record<string, unknown>
  const path = route.path.replaceAll(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(params[name])))
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(given.query ?? {})) {
    if (value !== undefined) query.set(name, String(value))
  }
  return query.size === 0 ? path : `${path}?${query}`
}
