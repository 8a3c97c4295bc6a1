import { isIP } from 'node:net'
import { z } from 'zod'
import type { SettingsStand } from './applied-wish.ts'
import type { AdmittedWitness } from './config.ts'
import { offerBytesMax } from './control/key-offer.ts'
import type { Decision, Decisions } from './decisions.ts'
import type { Room } from './disk/policy.ts'
import type { KeyAndCertificate } from './keys/certificates.ts'
import type { AuthoritiesInForce } from './pair/authority.ts'
import type { ClientConnection, PeerLinkPort, VipPort } from './ports.ts'
import { saidHostKey, saidWitnesses } from './witness/places.ts'

/**
 * What the two agents tell each other beside the protocol: the clients of the serving host, so that the other one can
 * make them reconnect at once when it takes over, and the decisions of both for `why`.
 */

/** A client that connects within this time before a loss of its host finds out by its own means. */
const tellEveryMs = 250
const clientsMax = 256
const linesMax = 200
/** A transfer holds 64 KiB. */
const linesBytesMax = 50_000
const limitMs = 1000
const roomEveryMs = 5000
const roomFreshMs = 4 * roomEveryMs
const roomSchema = z.enum(['ample', 'low', 'critical', 'unknown'])

/** They are used in the midst of a takeover, which nothing that the other host has said may end. */
const plainAddress = z.string().refine(text => isIP(text) !== 0 && !text.includes('%'))
const connection = z.object({
  client: plainAddress,
  clientPort: z.int().min(1).max(65_535),
  local: plainAddress,
  localPort: z.int().min(1).max(65_535),
})
const clientsSchema = z.array(connection).max(clientsMax)
const linesSchema = z
  .array(z.object({ id: z.int(), wallMs: z.number(), bootMs: z.number(), epoch: z.int(), why: z.string().max(600) }))
  .max(linesMax)

export interface PeerNewsOptions {
  vip: Pick<VipPort, 'clients'>
  peer: Pick<PeerLinkPort, 'ask'>
  own: () => Decisions
  settings: () => Promise<OwnSettings>
  /** A new one for the other host. @throws with a sentence */
  certificate: () => Promise<KeyAndCertificate>
  /** The other host's own keys, durable here when it resolves. @throws with a sentence */
  keepHostKey: (text: string) => Promise<void>
}

/** What a change of settings has to know of the other host. */
export interface OwnSettings extends SettingsStand {
  witnesses: AdmittedWitness[]
  /** By which a witness of one's own knows this host; null: it can't be read. */
  hostKey: string | null
  /** The pair's new key, while it is changed: sealed and signed (control/key-change.ts). */
  keyOffer: string | null
  /** Whose certificates this host's database shows and takes. */
  authorities: AuthoritiesInForce
}
const settingsSaid = z.object({
  hash: z.string().max(100),
  refused: z.object({ hash: z.string().max(100), why: z.string().max(1000) }).nullable(),
  settled: z.boolean(),
  witnesses: saidWitnesses,
  hostKey: saidHostKey,
  keyOffer: z.string().max(offerBytesMax).nullable().default(null),
  authorities: z
    .object({ shown: z.string().max(64).nullable(), taken: z.array(z.string().max(64)).max(16) })
    .default({ shown: null, taken: [] }),
}) satisfies z.ZodType<OwnSettings>
/** openssl makes a key, a request and a certificate. */
const certificateLimitMs = 20_000
const certificateSaid = z.object({ keyPem: z.string().max(10_000), certificatePem: z.string().max(10_000) })

/** Three keys of 120 bytes; it is written to a disk there, which may be slow. */
const hostKeySaid = z.string().max(1000)
const hostKeyLimitMs = 10_000

export const noAuthorities: AuthoritiesInForce = { shown: null, taken: [] }

/** An agent before this version answers with the hash alone, whatever the question holds. */
const settingsQuestion = 2

export class PeerNews {
  readonly #options: PeerNewsOptions
  #clients: readonly ClientConnection[] = []
  #told = ''
  /** What #told was made of: the same array means the same clients. */
  #toldOf: readonly ClientConnection[] = []
  #room: { said: Room; at: number } = { said: 'unknown', at: 0 }
  #roomToldAt = 0
  #now = 0
  #askedAt = 0
  #asking = false

  constructor(options: PeerNewsOptions) {
    this.#options = options
  }

  /** Clients the other host had when it last told. */
  get clients(): readonly ClientConnection[] {
    return this.#clients
  }

  /** How the other host stands with its disks; unknown when it has not said so lately. */
  room(now: number): Room {
    return now - this.#room.at < roomFreshMs ? this.#room.said : 'unknown'
  }

  /** Tells the room on the disks now and then, and the clients when they changed; one question at a time. */
  tick(now: number, { serving, room }: { serving: boolean; room: Room }): void {
    this.#now = now
    if (now - this.#roomToldAt >= roomEveryMs) {
      this.#roomToldAt = now
      void this.#options.peer.ask({ verb: 'room', body: room, limitMs })
    }
    if (!serving || this.#asking || now - this.#askedAt < tellEveryMs) return
    this.#askedAt = now
    const clients = this.#options.vip.clients()
    if (clients === this.#toldOf) return
    const body = clients.slice(0, clientsMax)
    const text = JSON.stringify(body)
    if (text === this.#told) return
    this.#asking = true
    void this.#options.peer.ask({ verb: 'clients', body, limitMs }).then(answer => {
      this.#asking = false
      if (!answer.ok) return
      this.#told = text
      this.#toldOf = clients
    })
  }

  /** The other host asks. @throws with a sentence for what this version does not know. */
  answer(verb: string, body: unknown): unknown {
    switch (verb) {
      case 'clients':
        this.#clients = clientsSchema.parse(body)
        return null
      case 'room':
        this.#room = { said: roomSchema.parse(body), at: this.#now }
        return null
      case 'settings':
        return body === settingsQuestion ? this.#options.settings() : this.#options.settings().then(({ hash }) => hash)
      case 'certificate':
        return this.#options.certificate()
      case 'hostKey':
        return this.#options.keepHostKey(hostKeySaid.parse(body)).then(() => null)
      case 'why':
        return fitting(this.#options.own().newest(linesMax))
      default:
        throw new Error(`this agent does not know ${JSON.stringify(verb.slice(0, 40))}`)
    }
  }

  /** Which settings are in force on the other host, or why that is not known. */
  async peerSettings(): Promise<{ ok: true; said: OwnSettings } | { ok: false; why: string }> {
    const answer = await this.#options.peer.ask({ verb: 'settings', body: settingsQuestion, limitMs })
    if (!answer.ok) return answer
    const said = z.union([settingsSaid, z.string().max(100)]).safeParse(answer.body)
    if (!said.success) return { ok: false, why: 'the other host answered something else' }
    const older = {
      refused: null,
      settled: true,
      witnesses: [],
      hostKey: null,
      keyOffer: null,
      authorities: noAuthorities,
    }
    return { ok: true, said: typeof said.data === 'string' ? { hash: said.data, ...older } : said.data }
  }

  /** From the authority of the pair, whose key is there. */
  async certificate(): Promise<{ ok: true; made: KeyAndCertificate } | { ok: false; why: string }> {
    const answer = await this.#options.peer.ask({ verb: 'certificate', body: null, limitMs: certificateLimitMs })
    if (!answer.ok) return answer
    const made = certificateSaid.safeParse(answer.body)
    return made.success ? { ok: true, made: made.data } : { ok: false, why: 'the other host answered something else' }
  }

  /** All keys of this host, for the other one to keep. @throws with a sentence */
  async tellHostKey(text: string): Promise<void> {
    const answer = await this.#options.peer.ask({ verb: 'hostKey', body: text, limitMs: hostKeyLimitMs })
    if (!answer.ok) throw new Error(`the other host has to hold the new key too, and does not: ${answer.why}`)
  }

  /** The other host's newest decisions, or why they can't be had. */
  async decisions(): Promise<{ ok: true; lines: Decision[] } | { ok: false; why: string }> {
    const answer = await this.#options.peer.ask({ verb: 'why', body: null, limitMs })
    if (!answer.ok) return answer
    const lines = linesSchema.safeParse(answer.body)
    return lines.success
      ? { ok: true, lines: lines.data }
      : { ok: false, why: 'the other host answered something else' }
  }
}

/** The newest lines that fit into one transfer. */
function fitting(lines: readonly Decision[]): Decision[] {
  let bytes = 0
  const first = lines.findLastIndex(line => {
    bytes += Buffer.byteLength(JSON.stringify(line)) + 1
    return bytes > linesBytesMax
  })
  return lines.slice(first + 1)
}
