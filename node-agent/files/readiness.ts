import { isPrimary, knownValue } from '../../shared/protocol/facts.ts'
import { suspendedWhy } from '../../shared/protocol/primary-conditions.ts'
import type { HostState } from '../../shared/protocol/state.ts'
import type { Status } from '../../shared/protocol/status.ts'
import type { OperatorCommand } from '../../shared/protocol/types.ts'
import type { OperatorAnswer } from '../execute.ts'
import type { Workers } from '../workers/supervisor.ts'
import { filesObstacles, filesReport, filesWarnings } from './core-side.ts'
import type { TreeConfig } from './settings.ts'

/**
 * Whether the backup counts as ready as far as files are concerned. While a tree with the policy `required` is further
 * behind than its limit, automatic takeover is suspended in the way an operator suspends it for maintenance: the core
 * makes the backup ineligible, and eligible again once it is proven to have everything. There is no rule of files in the
 * protocol, and one moment in it: the later one of the operator's and this.
 */
export interface FilesReadinessOptions {
  trees: readonly TreeConfig[]
  operator: (command: OperatorCommand) => Promise<OperatorAnswer>
  alarm: (why: string) => void
  note: (why: string) => void
}

/** What is looked at: this host's place in the pair, and what its files worker told last. */
export interface FilesLook {
  state: HostState
  workers: Pick<Workers, 'state'>
}

/** The worker reports as often. */
const lookEveryMs = 1000
/** Until the worker says otherwise: far enough not to be renewed often, bounded for when nobody would. */
const holdMs = 24 * 3_600_000
/** In sync for so long before the backup counts again: each change of the register costs a vote. */
const calmMs = 5000

export class FilesReadiness {
  readonly #options: FilesReadinessOptions
  readonly #required: readonly TreeConfig[]
  #why = ''
  #told: { report: ReturnType<typeof filesReport>; atMs: number } | null = null
  #lookAt = 0
  #heldAt = 0
  #operatorUntil = 0

  constructor(options: FilesReadinessOptions) {
    this.#options = options
    this.#required = options.trees.filter(tree => tree.policy === 'required')
  }

  /** Why automatic takeover is suspended because of files; '' while it is not. */
  get why(): string {
    return this.#why
  }

  /** Files still have their say when the operator's time is over. */
  maintenance(until: number, now: number): Promise<OperatorAnswer> {
    this.#operatorUntil = until
    return this.#suspend(this.#why === '' ? until : Math.max(until, now + holdMs))
  }

  /** @param now CLOCK_BOOTTIME, ms */
  tick(now: number, { state, workers }: FilesLook): void {
    if (now < this.#lookAt) return
    this.#lookAt = now + lookEveryMs
    const report = filesReport(workers)
    this.#options.alarm(filesWarnings(report?.trees ?? []).join('; '))
    if (this.#required.length === 0) return
    if (this.#told === null || this.#told.report !== report) this.#told = { report, atMs: now }
    const why = isPrimary(state) ? this.#obstacle({ silentMs: now - this.#told.atMs, report, state }) : ''
    if (why !== '') return this.#hold(why, { now, suspendedUntil: state.duty.maintenanceUntil })
    if (this.#why === '' || (isPrimary(state) && now - this.#heldAt < calmMs)) return
    this.#why = ''
    this.#options.note('files no longer keep the backup from counting as ready')
    void this.#suspend(this.#operatorUntil)
  }

  #hold(why: string, { now, suspendedUntil }: { now: number; suspendedUntil: number }): void {
    if (this.#why === '') this.#options.note(`the backup does not count as ready: ${why}`)
    this.#why = why
    this.#heldAt = now
    if (suspendedUntil < now + holdMs / 2) void this.#suspend(now + holdMs)
  }

  /** Where files suspend automatic takeover, it is their reason that counts for people, and no maintenance. */
  explain(status: Status, now: number): Status {
    if (this.#why === '' || this.#operatorUntil > now) return status
    const isCause = status.protection === 'serving but unprotected' && status.why === suspendedWhy
    return { ...status, maintenance: false, why: isCause ? this.#why : status.why }
  }

  #suspend(until: number): Promise<OperatorAnswer> {
    return this.#options.operator({ command: 'maintenance', until })
  }

  #obstacle({ silentMs, report, state }: Told & { state: HostState }): string {
    const trees = report?.trees ?? []
    const obstacles = filesObstacles(trees)
    for (const { name, lagLimitS } of this.#required) {
      const isKnown = trees.some(tree => tree.tree === name && tree.role === 'primary')
      // A worker that starts or hangs may be as far behind as it has been silent. A backup that is eligible stays so
      // within the limit; one that is not does not become so on no word at all.
      const isEligible = knownValue(state)?.successor === true
      if ((isKnown && silentMs <= staleMs) || (isEligible && silentMs <= lagLimitS * 1000)) continue
      const silence = `nothing was heard of them for ${Math.round(silentMs / 1000)} s (limit ${lagLimitS} s)`
      obstacles.push(`the files of ${name} are required on the backup, and ${silence}`)
    }
    return obstacles.join('; ')
  }
}

interface Told {
  report: ReturnType<typeof filesReport>
  silentMs: number
}

/** The worker reports each second; a busy machine makes it several. */
const staleMs = 5000
