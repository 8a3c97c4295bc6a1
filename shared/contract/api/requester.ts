import type { Problem } from './common.ts'

/** What every client of the API does for a call; needs `fetch` alone. The typed clients are made over it. */
export interface ClientOptions {
  /** Without a slash at its end. */
  url: string
  token: string | null
  fetch?: typeof fetch
}

export interface CallOptions {
  /** Of a call that acts: the same for each repetition of one wish. A new one by default. */
  idempotencyKey?: string
  /** The ETag of what was seen. */
  ifMatch?: string
  /** Seconds to wait for an operation's end. */
  wait?: number
  ifNoneMatch?: string
}

export interface Answer<Body> {
  status: number
  body: Body
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

export interface Requested {
  method: string
  /** With parameters in braces. */
  path: string
  /** An Idempotency-Key is wanted. */
  acts?: boolean
}
export interface Given extends CallOptions {
  params?: object
  query?: object
  body?: unknown
}

export class Requester {
  readonly #options: ClientOptions

  constructor(options: ClientOptions) {
    this.#options = options
  }

  /** @throws ApiProblem for every answer that is no success. */
  protected async request<Body>(requested: Requested, given: Given): Promise<Answer<Body>> {
    const response = await (this.#options.fetch ?? fetch)(this.#options.url + targetOf(requested, given), {
      method: requested.method,
      headers: this.#headers(requested, given),
      ...(given.body !== undefined && { body: JSON.stringify(given.body) }),
    })
    const { status, headers } = response
    const text = await response.text()
    const body: unknown = text === '' ? undefined : jsonOf(text)
    if (response.ok) return { status, body: body as Body, etag: headers.get('etag'), headers }
    if (isProblem(body)) throw new ApiProblem(body)
    throw new Error(`${requested.method} ${requested.path}: status ${status} without a problem document`)
  }

  #headers(requested: Requested, given: Given): Record<string, string> {
    const { token } = this.#options
    const key = given.idempotencyKey ?? (requested.acts === true ? crypto.randomUUID() : undefined)
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

/** Whoever stands between may answer with a page of his own. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const isProblem = (body: unknown): body is Problem =>
  typeof body === 'object' && body !== null && 'code' in body && 'detail' in body && 'status' in body

export function targetOf({ path }: Pick<Requested, 'path'>, given: { params?: object; query?: object }): string {
  const params = (given.params ?? {}) as Record<string, unknown>
  const filled = path.replaceAll(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(params[name])))
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(given.query ?? {})) {
    if (value !== undefined) query.set(name, String(value))
  }
  return query.size === 0 ? filled : `${filled}?${query}`
}
