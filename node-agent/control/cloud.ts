import { z } from 'zod'
import type { pushInventory } from '../../shared/contract/api/agents.ts'
import type { HostEvent, HostReport } from '../../shared/contract/report.ts'
import { sha256Base64url, signCompact } from '../../shared/contract/signing.ts'
import type { Identity } from './identity.ts'

/** Of networks and storage, whole. */
export type ToldInventory = z.input<typeof pushInventory.body>

/** The control plane over HTTPS: every request signed by this host's key. Never throws: a failure is a sentence. */
export type Outcome<T> = { ok: true; value: T } | { ok: false; status: number | null; why: string }

const documents = z.object({
  trust: z.string(),
  desired: z.string().nullable(),
  fresh: z.string(),
  commands: z.array(z.string()).max(100),
  pollAfterSeconds: z.number().min(1).max(3600),
  heartbeatKey: z.string(),
})
export type PulledDocuments = z.output<typeof documents>

const brokerCertificate = z.object({ certificate: z.string(), authority: z.string(), endsAt: z.iso.datetime() })

const requestLimitMs = 15_000
/** The greatest answer is a desired document with some commands that carry sealed secrets. */
const answerBytesMax = 2 * 1024 * 1024

export class Cloud {
  readonly #identity: Identity
  readonly #fetch: typeof fetch
  readonly #nowMs: () => number
  /** Of the last documents; lost with the process, which costs one full answer. */
  #etag: string | null = null
  /** The control plane's clock against ours, from its answers: a host with a wrong clock still gets through. */
  #offsetMs = 0
  #heartbeatKey: string | null = null

  constructor(identity: Identity, options: { fetch?: typeof fetch; nowMs?: () => number } = {}) {
    this.#identity = identity
    this.#fetch = options.fetch ?? fetch
    this.#nowMs = options.nowMs ?? Date.now
  }

  /** Comes with the documents; null: none came yet. */
  get heartbeatKey(): string | null {
    return this.#heartbeatKey
  }

  /** Our time as the control plane's clock has it, in whole ms: it judges by it how old a word over the broker is. */
  correctedNowMs(): number {
    return Math.round(this.#nowMs() + this.#offsetMs)
  }

  /** null: nothing new. */
  async pull(): Promise<Outcome<PulledDocuments | null>> {
    const answer = await this.#request('GET', '/agent/v1/desired', null)
    if (!answer.ok) return answer
    if (answer.value.status === 304) return { ok: true, value: null }
    const parsed = documents.safeParse(answer.value.body)
    if (!parsed.success)
      return { ok: false, status: answer.value.status, why: 'the documents are of a form this version does not know' }
    this.#etag = answer.value.etag
    this.#heartbeatKey = parsed.data.heartbeatKey
    return { ok: true, value: parsed.data }
  }

  report = (report: HostReport): Promise<Outcome<unknown>> => this.#post('/agent/v1/report', report)
  inventory = (told: ToldInventory): Promise<Outcome<unknown>> => this.#post('/agent/v1/inventory', told)
  events = (events: readonly HostEvent[]): Promise<Outcome<unknown>> => this.#post('/agent/v1/events', { v: 1, events })
  ack = (ack: string): Promise<Outcome<unknown>> => this.#post('/agent/v1/acks', { ack })

  /** For the broker: the first or the next one, by the key of the enrolment. `publicKey`: P-256, SPKI, base64url. */
  async certificate(publicKey: string): Promise<Outcome<z.output<typeof brokerCertificate>>> {
    const answer = await this.#post('/agent/v1/certificate', { publicKey })
    if (!answer.ok) return answer
    const parsed = brokerCertificate.safeParse(answer.value)
    return parsed.success
      ? { ok: true, value: parsed.data }
      : { ok: false, status: null, why: 'the answer is no certificate' }
  }

  /** The documents are wanted whole again: what was held of them is lost or void. */
  forget(): void {
    this.#etag = null
  }

  async #post(path: string, body: unknown): Promise<Outcome<unknown>> {
    const answer = await this.#request('POST', path, JSON.stringify(body))
    return answer.ok ? { ok: true, value: answer.value.body } : answer
  }

  async #request(
    method: 'GET' | 'POST',
    path: string,
    body: string | null,
  ): Promise<Outcome<{ status: number; body: unknown; etag: string | null }>> {
    const { url, host, key } = this.#identity
    const bytes = new TextEncoder().encode(body ?? '')
    try {
      const claims = {
        v: 1,
        host,
        method,
        path,
        body: await sha256Base64url(bytes),
        issuedAt: Math.floor((this.#nowMs() + this.#offsetMs) / 1000),
      }
      const response = await this.#fetch(url + path, {
        method,
        headers: {
          authorization: `Understudy ${await signCompact({ kid: host, jwk: key }, claims)}`,
          ...(body !== null && { 'content-type': 'application/json' }),
          ...(method === 'GET' && this.#etag !== null && { 'if-none-match': this.#etag }),
        },
        ...(body !== null && { body }),
        redirect: 'error',
        signal: AbortSignal.timeout(requestLimitMs),
      })
      this.#learnTime(response)
      const text = await response.text()
      if (text.length > answerBytesMax) return { ok: false, status: response.status, why: 'the answer is too large' }
      if (response.status !== 304 && !response.ok) return { ok: false, status: response.status, why: detailOf(text) }
      const value = {
        status: response.status,
        body: text === '' ? null : (JSON.parse(text) as unknown),
        etag: response.headers.get('etag'),
      }
      return { ok: true, value }
    } catch (error) {
      return { ok: false, status: null, why: error instanceof Error ? error.message : String(error) }
    }
  }

  /** RFC 9110, Date: to the second. Only for our own signatures' time; nothing on this host is set by it. */
  #learnTime(response: Response): void {
    const date = Date.parse(response.headers.get('date') ?? '')
    if (Number.isFinite(date)) this.#offsetMs = Math.abs(date - this.#nowMs()) > tolerableMs ? date - this.#nowMs() : 0
  }
}

/** Below what the control plane tolerates. */
const tolerableMs = 30_000

function detailOf(text: string): string {
  try {
    const { detail } = JSON.parse(text) as { detail?: unknown }
    return typeof detail === 'string' ? detail : text.slice(0, 200)
  } catch {
    return text.slice(0, 200)
  }
}
