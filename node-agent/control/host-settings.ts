import { type DesiredDocument, pairSettings } from '../../shared/contract/api/settings.ts'
import { type AppliedWish, readApplied, takenBack, writeApplied } from '../applied-wish.ts'
import type { Config } from '../config.ts'
import { ConfigError } from '../config.ts'
import { prepareTrees, treeFaults } from '../files/set-up-check.ts'
import { configWith, loadHost } from '../host-file.ts'
import { preflight } from '../preflight.ts'
import type { StatusReport } from '../report/status-report.ts'
import { readState } from '../state-file/state-file.ts'
import type { ApplyOutcome } from './session.ts'
import { changedFields, type PairWish, settingsHash, wholeFields, whyNotLive } from './wished-config.ts'

/**
 * Applies the settings of a wish to this host: checked as a whole, written beside the operator's file, in force from the
 * agent's next start on, which interrupts nothing (what runs is adopted). The backup goes first; the primary follows once
 * the backup runs with the same. A host that does not become well with new settings goes back by itself.
 */
export interface HostSettingsOptions {
  configPath: string
  status: () => Promise<StatusReport | null>
  /** Of the other host, through the core; null: not known. */
  peerHash: () => Promise<string | null>
  restart: (why: string) => Promise<void>
  nowMs: () => number
}

/** A start, its adoption, a reconnect and a busy machine. */
const wellWithinMs = 45_000
/** A backup that is silent for so long is not waited for: it takes the settings when it is back. */
const silentMs = 60_000
const heardMs = 5_000
const whyMax = 450

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
      const why = error instanceof Error ? error.message : String(error)
      return { ok: false, why: why.slice(0, whyMax) }
    }
  }

  /** Settings for a host that is being set up: nothing runs here that would have to be tried. */
  async adoptWhole(wish: PairWish): Promise<Config> {
    const { base, input } = loadHost(this.#options.configPath)
    const rendered = wholeFields(wish, input)
    if (!rendered.ok) throw new Error(rendered.why)
    const config = configWith(input, { path: this.#options.configPath, applied: rendered })
    if (config === null) throw new Error('the wish gives this host no pair')
    await writeApplied(base.stateDir, {
      v: 1,
      hash: await settingsHash(wish.settings),
      settings: wish.settings,
      fields: rendered.fields,
      confirmed: true,
      triedAtMs: 0,
      starts: 0,
      previous: null,
      refused: null,
    })
    return config
  }

  async #apply(wish: PairWish): Promise<ApplyOutcome> {
    const { configPath, nowMs } = this.#options
    const { base, input, config } = loadHost(configPath)
    if (config === null || !readState(base.stateDir).ok) return pending('this host waits for its set-up')
    if (config.pair !== wish.name || config.node !== wish.node)
      return {
        ok: false,
        why: `this host is node ${config.node} of pair ${config.pair}, and the wish is for node ${wish.node} of pair ${wish.name}`,
      }
    const hash = await settingsHash(wish.settings)
    const applied = readApplied(base.stateDir)
    if (applied?.confirmed === false) return this.#confirm(applied, base.stateDir)
    if (applied === null || applied.settings === null) {
      // A pair of the operator's own: what it runs with is what changes are counted from.
      await writeApplied(base.stateDir, { ...firstWish, hash, settings: wish.settings })
      return { ok: true }
    }
    if (applied.hash === hash) return { ok: true }
    if (applied.refused?.hash === hash) return { ok: false, why: applied.refused.why.slice(0, whyMax) }
    const before = pairSettings.parse(applied.settings)
    const rendered = changedFields(wish, { before, fields: applied.fields, base: input })
    if (!rendered.ok) return rendered
    const next = configWith(input, { path: configPath, applied: rendered })
    if (next === null) return { ok: false, why: 'the wish gives this host no pair' }
    const refusal = whyNotLive(config, next)
    if (refusal !== null) return { ok: false, why: refusal }
    if (JSON.stringify(next) === JSON.stringify(config)) {
      await writeApplied(base.stateDir, { ...applied, hash, settings: wish.settings, fields: rendered.fields })
      return { ok: true }
    }
    await preflight(next)
    const waits = await this.#whyNotYet(hash)
    if (waits !== null) return pending(waits)
    if (JSON.stringify(next.sync) !== JSON.stringify(config.sync)) await prepareForTrees(next)
    const previous = { hash: applied.hash, settings: applied.settings, fields: applied.fields }
    const tried = { confirmed: false, triedAtMs: nowMs(), starts: 0, previous, refused: null }
    await writeApplied(base.stateDir, { v: 1, hash, settings: wish.settings, fields: rendered.fields, ...tried })
    await this.#options.restart('new settings of the control plane')
    return pending('the agent starts anew with them')
  }

  /** One host at a time: never both without their agents, and the one that serves last. */
  async #whyNotYet(hash: string): Promise<string | null> {
    const { status, peerHash, nowMs } = this.#options
    const here = await status()
    if (here === null) return 'the core does not answer'
    if (here.role !== 'primary') return null
    const silent = here.peer.heardAgoMs === null || here.peer.heardAgoMs > heardMs
    if (!silent) {
      this.#peerSilentSinceMs = null
      if ((await peerHash()) !== hash) return 'the other host takes them first'
      return here.protection === 'protected'
        ? null
        : `the other host runs with them, and the pair is ${here.protection}`
    }
    this.#peerSilentSinceMs ??= nowMs()
    return nowMs() - this.#peerSilentSinceMs > silentMs ? null : 'the other host is silent, and should take them first'
  }

  async #confirm(applied: AppliedWish, stateDir: string): Promise<ApplyOutcome> {
    const { status, nowMs, restart } = this.#options
    const here = await status()
    const well =
      here !== null &&
      ((here.role === 'primary' && here.serving) ||
        (here.role === 'backup' && here.peer.heardAgoMs !== null && here.peer.heardAgoMs < heardMs))
    if (well) {
      await writeApplied(stateDir, { ...applied, confirmed: true, starts: 0, previous: null })
      return { ok: true }
    }
    const sinceMs = nowMs() - applied.triedAtMs
    if (sinceMs >= 0 && sinceMs < wellWithinMs) return pending('they are tried')
    const why = `this host was not well with them within ${wellWithinMs / 1000} s: ${here?.why ?? 'its core does not answer'}`
    await writeApplied(stateDir, takenBack(applied, why))
    await restart('new settings are taken back')
    return { ok: false, why: why.slice(0, whyMax) }
  }
}

/** Checked and made before the agent starts anew with them. @throws ConfigError */
async function prepareForTrees(config: Config): Promise<void> {
  const faults = await treeFaults(config, { part: 'adds', resumed: false, erase: null, other: [] })
  if (faults.length > 0) throw new ConfigError('this wish', faults)
  await prepareTrees(config, () => undefined)
}

const pending = (why: string): ApplyOutcome => ({ ok: false, pending: true, why })

const firstWish = {
  v: 1,
  fields: {},
  confirmed: true,
  triedAtMs: 0,
  starts: 0,
  previous: null,
  refused: null,
} as const
