import { type DesiredDocument, desiredDocument } from '../../shared/contract/api/settings.ts'
import {
  type Ack,
  ack as ackSchema,
  type Command,
  freshDocument,
  type TrustDocument,
} from '../../shared/contract/documents.ts'
import type { HostReport, SaidEvents, SaidReport } from '../../shared/contract/report.ts'
import { type DocumentSigner, documentSigner, sha256Hex, verifyDocument } from '../../shared/contract/signing.ts'
import type { Cloud, PulledDocuments } from './cloud.ts'
import { type CommandContext, judgeCommand, type LocalPolicy } from './commands.ts'
import type { Identity } from './identity.ts'
import { isInMotion } from './link-times.ts'
import type { ControlMemory } from './memory.ts'
import { acceptTrust, keyRing } from './trust.ts'

/** What the link needs of this host; behind it are the core's socket and the workers. */
export interface HostPort {
  /** null: the core does not answer, or this host is in no pair. */
  present: () => Promise<CommandContext['present']>
  state: () => Promise<Pick<HostReport, 'pair' | 'agent'>>
  /** Never throws. `refused`: nothing was done. */
  run: (command: Command, progress: (message: string) => void) => Promise<RunOutcome>
  /** Applies the whole wish, or leaves everything as it was and says why. */
  apply: (wish: DesiredDocument) => Promise<ApplyOutcome>
  /** This process is about to begin anew: what begins now would end in the middle. */
  endsSoon?: () => boolean
}

/** `pending`: it is under way, or waits for something that comes by itself; it is asked again. */
export type ApplyOutcome = { ok: true } | { ok: false; pending?: true; why: string }

export interface RunOutcome {
  phase: 'done' | 'failed' | 'refused'
  message: string
  result?: Record<string, unknown>
}

export interface SessionOptions {
  identity: Identity
  cloud: Pick<Cloud, 'pull' | 'report' | 'ack'>
  memory: ControlMemory
  host: HostPort
  policy: LocalPolicy
  nowMs: () => number
  /** Of the certificate for the broker; null: none. */
  certificateEndsAt?: () => string | null
  /** For the log of this host. */
  note: (why: string) => void
}

/**
 * One host's dealings with its control plane, whichever way documents come: pulled, from the broker, or from the peer.
 * Everything is checked here and remembered before it takes effect; a command runs at most once, whatever is replayed,
 * and its answer is said again when it comes again.
 */
export class ControlSession {
  readonly #options: SessionOptions
  #signer: Promise<DocumentSigner>
  #seq = 0
  #inMotion = false
  #isUnknown = false
  #applied: HostReport['applied'] = { status: 'Unknown', generation: 0, why: '' }
  #observedGeneration = 0
  /** One at a time; whatever came meanwhile is held, and looked at again. */
  #applying = false
  /** Commands that run now, by id: the same one from two ways is one. */
  readonly #running = new Set<string>()
  /** When an answer was told last, by id: a command that comes a thousand times is not answered a thousand times. */
  readonly #toldAtMs = new Map<string, number>()
  /** The held trust document, verified once. */
  #trusted: { text: string; document: TrustDocument | null } | null = null
  #pollAfterSeconds: number = retrySeconds
  /** What could not be verified for want of the trust document, which may come after it. */
  #untrusted: { desired: string | null; fresh: string | null } = { desired: null, fresh: null }

  constructor(options: SessionOptions) {
    this.#options = options
    this.#signer = documentSigner(options.identity.host, options.identity.key)
  }

  /** The last pull was refused: the control plane knows no host by this key. */
  get isUnknown(): boolean {
    return this.#isUnknown
  }

  /** This host has other keys: what was not told yet is signed with them. */
  async keysChanged(): Promise<void> {
    const { identity, memory, nowMs } = this.#options
    this.#signer = documentSigner(identity.host, identity.key)
    const signer = await this.#signer
    for (const seen of memory.present.seen) {
      const last = seen.told ? null : ackIn(seen.ack)
      if (last !== null) await memory.remember({ ...seen, ack: await signer.sign('ack', last) }, nowMs() / 1000)
    }
  }

  /** What the last report told is about to change. */
  get inMotion(): boolean {
    return this.#inMotion
  }

  get observedGeneration(): number {
    return this.#observedGeneration
  }

  /** For a word over the broker, which proves nothing by itself about who said it. */
  async sign(type: 'report' | 'events', word: SaidReport | SaidEvents): Promise<string> {
    return (await this.#signer).sign(type, word)
  }

  /** Reports and heartbeats share one order. */
  nextSeq(): number {
    return ++this.#seq
  }

  /**
   * Pulls, takes what is new, reports.
   * @throws where what is new can't be kept, as on a full disk
   * @returns seconds until the next one, as the control plane asks; null: it was not reached
   */
  async cycle(): Promise<number | null> {
    const pulled = await this.#options.cloud.pull()
    this.#isUnknown = !pulled.ok && pulled.status === 401
    if (!pulled.ok) {
      this.#options.note(`the control plane is not reached: ${pulled.why}`)
      return null
    }
    if (pulled.value !== null) {
      this.#pollAfterSeconds = pulled.value.pollAfterSeconds
      await this.takeDocuments(pulled.value)
    }
    await this.tellAnswers()
    await this.sendReport()
    return this.#pollAfterSeconds
  }

  /** What was taken before this start is applied again without anybody's help: a host comes up with its last wish. */
  async applyHeld(): Promise<void> {
    const { desired } = this.#options.memory.present
    if (desired !== null) await this.takeDesired(desired)
  }

  get applied(): HostReport['applied'] {
    return this.#applied
  }

  /** Commands that were under way as this process ended: whether they were carried out is not known here. */
  async sayUnfinished(): Promise<void> {
    const { memory, identity, nowMs } = this.#options
    const message =
      'the link was started again meanwhile; whether it was carried out is not known here: look at the pair'
    for (const seen of memory.present.seen) {
      const last = ackIn(seen.ack)
      if (last === null || last.phase !== 'accepted') continue
      const ack: Ack = { ...last, host: identity.host, phase: 'progress', message, at: new Date(nowMs()).toISOString() }
      const text = await (await this.#signer).sign('ack', ack)
      await memory.remember({ ...seen, ack: text, told: false }, nowMs() / 1000)
    }
  }

  async takeDocuments(documents: Pick<PulledDocuments, 'trust' | 'desired' | 'fresh' | 'commands'>): Promise<void> {
    await this.takeTrust(documents.trust)
    if (documents.desired !== null) await this.takeDesired(documents.desired)
    await this.takeFresh(documents.fresh)
    await Promise.all(documents.commands.map(text => this.takeCommand(text)))
  }

  async takeTrust(text: string): Promise<void> {
    const { memory, identity, note } = this.#options
    if (text === memory.present.trust) return
    const heldVersion = memory.present.trustVersion
    const trusted = await acceptTrust(text, { rootFingerprint: identity.rootFingerprint, heldVersion })
    if (!trusted.ok) return note(`a trust document is refused: ${trusted.why}`)
    await memory.change({ trust: text, trustVersion: trusted.document.version })
    const { desired, fresh } = this.#untrusted
    this.#untrusted = { desired: null, fresh: null }
    if (desired !== null) await this.takeDesired(desired)
    if (fresh !== null) await this.takeFresh(fresh)
  }

  /** Taken only forwards: what the broker kept, or somebody replays, never sets a setting back. */
  async takeDesired(text: string): Promise<void> {
    const { memory, identity, host, note } = this.#options
    if (memory.present.trust === null) {
      this.#untrusted.desired = text
      return
    }
    const verified = await verifyDocument(text, 'desired', await this.#ring('desired'))
    if (!verified.ok) return note(`a desired document is refused: ${verified.why}`)
    const parsed = desiredDocument.safeParse(verified.payload)
    if (!parsed.success) return note('a desired document is of a form this version does not know')
    const wish = parsed.data
    if (wish.host !== identity.host || wish.organisation !== identity.organisation)
      return note(`a desired document is refused: it is meant for host ${wish.host}`)
    if (wish.generation < memory.present.generation)
      return note(
        `a desired document of generation ${wish.generation} is refused: ${memory.present.generation} was taken`,
      )
    if (wish.generation === this.#observedGeneration && this.#applied.status === 'True') return
    if (text !== memory.present.desired) await memory.change({ generation: wish.generation, desired: text })
    if (this.#applying) return
    this.#applying = true
    try {
      const outcome = await host.apply(wish)
      const why = outcome.ok ? '' : outcome.why.slice(0, whyMax)
      const open = !outcome.ok && outcome.pending === true
      this.#applied = { status: outcome.ok ? 'True' : open ? 'Unknown' : 'False', generation: wish.generation, why }
      if (outcome.ok) this.#observedGeneration = wish.generation
    } finally {
      this.#applying = false
    }
  }

  async takeFresh(text: string): Promise<void> {
    const { memory, identity, note } = this.#options
    if (memory.present.trust === null) {
      this.#untrusted.fresh = text
      return
    }
    const verified = await verifyDocument(text, 'fresh', await this.#ring('desired'))
    const parsed = verified.ok ? freshDocument.safeParse(verified.payload) : null
    if (parsed?.success !== true || parsed.data.host !== identity.host) return note('a word of freshness is refused')
    const { issuedAt, generation, sha256 } = parsed.data
    if (memory.present.freshAt !== null && issuedAt <= memory.present.freshAt) return
    // It says which document is the newest: one that we do not hold is being kept from us, so the word does not count.
    const held = memory.present.desired === null ? '' : await sha256Hex(memory.present.desired)
    if (generation > memory.present.generation || (generation === memory.present.generation && sha256 !== held)) return
    await memory.change({ freshAt: issuedAt })
  }

  async takeCommand(text: string): Promise<void> {
    const { identity, memory, host, policy, nowMs, note } = this.#options
    const [ring, present] = await Promise.all([this.#ring('command'), host.present()])
    const verdict = await judgeCommand(text, {
      host: identity.host,
      organisation: identity.organisation,
      ring,
      tooling: this.#tooling(),
      nowMs: nowMs(),
      present,
      policy,
    })
    if (verdict.verdict === 'ignore') return note(`a command is ignored: ${verdict.why}`)
    const { command } = verdict
    const seen = memory.seen(command.jti)
    if (seen !== null || this.#running.has(command.jti)) {
      const quietMs = nowMs() - (this.#toldAtMs.get(command.jti) ?? 0)
      if (seen !== null && quietMs > repeatAfterMs) await this.#tell(command.jti)
      return
    }
    // It comes again on the way by HTTPS, to the next process.
    if (host.endsSoon?.() === true) return
    if (verdict.verdict === 'refuse') {
      note(`${command.verb} is refused: ${verdict.why}`)
      return this.#answer(command, { phase: 'refused', message: verdict.why })
    }
    this.#running.add(command.jti)
    try {
      // Remembered before it begins: after a crash it is not run again, and says that its outcome is not known.
      const { durable } = await this.#remember(command, { phase: 'accepted', message: 'begins' })
      await durable
      const outcome = await this.#runTelling(command)
      await this.#answer(command, outcome)
    } finally {
      this.#running.delete(command.jti)
    }
  }

  /** That it began is told beside it, and not at all where its end is told at once. */
  async #runTelling(command: Command): Promise<RunOutcome> {
    const { host, note } = this.#options
    const timer = setTimeout(() => {
      this.#tell(command.jti).catch((error: unknown) => note(`an answer is told later: ${String(error)}`))
    }, acceptedAfterMs)
    try {
      return await host.run(command, message => note(`${command.verb}: ${message}`))
    } finally {
      clearTimeout(timer)
    }
  }

  /** What was not told yet, because the control plane was away. */
  async tellAnswers(): Promise<void> {
    const open = this.#options.memory.present.seen.filter(seen => !seen.told)
    for (const { jti } of open.slice(-answersAtOnce)) await this.#tell(jti)
  }

  async sendReport(): Promise<boolean> {
    const { cloud, memory, host, nowMs, note } = this.#options
    const { boot, freshAt } = memory.present
    const { pair, agent } = await host.state()
    this.#inMotion = isInMotion(pair)
    const sent = await cloud.report({
      v: 1,
      boot,
      seq: this.nextSeq(),
      observedGeneration: this.#observedGeneration,
      applied: this.#applied,
      pair,
      agent,
      sentAt: new Date(nowMs()).toISOString(),
      freshAt,
      certificateEndsAt: this.#options.certificateEndsAt?.() ?? null,
    })
    if (!sent.ok) note(`the report is not taken: ${sent.why}`)
    return sent.ok
  }

  /** From the document that was verified when it was taken. */
  #tooling(): CommandContext['tooling'] {
    const { desired } = this.#options.memory.present
    if (desired === null) return null
    const { payload } = JSON.parse(desired) as { payload: string }
    const held = desiredDocument.safeParse(JSON.parse(Buffer.from(payload, 'base64url').toString()))
    return held.success && held.data.pair !== null ? { pair: held.data.pair.id, tools: held.data.tools } : null
  }

  async #ring(use: 'desired' | 'command') {
    const { memory, identity } = this.#options
    const { trust } = memory.present
    if (trust === null) return () => null
    if (this.#trusted?.text !== trust) {
      const trusted = await acceptTrust(trust, { rootFingerprint: identity.rootFingerprint, heldVersion: 0 })
      this.#trusted = { text: trust, document: trusted.ok ? trusted.document : null }
    }
    const { document } = this.#trusted
    return document === null ? () => null : keyRing(document, use)
  }

  /**
   * Told while it becomes durable: after a crash between the two this host says that it does not know the outcome, which
   * the control plane then knows better.
   */
  async #answer(command: Command, outcome: RunOutcome): Promise<void> {
    const { durable } = await this.#remember(command, outcome)
    await Promise.all([durable, this.#tell(command.jti)])
  }

  async #remember(
    command: Command,
    outcome: RunOutcome | { phase: 'accepted'; message: string },
  ): Promise<{ durable: Promise<void> }> {
    const { identity, memory, nowMs } = this.#options
    const ack: Ack = {
      v: 1,
      host: identity.host,
      operation: command.operation,
      jti: command.jti,
      phase: outcome.phase,
      message: outcome.message.slice(0, whyMax),
      percent: null,
      result: 'result' in outcome ? (outcome.result ?? null) : null,
      at: new Date(nowMs()).toISOString(),
    }
    const text = await (await this.#signer).sign('ack', ack)
    const { jti, expiresAt } = command
    return { durable: memory.remember({ jti, expiresAt, ack: text, told: false }, nowMs() / 1000) }
  }

  async #tell(jti: string): Promise<void> {
    const { cloud, memory, nowMs } = this.#options
    const seen = memory.seen(jti)
    if (seen === null || seen.ack === '') return
    if (this.#toldAtMs.size > toldMax) this.#toldAtMs.clear()
    this.#toldAtMs.set(jti, nowMs())
    const sent = await cloud.ack(seen.ack)
    // An answer that came meanwhile is another one, and not told yet.
    if (sent.ok && !seen.told && memory.seen(jti)?.ack === seen.ack) memory.told(jti)
  }
}

/** After a failure, and between two pulls that brought nothing. */
const retrySeconds = 5
/** Most commands are carried out sooner than a person or the control plane would look. */
const acceptedAfterMs = 50
/** As the contract bounds a sentence. */
const whyMax = 500
/** A control plane that was away for long is told in turns. */
const answersAtOnce = 50
/** Less than the control plane waits before it sends a command again. */
const repeatAfterMs = 2_000
const toldMax = 2_048

/** Of our own making, and read back from our own file. */
function ackIn(text: string): Ack | null {
  try {
    const { payload } = JSON.parse(text) as { payload: string }
    const parsed = ackSchema.safeParse(JSON.parse(Buffer.from(payload, 'base64url').toString()))
    return parsed.success ? parsed.data : null
  } catch {
    return null
  }
}
