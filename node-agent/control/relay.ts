import { z } from 'zod'

/**
 * The third way to the control plane: a host that reaches neither broker nor HTTPS asks its peer to carry the request.
 * The peer can only carry. Requests are signed by the host that makes them, over method, path and body, and what comes
 * back are documents that are signed for it: changed, older or foreign ones are refused where they arrive, as they are
 * from a broker. Only what a link needs is carried, to the control plane of the carrying host and nowhere else, and a
 * carried request is never passed on.
 */
/** A question to the peer holds 64 KiB, with the quotes of JSON in JSON. */
const carriedBytesMax = 48 * 1024
/** Those of one link, which makes its requests one after the other, and of a burst of answers. */
const carriesAtOnce = 4
/** Before the core's, and that of the host which asks. */
const carryLimitMs = 10_000
const carriedPaths = ['/agent/v1/desired', '/agent/v1/report', '/agent/v1/events', '/agent/v1/acks'] as const
export const isCarried = (path: string): boolean => (carriedPaths as readonly string[]).includes(path)

export const relayRequest = z.strictObject({
  method: z.enum(['GET', 'POST']),
  path: z.enum(carriedPaths),
  authorization: z.string().regex(/^Understudy [\w.-]{1,2000}$/),
  ifNoneMatch: z.string().max(200).nullable(),
  body: z.string().max(carriedBytesMax).nullable(),
})
export type RelayRequest = z.output<typeof relayRequest>

export const relayAnswer = z.object({
  status: z.int().min(100).max(599),
  body: z.string().max(carriedBytesMax),
  etag: z.string().max(200).nullable(),
  date: z.string().max(100).nullable(),
})
export type RelayAnswer = z.output<typeof relayAnswer>

/** The peer's requests, carried to the control plane at `url`. */
export class Carrier {
  readonly #url: string
  readonly #fetch: typeof fetch
  #carrying = 0

  constructor({ url, fetch: given = fetch }: { url: string; fetch?: typeof fetch }) {
    this.#url = url
    this.#fetch = given
  }

  /** @throws with a sentence: nothing was carried, or no answer came */
  async carry(asked: unknown): Promise<RelayAnswer> {
    const parsed = relayRequest.safeParse(asked)
    if (!parsed.success) throw new Error('this is no request of a host to its control plane, and is not carried')
    if (this.#carrying >= carriesAtOnce) throw new Error(`${carriesAtOnce} requests are being carried already`)
    this.#carrying++
    try {
      const answer = await sendTo(this.#url, parsed.data, { fetch: this.#fetch, limitMs: carryLimitMs })
      if (answer.body.length > carriedBytesMax)
        throw new Error(
          `the control plane's answer of ${answer.body.length} bytes is more than travels between the hosts`,
        )
      return answer
    } finally {
      this.#carrying--
    }
  }
}

/** One request to the control plane at `url`, one's own or a carried one. @throws as fetch does */
export async function sendTo(
  url: string,
  { method, path, authorization, ifNoneMatch, body }: Omit<RelayRequest, 'path'> & { path: string },
  { fetch: send, limitMs }: { fetch: typeof fetch; limitMs: number },
): Promise<RelayAnswer> {
  const response = await send(url + path, {
    method,
    headers: {
      authorization,
      ...(body !== null && { 'content-type': 'application/json' }),
      ...(ifNoneMatch !== null && { 'if-none-match': ifNoneMatch }),
    },
    ...(body !== null && { body }),
    redirect: 'error',
    signal: AbortSignal.timeout(limitMs),
  })
  const { status, headers } = response
  return { status, body: await response.text(), etag: headers.get('etag'), date: headers.get('date') }
}
