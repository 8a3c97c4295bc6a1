import { z } from 'zod'
import type { presentKeys, pushInventory } from '../../shared/contract/api/agents.ts'
import { heartbeatKeyPurpose } from '../../shared/contract/heartbeat-mac.ts'
import type { HostEvent, HostReport } from '../../shared/contract/report.ts'
import { sha256Base64url, signCompact } from '../../shared/contract/signing.ts'
import { unseal } from '../../shared/sealing.ts'
import type { Identity } from './identity.ts'
import { isCarried, type RelayAnswer, type RelayRequest, sendTo } from './relay.ts'

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
  sealedHeartbeatKey: z.string(),
})
export type PulledDocuments = z.output<typeof documents>

const brokerCertificate = z.object({ certificate: z.string(), authority: z.string(), endsAt: z.iso.datetime() })

const requestLimitMs = 15_000
/** The greatest answer is a desired document with some commands that carry sealed secrets. */
const answerBytesMax = 2 * 1024 * 1024

export type Relay = (request: RelayRequest) => Promise<RelayAnswer>

export interface CloudOptions {
  fetch?: typeof fetch | undefined
  nowMs?: () => number
  relay?: Relay | undefined
}

/** A way that is cut swallows requests until their time is over: for so long the peer is asked at once. */
const ownWayAgainMs = 60_000

export class Cloud {
  readonly #identity: Identity
  readonly #fetch: typeof fetch
  readonly #nowMs: () => number
  /** Of the last documents; lost with the process, which costs one full answer. */
  #etag: string | null = null
  /** The control plane's clock against ours, from its answers: a host with a wrong clock still gets through. */
  #offsetMs = 0
  #heartbeatKey: string | null = null

  /** Through the peer, where this host does not get through itself. */
  readonly #relay: Relay | null
  #carriedAtMs: number | null = null

  constructor(identity: Identity, options: CloudOptions = {}) {
    this.#identity = identity
    this.#fetch = options.fetch ?? fetch
    this.#nowMs = options.nowMs ?? Date.now
    this.#relay = options.relay ?? null
  }

  /** Whether the last request that got through went by way of the peer. */
  get throughPeer(): boolean {
    return this.#carriedAtMs !== null
  }

  /** Comes with the documents; null: none came yet, or none that was sealed for this host. */
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
    const { host, sealingKey } = this.#identity
    const opening = { key: sealingKey, purpose: heartbeatKeyPurpose(host) }
    this.#heartbeatKey = await unseal(parsed.data.sealedHeartbeatKey, opening)
    return { ok: true, value: parsed.data }
  }

  report = (report: HostReport): Promise<Outcome<unknown>> => this.#post('/agent/v1/report', report)
  inventory = (told: ToldInventory): Promise<Outcome<unknown>> => this.#post('/agent/v1/inventory', told)
  events = (events: readonly HostEvent[]): Promise<Outcome<unknown>> => this.#post('/agent/v1/events', { v: 1, events })
  ack = (ack: string): Promise<Outcome<unknown>> => this.#post('/agent/v1/acks', { ack })

  keys = (presented: z.input<typeof presentKeys.body>): Promise<Outcome<unknown>> =>
    this.#post('/agent/v1/keys', presented)

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
      const authorization = `Understudy ${await signCompact({ kid: host, jwk: key }, claims)}`
      const ifNoneMatch = method === 'GET' ? this.#etag : null
      const answer = await this.#send(url, { method, path, authorization, ifNoneMatch, body })
      this.#learnTime(answer.date)
      const { status, body: text, etag } = answer
      if (text.length > answerBytesMax) return { ok: false, status, why: 'the answer is too large' }
      if (status !== 304 && (status < 200 || status > 299)) return { ok: false, status, why: detailOf(text) }
      return { ok: true, value: { status, body: text === '' ? null : (JSON.parse(text) as unknown), etag } }
    } catch (error) {
      return { ok: false, status: null, why: error instanceof Error ? error.message : String(error) }
    }
  }

  async #send(url: string, request: Omit<RelayRequest, 'path'> & { path: string }): Promise<RelayAnswer> {
    const { path } = request
    const relay = isCarried(path) ? this.#relay : null
    const carried = this.#carriedAtMs
    if (relay !== null && carried !== null && this.#nowMs() - carried < ownWayAgainMs) {
      try {
        return await relay({ ...request, path: path as RelayRequest['path'] })
      } catch {
        this.#carriedAtMs = null
      }
    }
    try {
      const answer = await sendTo(url, request, { fetch: this.#fetch, limitMs: requestLimitMs })
      this.#carriedAtMs = null
      return answer
    } catch (error) {
      if (relay === null) throw error
      // The peer's reason is not ours: what is to be mended is the own way.
      const answer = await relay({ ...request, path: path as RelayRequest['path'] }).catch(() => null)
      if (answer === null) throw error
      this.#carriedAtMs = this.#nowMs()
      return answer
    }
  }

  /** RFC 9110, Date: to the second. Only for our own signatures' time; nothing on this host is set by it. */
  #learnTime(told: string | null): void {
    const date = Date.parse(told ?? '')
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
