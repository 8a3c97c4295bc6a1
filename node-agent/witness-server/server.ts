import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { z } from 'zod'
import {
  admitRequest,
  headerHost,
  headerSignature,
  keysQuestion,
  keysRequest,
  type ListReply,
  pairName,
  retireRequest,
  voteRequest,
  witnessBodyBytesMax,
  witnessPath,
} from '../../shared/contract/witness.ts'
import type { SignedRequest } from '../../shared/signing.ts'
import { Authority, sameToken } from './authority.ts'
import type { WitnessIdentity } from './identity.ts'
import { RateLimit } from './rate-limit.ts'
import { admit, admitted, changeKeys, type PairRow, retire, sameKeys, vote } from './row.ts'
import type { UpdateResult, WitnessStore } from './store.ts'

/** A client that probes every 10 to 30 s keeps its connection. */
const keepAliveMs = 120_000
const requestLimitMs = 10_000
const connectionsMax = 20_000
export interface WitnessLimits {
  perPair: { perSecond: number; burst: number }
  perAddress: { perSecond: number; burst: number }
}
export const witnessLimits: WitnessLimits = {
  /** A pair in trouble sends some tens of votes a second. */
  perPair: { perSecond: 100, burst: 300 },
  /** Before anything costs a signature; many pairs may share one address behind a NAT. */
  perAddress: { perSecond: 1000, burst: 3000 },
}
const rateKeysMax = 20_000

type Verb = 'admit' | 'vote' | 'keys' | 'retire'
interface Answer {
  status: number
  body: object
}

/** The witness: the acceptor of many pairs behind HTTPS. It has no clock, no timer and no opinion. */
export class WitnessServer {
  readonly #store: WitnessStore
  readonly #identity: WitnessIdentity
  readonly #authority = new Authority()
  readonly #pairs: RateLimit
  readonly #addresses: RateLimit
  readonly #server: Server

  constructor(store: WitnessStore, identity: WitnessIdentity, limits: WitnessLimits = witnessLimits) {
    this.#pairs = new RateLimit({ ...limits.perPair, keysMax: rateKeysMax })
    this.#addresses = new RateLimit({ ...limits.perAddress, keysMax: rateKeysMax })
    this.#store = store
    this.#identity = identity
    this.#server = createServer(
      {
        key: identity.tls.keyPem,
        cert: identity.tls.certificatePem,
        minVersion: 'TLSv1.3',
        keepAliveTimeout: keepAliveMs,
        headersTimeout: requestLimitMs,
        requestTimeout: requestLimitMs,
        maxHeaderSize: 8192,
        noDelay: true,
      },
      (request, response) => void this.#serve(request, response),
    )
    this.#server.maxConnections = connectionsMax
    this.#server.on('tlsClientError', () => {})
  }

  listen(at: { address: string; port: number }): Promise<AddressInfo> {
    return new Promise((resolve, reject) => {
      // For good: a connection that can't be taken later on, for want of memory, is the client's affair.
      this.#server.on('error', reject)
      this.#server.listen(at.port, at.address, () => resolve(this.#server.address() as AddressInfo))
    })
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise(resolve => this.#server.close(resolve))
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.on('error', () => {})
    response.on('error', () => {})
    const answer = await this.#answer(request)
    if (response.destroyed) return
    const body = Buffer.from(JSON.stringify(answer.body))
    // Whatever of a refused body is still on its way would be read as the next request.
    const close = request.complete ? {} : { connection: 'close' }
    const headers = { 'content-type': 'application/json', 'content-length': body.length, ...close }
    response.writeHead(answer.status, headers).end(body)
  }

  async #answer(request: IncomingMessage): Promise<Answer> {
    const address = request.socket.remoteAddress ?? ''
    if (!this.#addresses.take(address, performance.now())) return refuse(429, `too many requests from ${address}`)
    const route = routeOf(request)
    if (route === null) return refuse(404, 'no such path')
    if (route.verb === 'health') return { status: 200, body: { ok: true } }
    const body = await readBody(request)
    if (body === null) return refuse(413, `a body of more than ${witnessBodyBytesMax} bytes, or one that broke off`)
    if (route.verb === 'list') return this.#list(request)
    return this.#pairVerb(request, { ...route, body })
  }

  async #pairVerb(request: IncomingMessage, part: { pair: string; verb: Verb; body: Buffer }): Promise<Answer> {
    const { pair, verb, body } = part
    if (!this.#pairs.take(pair, performance.now())) return refuse(429, `too many requests of pair ${pair}`)
    const row = this.#store.row(pair)
    const signed = signedRequest(request, witnessPath[verb](pair), body)
    if (verb === 'admit') return this.#admit(request, { pair, row, body, signed })
    if (row === null)
      return refuse(404, `this witness does not know pair ${pair}: it was never admitted, or the store was lost`)
    const operator = verb === 'retire' && sameToken(bearerOf(request), this.#identity.operatorToken)
    if (!operator && !(await this.#signed(row, signed)))
      return refuse(401, `no valid signature of a host of pair ${pair}`)
    switch (verb) {
      case 'vote':
        return this.#decided(parse(voteRequest, body), request => this.#store.update(pair, row => vote(row!, request)))
      case 'keys':
        if (parse(keysQuestion, body).ok) return { status: 200, body: admitted(row) }
        return this.#decided(parse(keysRequest, body), request =>
          this.#store.update(pair, row => changeKeys(row!, request)),
        )
      case 'retire':
        return this.#decided(parse(retireRequest, body), request =>
          this.#store.update(pair, row => retire(row!, { request, at: new Date().toISOString() })),
        )
    }
  }

  /** The first time by the enrolment token, and signed by a key it brings along; then by a key that is registered. */
  async #admit(
    request: IncomingMessage,
    part: { pair: string; row: PairRow | null; body: Buffer; signed: Signed | null },
  ): Promise<Answer> {
    const { pair, row, signed } = part
    if (row === null && !sameToken(bearerOf(request), this.#identity.enrolmentToken)) {
      return refuse(401, `pair ${pair} is new to this witness, and the enrolment token is missing or wrong`)
    }
    const wanted = parse(admitRequest, part.body)
    if (!wanted.ok) return refuse(400, wanted.why)
    const keys = row?.keys ?? wanted.value.keys
    if (!(await this.#signed({ keys }, signed))) return refuse(401, `no valid signature of a host of pair ${pair}`)
    return this.#decided(wanted, request =>
      this.#store.update(pair, row => {
        // Another admission of the same pair may have come first, with keys that are not ours.
        if (row !== null && !sameKeys(row.keys, keys))
          return { row, reply: { ok: false, why: `pair ${pair} is being admitted` } }
        return admit(row, { pair, request, fresh: { inc: randomUUID(), at: new Date().toISOString() } })
      }),
    )
  }

  async #decided<Request, Reply extends object>(
    parsed: Parsed<Request>,
    update: (request: Request) => Promise<UpdateResult<Reply>>,
  ): Promise<Answer> {
    if (!parsed.ok) return refuse(400, parsed.why)
    const result = await update(parsed.value)
    return result.ok ? { status: 200, body: result.body } : refuse(statusOf[result.code], result.why, result.present)
  }

  async #signed(row: Pick<PairRow, 'keys'>, signed: Signed | null): Promise<boolean> {
    return signed !== null && this.#authority.signedBy(row.keys, signed.request, signed.signature)
  }

  #list(request: IncomingMessage): Answer {
    if (!sameToken(bearerOf(request), this.#identity.operatorToken))
      return refuse(401, 'the operator token is missing or wrong')
    const pairs: ListReply['pairs'] = this.#store.rows().map(row => ({
      pair: row.pair,
      inc: row.acceptor.inc,
      keysGeneration: row.keysGeneration,
      admittedAt: row.admittedAt,
      retiredAt: row.retiredAt,
      promised: row.acceptor.promised,
      accepted: row.acceptor.acc?.ballot ?? 0,
      primary: row.acceptor.acc?.value.primary ?? null,
    }))
    return { status: 200, body: { pairs } }
  }
}

const statusOf = { refused: 409, busy: 503, full: 507, failed: 500 } as const

/** The same shape for every verb: a vote that is refused is no vote. */
const refuse = (status: number, why: string, present?: string): Answer => ({
  status,
  body: { kind: 'none', why, ...(present !== undefined && { present }) },
})

interface Signed {
  request: SignedRequest
  signature: string
}

function signedRequest(request: IncomingMessage, path: string, body: Buffer): Signed | null {
  const host = request.headers[headerHost]
  const signature = request.headers[headerSignature]
  if ((host !== 'a' && host !== 'b') || typeof signature !== 'string') return null
  return { request: { host, method: 'POST', path, body }, signature }
}

function routeOf(
  request: IncomingMessage,
): { verb: 'list' } | { verb: 'health' } | { verb: Verb; pair: string } | null {
  if (request.method === 'GET' && request.url === witnessPath.list) return { verb: 'list' }
  if (request.method === 'GET' && request.url === witnessPath.health) return { verb: 'health' }
  const match = /^\/pairs\/([^/]+)\/(admit|vote|keys|retire)$/.exec(request.url ?? '')
  if (request.method !== 'POST' || match === null) return null
  const pair = pairName.safeParse(match[1])
  return pair.success ? { verb: match[2] as Verb, pair: pair.data } : null
}

/** null = too long, or cut off. */
async function readBody(request: IncomingMessage): Promise<Buffer | null> {
  if (Number(request.headers['content-length'] ?? 0) > witnessBodyBytesMax) return null
  const chunks: Buffer[] = []
  let bytes = 0
  try {
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      bytes += (chunk as Buffer).length
      if (bytes > witnessBodyBytesMax) return null
      chunks.push(chunk as Buffer)
    }
  } catch {
    return null
  }
  return Buffer.concat(chunks)
}

const bearerOf = (request: IncomingMessage): string | undefined =>
  /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1]

type Parsed<T> = { ok: true; value: T } | { ok: false; why: string }

function parse<T>(schema: z.ZodType<T>, body: Buffer): Parsed<T> {
  let json: unknown
  try {
    json = JSON.parse(body.toString())
  } catch {
    return { ok: false, why: 'the body is not JSON' }
  }
  const parsed = schema.safeParse(json)
  if (parsed.success) return { ok: true, value: parsed.data }
  const issue = parsed.error.issues[0]
  return { ok: false, why: `field ${issue?.path.join('.') || '(root)'} of the body is wrong: ${issue?.message}` }
}
