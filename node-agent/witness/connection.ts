import { lookup } from 'node:dns'
import type { IncomingMessage } from 'node:http'
import { Agent, request } from 'node:https'
import type { LookupFunction } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect, type TLSSocket } from 'node:tls'
import { fingerprintOf } from '../keys/certificates.ts'

/** How the witness proves who it is. */
export type Trust =
  /** SHA-256 of its certificate, lower case hex: nothing else of the certificate counts, nor its dates. */
  | { by: 'fingerprint'; sha256: string }
  /** A certificate that the system, or these authorities, vouch for. */
  | { by: 'authority'; caPem: string | null }

/** As the configuration says it: without a fingerprint the system's authorities vouch. */
export const trustOf = ({ fingerprint }: { fingerprint: string | null }): Trust =>
  fingerprint === null ? { by: 'authority', caPem: null } : { by: 'fingerprint', sha256: fingerprint }

export interface WitnessAddress {
  /** https://name:port, with a path where the witness is part of a control plane. */
  url: string
  trust: Trust
}

export interface Exchange {
  method: 'GET' | 'POST'
  /** Below the base address. */
  path: string
  headers: { [name: string]: string }
  body: Buffer | null
  limitMs: number
}
export type ExchangeResult = { ok: true; status: number; body: Buffer } | { ok: false; why: string }
/** The witness answered that no host of the pair has signed it. */
export const isUnknownKey = (result: ExchangeResult): boolean => result.ok && result.status === 401

/** Several votes may be under way; one that hangs must not hold up the next. */
const socketsMax = 4
/** The greatest answer is a promise with a value, 500 bytes; a list of pairs is the operator's affair. */
const answerBytesMax = 8 * 1024 * 1024

/** Connections to one witness that are kept, and thrown away together when one of them seems to be dead. */
export class WitnessConnection {
  readonly #address: WitnessAddress
  readonly #base: URL
  readonly #agent: Agent

  constructor(address: WitnessAddress, addresses: LastAddresses) {
    this.#address = address
    this.#base = new URL(address.url)
    if (this.#base.protocol !== 'https:')
      throw new Error(`the address of a witness begins with https://, unlike ${address.url}`)
    this.#agent = new PinnedAgent(this.#base, address.trust, addresses)
  }

  /** Never rejects. `cancel` ends it at once, with no result. */
  exchange(part: Exchange, done: (result: ExchangeResult) => void): { cancel: () => void } {
    let finished = false
    const finish = (result: ExchangeResult): void => {
      if (finished) return
      finished = true
      clearTimeout(timer)
      done(result)
    }
    const length = part.body === null ? {} : { 'content-length': String(part.body.length) }
    const sent = request(
      {
        agent: this.#agent,
        method: part.method,
        host: this.#base.hostname,
        port: this.#base.port || 443,
        path: this.#base.pathname.replace(/\/$/, '') + part.path,
        headers: { ...part.headers, ...length },
      },
      response => void readAnswer(response).then(finish),
    )
    sent.once('error', fault => finish({ ok: false, why: `${this.#address.url}: ${fault.message}` }))
    const timer = setTimeout(() => {
      finish({ ok: false, why: `${this.#address.url} did not answer within ${part.limitMs} ms` })
      sent.destroy()
    }, part.limitMs)
    sent.end(part.body)
    const cancel = (): void => {
      finished = true
      clearTimeout(timer)
      sent.destroy()
    }
    return { cancel }
  }

  close(): void {
    this.#agent.destroy()
  }
}

async function readAnswer(response: IncomingMessage): Promise<ExchangeResult> {
  const chunks: Buffer[] = []
  let bytes = 0
  try {
    for await (const chunk of response) {
      bytes += (chunk as Buffer).length
      if (bytes > answerBytesMax) return { ok: false, why: `an answer of more than ${answerBytesMax} bytes` }
      chunks.push(chunk as Buffer)
    }
  } catch (fault) {
    return { ok: false, why: `the answer broke off: ${fault instanceof Error ? fault.message : String(fault)}` }
  }
  return { ok: true, status: response.statusCode ?? 0, body: Buffer.concat(chunks) }
}

/** Hands out a connection only after the other side has shown who it is: not a byte of a request leaves before. */
class PinnedAgent extends Agent {
  readonly #base: URL
  readonly #trust: Trust
  readonly #addresses: LastAddresses

  constructor(base: URL, trust: Trust, addresses: LastAddresses) {
    super({ keepAlive: true, maxSockets: socketsMax, maxFreeSockets: socketsMax, scheduling: 'lifo' })
    this.#base = base
    this.#trust = trust
    this.#addresses = addresses
  }

  override createConnection(_: unknown, callback?: (fault: Error | null, stream: Duplex) => void): undefined {
    const host = this.#base.hostname.replace(/^\[|\]$/g, '')
    const trust = this.#trust
    const socket = connect({
      host,
      port: Number(this.#base.port || 443),
      ...(/^[\d.]+$|:/.test(host) ? {} : { servername: host }),
      ...(trust.by === 'authority' && trust.caPem !== null ? { ca: trust.caPem } : {}),
      rejectUnauthorized: trust.by === 'authority',
      minVersion: 'TLSv1.2',
      ALPNProtocols: ['http/1.1'],
      lookup: this.#addresses.lookup,
    })
    socket.setNoDelay(true)
    const failed = (fault: Error): void => {
      socket.destroy()
      callback?.(fault, socket)
    }
    socket.once('error', failed)
    socket.once('secureConnect', () => {
      const fault = pinFault(socket, trust)
      if (fault !== null) return failed(fault)
      socket.removeListener('error', failed)
      callback?.(null, socket)
      return
    })
    return undefined
  }
}

function pinFault(socket: TLSSocket, trust: Trust): Error | null {
  if (trust.by === 'authority') return null
  const certificate = socket.getPeerX509Certificate()
  const shown = certificate === undefined ? 'none' : fingerprintOf(certificate)
  if (shown === trust.sha256.toLowerCase()) return null
  return new Error(
    `its certificate has fingerprint ${shown}, not ${trust.sha256}: this is another witness, or somebody in between`,
  )
}

/**
 * The last addresses that a name had: used at once while the name is looked up again, so that a slow or dead name
 * server costs a vote nothing.
 */
export class LastAddresses {
  readonly #known = new Map<string, { address: string; family: number }[]>()

  readonly lookup: LookupFunction = (name, options, callback) => {
    const known = this.#known.get(name)
    const answer = (found: { address: string; family: number }[]): void => {
      if (options.all) callback(null, found)
      else callback(null, found[0]!.address, found[0]!.family)
    }
    if (known !== undefined) answer(known)
    lookup(name, { all: true, hints: options.hints }, (fault, found) => {
      if (fault === null && found.length > 0) this.#known.set(name, found)
      if (known !== undefined) return
      if (fault !== null || found.length === 0) callback(fault ?? new Error(`${name} has no address`), '', 0)
      else answer(found)
    })
  }
}
