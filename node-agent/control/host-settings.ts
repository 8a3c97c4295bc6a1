import { readFileSync } from 'node:fs'
import { type DesiredDocument, type PairSettings, pairSettings } from '../../shared/contract/api/settings.ts'
import {
  type AppliedWish,
  firstWish,
  readApplied,
  takenBack,
  type WishedFields,
  writeApplied,
} from '../applied-wish.ts'
import type { Config, WitnessConfig } from '../config.ts'
import { prepareWishedTrees } from '../files/set-up-check.ts'
import { configWith, type HostFile, loadHost } from '../host-file.ts'
import type { OwnSettings } from '../peer-news.ts'
import type { StatusReport } from '../report/status-report.ts'
import { readState } from '../state-file/state-file.ts'
import { admittedWitnesses, forgetAdmission } from '../witness/places.ts'
import type { KeyChange } from './key-change.ts'
import type { ApplyOutcome } from './session.ts'
import {
  certifying,
  changesKeys,
  isHeard,
  isWell,
  lacksAlternate,
  mayTellAgain,
  pathsOf,
  peerOf,
  talksBy,
  wayBack,
} from './settling.ts'
import {
  changedFields,
  type PairWish,
  settingsHash,
  wantedWitnesses,
  wholeFields,
  whyNotLive,
  whyUnfit,
  whyUnreachable,
} from './wished-config.ts'

/**
 * Applies the settings of a wish to this host: checked as a whole, written beside the operator's file, in force from the
 * agent's next start on, which interrupts nothing (what runs is adopted). The backup goes first; the primary follows once
 * the backup runs with the same. A host that does not become well with new settings goes back by itself, and so does one
 * whose partner did not take them: both hosts have the same settings, or those before.
 */
export interface HostSettingsOptions {
  configPath: string
  status: () => Promise<StatusReport | null>
  /** Of the other host, through the core; null: not known. */
  peer: () => Promise<OwnSettings | null>
  restart: (why: string) => Promise<void>
  nowMs: () => number
  /** What only this host can tell of a configuration. @throws with a sentence */
  check: (config: Config) => Promise<void>
  /** Of all its interfaces. */
  addresses: () => string[]
  keys: Pick<
    KeyChange,
    'begin' | 'takeBack' | 'isOpen' | 'settle' | 'nextAuthority' | 'certify' | 'isCertified' | 'isInForce'
  >
}

/** A start, its adoption, a reconnect and a busy machine. */
const wellWithinMs = 45_000
/** The other host's turn: it hears of the wish within a minute, and may take as long to find out that it is not well. */
const otherWithinMs = 180_000
/** A backup that is silent for so long takes the settings when it is back. */
const silentMs = 60_000
const whyMax = 450

/** Of one host alone they keep the pair from being protected. */
const coupledFields = ['profile', 'peer', 'witness'] as const

/** `byOther`: this host would take them, and says nothing against them itself. */
type Begun = ApplyOutcome | { ok: false; byOther: true; why: string }

interface Applying {
  wish: PairWish
  hash: string
  host: HostFile & { config: Config }
  applied: AppliedWish
}

export class HostSettings {
  readonly #options: HostSettingsOptions
  #peerSilentSinceMs: number | null = null

  constructor(options: HostSettingsOptions) {
    this.#options = options
  }

  async apply(wish: DesiredDocument): Promise<ApplyOutcome> {
    try {
      return wish.pair === null ? { ok: true } : await this.#apply(wish.pair)
    } catch (error) {
      return { ok: false, why: sentenceOf(error) }
    }
  }

  /** Settings for a host that is being set up: nothing runs here that would have to be tried. */
  async adoptWhole(wish: PairWish): Promise<Config> {
    const { base, input } = loadHost(this.#options.configPath)
    const rendered = wholeFields(wish, input)
    if (!rendered.ok) throw new Error(rendered.why)
    const config = configWith(input, { path: this.#options.configPath, applied: rendered })
    if (config === null) throw new Error('the wish gives this host no pair')
    const hash = await settingsHash(wish.settings)
    await writeApplied(base.stateDir, { ...firstWish, hash, settings: wish.settings, fields: rendered.fields })
    return config
  }

  async #apply(wish: PairWish): Promise<ApplyOutcome> {
    const { base, input, config } = loadHost(this.#options.configPath)
    if (config === null || !readState(base.stateDir).ok) return pending('this host waits for its set-up')
    if (config.pair !== wish.name || config.node !== wish.node)
      return {
        ok: false,
        why: `this host is node ${config.node} of pair ${config.pair}, and the wish is for node ${wish.node} of pair ${wish.name}`,
      }
    const hash = await settingsHash(wish.settings)
    const present = readApplied(base.stateDir)
    if (present?.confirmed === false) return this.#confirm(present, { wish, stateDir: base.stateDir })
    if (present === null || present.settings === null) {
      // A pair of the operator's own: what it runs with is what changes are counted from.
      await writeApplied(base.stateDir, { ...firstWish, hash, settings: wish.settings })
      return { ok: true }
    }
    const open = await this.#settle(present, { wish, hash, stateDir: base.stateDir })
    if (open !== null) return open
    const applied = readApplied(base.stateDir) ?? present
    if (applied.hash === hash && !lacksAlternate(wish, config)) return { ok: true }
    if (applied.refused?.hash === hash) {
      // Whoever took them back may have been killed before the keys were.
      await this.#options.keys.takeBack(config)
      return { ok: false, why: applied.refused.why.slice(0, whyMax) }
    }
    return this.#change({ wish, hash, host: { base, input, config }, applied })
  }

  /** What this host does not begin with it says to the other one as well, which then goes back to what both have. */
  async #change(part: Applying): Promise<ApplyOutcome> {
    const { applied, hash, host } = part
    const peer = await this.#options.peer()
    const outcome = await this.#begin(part, peer).catch(
      (error: unknown): Begun => ({ ok: false, why: sentenceOf(error) }),
    )
    const isOwn = !outcome.ok && !('pending' in outcome) && !('byOther' in outcome)
    const unfit = isOwn ? { hash, why: outcome.why } : null
    if (!outcome.ok && JSON.stringify(unfit) !== JSON.stringify(applied.unfit)) {
      const present = readApplied(host.base.stateDir)
      if (present?.confirmed === true) await writeApplied(host.base.stateDir, { ...present, unfit })
    }
    return outcome
  }

  async #begin({ wish, hash, host, applied }: Applying, peer: OwnSettings | null): Promise<Begun> {
    const { configPath, nowMs, status, restart, check, addresses } = this.#options
    const { config, input, base } = host
    const before = pairSettings.parse(applied.settings)
    const rendered = changedFields(wish, { before, fields: applied.fields, base: input })
    if (!rendered.ok) return rendered
    const changesWitness = rendered.fields.witness !== applied.fields.witness || lacksAlternate(wish, config)
    const parsed = (fields: WishedFields): Config => {
      const next = configWith(input, { path: configPath, applied: { fields } })
      if (next === null) throw new Error('the wish gives this host no pair')
      return next
    }
    const changesPaths = JSON.stringify(rendered.fields.peer) !== JSON.stringify(applied.fields.peer)
    const wanted = changesPaths ? { ...rendered.fields, peer: pathsOf(rendered.fields, config) } : rendered.fields
    const planned = parsed({ ...wanted, witness: config.witness })
    const here = await status()
    if (here === null) return pending('the core does not answer')
    // What the present witness takes says nothing of another one.
    const voteP99Ms = changesWitness ? null : (here.witness?.voteP99Ms ?? null)
    const misfit = whyUnfit(planned, { profile: config.profile, voteP99Ms })
    const refusal = whyNotLive(config, planned) ?? misfit ?? whyUnreachable(config, planned, addresses())
    if (refusal !== null) return { ok: false, why: refusal }
    await check(planned)
    if (peer?.refused?.hash === hash)
      return { ok: false, byOther: true, why: `the other host did not take them: ${peer.refused.why}`.slice(0, whyMax) }
    const newKeys = before.keyChange === wish.settings.keyChange ? null : wish.settings.keyChange
    const wantsOther = changesWitness || changesPaths || newKeys !== null
    const same = !changesWitness && newKeys === null && JSON.stringify(planned) === JSON.stringify(config)
    const waits = same ? null : this.#whyNotYet(here, { hash, peer, wantsOther })
    if (waits !== null) return pending(waits)
    const fields = changesWitness
      ? { ...wanted, witness: await this.#admitted(wish, { host, hash, peer, here, before }) }
      : wanted
    const next = parsed(fields)
    if (newKeys === null && JSON.stringify(next) === JSON.stringify(config)) {
      await writeApplied(base.stateDir, { ...applied, hash, settings: wish.settings, fields, unfit: null })
      return { ok: true }
    }
    if (JSON.stringify(next.sync) !== JSON.stringify(config.sync)) await prepareWishedTrees(next)
    if (newKeys !== null) {
      const offer = peer?.hash === hash ? (peer.keyOffer ?? '') : null
      await this.#options.keys.begin(next, { wish, name: newKeys, offer, usesNewestKey: here.peer.usesNewestKey })
    }
    const previous = wayBack({ applied, config, next })
    const tried = { confirmed: false, triedAtMs: nowMs(), starts: 0, previous, refused: null, unfit: null }
    await writeApplied(base.stateDir, { v: 1, hash, settings: wish.settings, fields, ...tried })
    await restart('new settings of the control plane')
    return pending('the agent starts anew with them')
  }

  /** The host that goes first has the witness admit the pair; the other one takes what came of it. */
  async #admitted(
    wish: PairWish,
    part: Omit<Applying, 'wish' | 'applied'> & { peer: OwnSettings | null; here: StatusReport; before: PairSettings },
  ): Promise<WitnessConfig | null> {
    const { host, hash, peer, here, before } = part
    const wanted = wantedWitnesses(wish)
    if (!wanted.ok) throw new Error(wanted.why)
    if (wanted.value === null) return null
    const tokenFile = host.base.control.witnessTokenFile
    // An admission that was asked for once is none of this change.
    const asked = wish.settings.witnessAdmission
    const anew = asked === before.witnessAdmission ? null : asked
    return admittedWitnesses(
      { ...wanted.value, anew },
      {
        config: host.config,
        inUse: here.witness?.alternate?.isMember ? 'alternate' : 'first',
        taken: peer?.hash === hash ? peer.witnesses : [],
        otherKey: ({ hosted }) => (hosted ? wish.peer.publicKey : (peer?.hostKey ?? null)),
        enrolmentToken: () => (tokenFile === null ? null : readFileSync(tokenFile, 'utf8').trim()),
      },
    )
  }

  /** One host at a time: never both without their agents, and the one that serves last. */
  #whyNotYet(
    here: StatusReport,
    { hash, peer, wantsOther }: { hash: string; peer: OwnSettings | null; wantsOther: boolean },
  ): string | null {
    if (here.role !== 'primary') {
      // Both could take this host's part otherwise: ask the witness, or make a key.
      const hearsPrimary = here.role === 'backup' && isHeard(here)
      return wantsOther && !hearsPrimary
        ? `this host is ${here.role} and hears no primary, which has its part in this`
        : null
    }
    const { nowMs } = this.#options
    if (isHeard(here)) {
      this.#peerSilentSinceMs = null
      if (peer?.hash !== hash) return 'the other host takes them first'
      // Not "protected": with one profile here and another there the pair is not, until this host follows.
      if (!here.replication.streaming) return 'the other host runs with them, and does not stream from here yet'
      return null
    }
    this.#peerSilentSinceMs ??= nowMs()
    if (wantsOther)
      return 'the other host is silent, and has its part in a change of the witness, the keys or the hosts’ addresses'
    return nowMs() - this.#peerSilentSinceMs > silentMs ? null : 'the other host is silent, and should take them first'
  }

  async #confirm(
    applied: AppliedWish,
    { wish, stateDir }: { wish: PairWish; stateDir: string },
  ): Promise<ApplyOutcome> {
    const { status, nowMs } = this.#options
    const here = await status()
    if (here !== null && isWell(here, applied)) {
      const confirmed = { ...applied, confirmed: true, triedAtMs: nowMs(), starts: 0 }
      await writeApplied(stateDir, confirmed)
      return (await this.#settle(confirmed, { wish, hash: applied.hash, stateDir })) ?? { ok: true }
    }
    const sinceMs = nowMs() - applied.triedAtMs
    if (sinceMs >= 0 && sinceMs < wellWithinMs) return pending('they are tried')
    const said = here?.witness?.why || here?.why || 'its core does not answer'
    return this.#goBack(applied, {
      stateDir,
      why: `this host was not well with them within ${wellWithinMs / 1000} s: ${said}`,
    })
  }

  /** Proven here: those before are kept until the other host has them too. null: nothing is open. */
  async #settle(
    applied: AppliedWish,
    part: { wish: PairWish; hash: string; stateDir: string },
  ): Promise<ApplyOutcome | null> {
    const { wish, hash, stateDir } = part
    if (applied.previous === null) return null
    const { status, peer, nowMs } = this.#options
    const [here, theirs] = [await status(), await peer()]
    if (here === null) return pending('the core does not answer')
    const settled = async (): Promise<ApplyOutcome | null> => {
      const left = await this.#letGo(applied, { wish, stateDir, here, theirs })
      if (left !== null) return left
      await writeApplied(stateDir, { ...applied, previous: null })
      await forgetAdmission(stateDir)
      return null
    }
    if (theirs?.hash === applied.hash) return settled()
    if (theirs?.refused?.hash === applied.hash)
      return this.#goBack(applied, { stateDir, why: `the other host did not take them: ${theirs.refused.why}` })
    // Something newer is wanted meanwhile: that is tried, and those before stay the way back.
    if (hash !== applied.hash) return null
    const { fields } = applied.previous
    const coupled =
      changesKeys(applied) ||
      coupledFields.some(name => JSON.stringify(fields[name]) !== JSON.stringify(applied.fields[name]))
    if (!isHeard(here) && (here.role === 'primary' || !coupled)) return settled()
    const sinceMs = nowMs() - applied.triedAtMs
    if (sinceMs >= 0 && sinceMs < otherWithinMs) return pending('this host runs with them, and the other one not yet')
    if (!coupled) return settled()
    // It may have taken them, and let those before go: whoever went back then would have nothing in common with it any more.
    if (changesKeys(applied) && (theirs === null || this.#isCertified()))
      return pending('old and new keys are taken until the other host says that it has taken them, or has not')
    return this.#goBack(applied, {
      stateDir,
      why: `the other host did not take them within ${otherWithinMs / 1000} s, and the pair is not protected with them on one host alone`,
    })
  }

  /** Addresses and keys before go once the hosts have talked by the new ones, both ways. null: there are none. */
  async #letGo(
    applied: AppliedWish,
    part: { wish: PairWish; stateDir: string; here: StatusReport; theirs: OwnSettings | null },
  ): Promise<ApplyOutcome | null> {
    const { wish, stateDir, here, theirs } = part
    const { nowMs, restart, keys } = this.#options
    const { config } = loadHost(this.#options.configPath)
    const present = applied.fields.peer
    const last = present === undefined ? undefined : peerOf(wish, applied)
    const hasPaths = last !== undefined && JSON.stringify(last) !== JSON.stringify(present)
    const hasKey = config !== null && changesKeys(applied) && keys.isOpen(config)
    if (!hasPaths && !hasKey) return null
    const what = hasPaths ? 'addresses' : 'key'
    if ((hasPaths && !talksBy(here, last)) || (hasKey && !here.peer.usesNewestKey)) {
      // Whoever went back now would have nothing in common with the other host any more.
      if (theirs === null) return pending(`the other host is silent: old and new ${what} stay until it is heard`)
      if (theirs.settled) return pending(`the other host has let the old ${what} go, and is not heard by the new`)
      const sinceMs = nowMs() - applied.triedAtMs
      if (this.#isCertified() || (sinceMs >= 0 && sinceMs < otherWithinMs))
        return pending(`nothing came by the new ${what} of the hosts yet`)
      const why = `the hosts did not hear each other by their new ${what} within ${otherWithinMs / 1000} s`
      return this.#goBack(applied, { stateDir, why })
    }
    const uncertified = hasKey ? await this.#certify(applied, { config, stateDir, here, theirs }) : null
    if (uncertified !== null) return uncertified
    if (here.role === 'primary' && theirs?.settled !== true)
      return pending(`the other host lets the old ${what} go first`)
    if (hasKey) await keys.settle(config)
    const fields = hasPaths ? { ...applied.fields, peer: last } : applied.fields
    await writeApplied(stateDir, { ...applied, fields, previous: null })
    await restart(`the old ${what} of the hosts ${hasPaths ? 'are' : 'is'} let go`)
    return pending(`the agent starts anew without the old ${what}`)
  }

  /** Certificates of the pair's new authority, which both hosts trust beside the one before. null: both show theirs. */
  async #certify(
    applied: AppliedWish,
    part: { config: Config; stateDir: string; here: StatusReport; theirs: OwnSettings | null },
  ): Promise<ApplyOutcome | null> {
    const { config, stateDir, here, theirs } = part
    const { keys, nowMs, restart } = this.#options
    const wanted = keys.nextAuthority(config)
    if (wanted === null) return null
    const next = certifying({ wanted, hash: applied.hash, role: here.role, theirs })
    try {
      const isMade = next.may && (await keys.certify(config))
      if (isMade || (!keys.isInForce(config) && mayTellAgain(here, nowMs()))) {
        await restart('certificates of the new authority of the pair')
        return pending('the agent starts anew with certificates of the new authority')
      }
    } catch (error) {
      if (keys.isCertified(config) || theirs?.settled === true) throw error
      return this.#goBack(applied, { stateDir, why: sentenceOf(error) })
    }
    if (next.waits === null) return null
    const sinceMs = nowMs() - applied.triedAtMs
    if (keys.isCertified(config) || (sinceMs >= 0 && sinceMs < otherWithinMs)) return pending(next.waits)
    return this.#goBack(applied, { stateDir, why: `${next.waits} within ${otherWithinMs / 1000} s` })
  }

  /** By the new authority, which is when the other host may let the one before go: no way back by the clock from then on. */
  #isCertified(): boolean {
    const { config } = loadHost(this.#options.configPath)
    return config !== null && this.#options.keys.isCertified(config)
  }

  async #goBack(applied: AppliedWish, { stateDir, why }: { stateDir: string; why: string }): Promise<ApplyOutcome> {
    await writeApplied(stateDir, takenBack(applied, why))
    const { config } = loadHost(this.#options.configPath)
    if (changesKeys(applied) && config !== null) await this.#options.keys.takeBack(config)
    await this.#options.restart('new settings are taken back')
    return { ok: false, why: why.slice(0, whyMax) }
  }
}

const sentenceOf = (error: unknown): string => (error instanceof Error ? error.message : String(error)).slice(0, whyMax)
const pending = (why: string): ApplyOutcome => ({ ok: false, pending: true, why })
