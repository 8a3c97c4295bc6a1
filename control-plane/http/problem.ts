import type { Problem } from '../../shared/contract/api/common.ts'

/** Every refusal the API knows, in one table: the code is part of the contract, the title is for people. */
const codes = {
  malformed: { status: 400, title: 'The request cannot be read', retryable: false },
  idempotency_key_missing: { status: 400, title: 'An Idempotency-Key is needed', retryable: false },
  unauthenticated: { status: 401, title: 'No valid credential', retryable: false },
  forbidden: { status: 403, title: 'The credential does not allow this', retryable: false },
  not_found: { status: 404, title: 'There is no such thing', retryable: false },
  method_not_allowed: { status: 405, title: 'The path knows other methods', retryable: false },
  conflict: { status: 409, title: 'The present state does not allow this', retryable: false },
  name_taken: { status: 409, title: 'The name is in use', retryable: false },
  epoch_changed: { status: 409, title: 'The caller decided on old news', retryable: false },
  operation_in_progress: { status: 409, title: 'Another operation is under way', retryable: true },
  operation_refused: { status: 409, title: 'Something stands in the way', retryable: true },
  not_cancellable: { status: 409, title: 'It is past the point of no return', retryable: false },
  gone: { status: 410, title: 'It is too old', retryable: false },
  stale: { status: 412, title: 'It was changed meanwhile', retryable: false },
  too_large: { status: 413, title: 'The body is too large', retryable: false },
  not_json: { status: 415, title: 'Bodies are JSON', retryable: false },
  invalid: { status: 422, title: 'The request breaks a rule', retryable: false },
  idempotency_key_reused: { status: 422, title: 'The Idempotency-Key belongs to another request', retryable: false },
  if_match_missing: { status: 428, title: 'If-Match is needed', retryable: false },
  rate_limited: { status: 429, title: 'Too many requests', retryable: true },
  internal: { status: 500, title: 'A fault of ours', retryable: true },
  busy: { status: 503, title: 'Not now', retryable: true },
} as const
export type ProblemCode = keyof typeof codes
export const problemCodes = Object.keys(codes) as ProblemCode[]
/** For people who look a code up. */
export const problemTable = problemCodes.map(code => ({ code, ...codes[code] }))

export type ProblemExtra = Pick<Problem, 'violations' | 'obstacles' | 'operation'>

/** An expected refusal on its way to the edge; thrown inside a transaction it also takes everything back. */
export class Refusal extends Error {
  override name = 'Refusal'
  readonly code: ProblemCode
  readonly extra: ProblemExtra
  readonly headers: Record<string, string>
  /** Of a witness: the incarnation in force, for whoever wants to replace it. */
  readonly present: string | undefined

  constructor(
    code: ProblemCode,
    detail: string,
    { headers = {}, present, ...extra }: ProblemExtra & { headers?: Record<string, string>; present?: string } = {},
  ) {
    super(detail)
    this.code = code
    this.extra = extra
    this.headers = headers
    this.present = present
  }
}

/** For rules that a schema cannot say: each of them with its field, as the body has it ("body.vips.0.address"). */
export function invalid(faults: readonly { field: string; message: string }[], rule: string): Refusal {
  const detail = faults.map(one => `${one.field}: ${one.message}`).join('; ')
  return new Refusal('invalid', detail, { violations: faults.map(one => ({ ...one, rule })) })
}

export const notFound = (what: string, id: string): Refusal =>
  new Refusal('not_found', `there is no ${what} ${id} in this organisation`)

export function problemResponse(refusal: Refusal, requestId: string): Response {
  const { status, title, retryable } = codes[refusal.code]
  const body: Problem = {
    type: `/problems/${refusal.code}`,
    title,
    status,
    code: refusal.code,
    detail: refusal.message,
    instance: requestId,
    retryable,
    ...refusal.extra,
  }
  return new Response(JSON.stringify(body), {
    status,
    headers: { 'content-type': 'application/problem+json', 'cache-control': 'no-store', ...refusal.headers },
  })
}

/** The shape that every refusal of a witness has, hosted or not: for people, the protocol takes it as silence. */
export function witnessRefusal(refusal: Refusal): Response {
  const { status } = codes[refusal.code]
  const why = refusal.message.slice(0, witnessWhyMax)
  const { present } = refusal
  return new Response(JSON.stringify({ kind: 'none', why, ...(present !== undefined && { present }) }), {
    status,
    headers: { 'content-type': 'application/json' },
  })
}
/** As the contract bounds it. */
const witnessWhyMax = 500

const uniqueViolation = '23505'
const lockNotAvailable = '55P03'
const deadlockDetected = '40P01'
const tooManyConnections = '53300'
/** At its limit of time (`db/client.ts`): what it waited for was held for longer. */
const queryCanceled = '57014'
const readOnly = '25006'
const diskFull = '53100'
/**
 * The database is not there, or goes or comes just now: PostgreSQL's class 08 and 57P01 to 57P03 (Appendix A), the driver's
 * own words for a connection that broke, and the system's.
 */
const databaseAway =
  /^(?:08...|57P0[123]|CONNECTION_(?:CLOSED|ENDED|DESTROYED)|CONNECT_TIMEOUT|ECONNREFUSED|ECONNRESET|EPIPE)$/

/** Whether nothing of a statement's own is wrong, and it may succeed once the database is back. */
export function isDatabaseAway(error: unknown): boolean {
  const state = sqlState(error)
  return state !== null && databaseAway.test(state)
}

/** What an error means to a caller; an error that means nothing to him is a fault of ours, and its text stays here. */
export function classify(error: unknown): Refusal {
  if (error instanceof Refusal) return error
  const state = sqlState(error)
  const busy = (why: string, afterSeconds: number): Refusal =>
    new Refusal('busy', `${why}; try again`, { headers: { 'retry-after': String(afterSeconds) } })
  if (isDatabaseAway(error))
    return new Refusal('busy', 'the database does not answer now; try again. Whether a change was taken is not known', {
      headers: { 'retry-after': '2' },
    })
  switch (state) {
    case lockNotAvailable:
    case deadlockDetected:
      return busy('another request holds what this one needs', 1)
    case queryCanceled:
      return busy('a statement was ended at its limit of time, and nothing of this request was done', 2)
    case tooManyConnections:
      return busy('the database takes no more connections now', 2)
    case readOnly:
      return busy('the database can only be read now, as a standby or after a failover, and nothing was changed', 5)
    case diskFull:
      return busy('the database has no room on its disk, and nothing was changed', 30)
    default:
      return new Refusal('internal', 'an unexpected error; the request id finds it in the log')
  }
}

/** Whether a statement broke this unique index. */
export const isTaken = (error: unknown, index: string): boolean =>
  sqlState(error) === uniqueViolation && sqlField(error, 'constraint_name') === index

const sqlState = (error: unknown): string | null => sqlField(error, 'code')

/** drizzle wraps the driver's error. */
function sqlField(error: unknown, name: string): string | null {
  for (let at = error; typeof at === 'object' && at !== null; at = (at as { cause?: unknown }).cause) {
    const value = (at as Record<string, unknown>)[name]
    if (typeof value === 'string') return value
  }
  return null
}
