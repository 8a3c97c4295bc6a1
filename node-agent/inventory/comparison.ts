import { z } from 'zod'
import { type HostSummary, hostSummary } from '../../shared/contract/host-summary.ts'
import type { Difference } from '../../shared/hosts/network.ts'
import { summaryDifferences } from '../../shared/hosts/summary.ts'
import type { DataNode } from '../../shared/protocol/types.ts'
import type { PeerLinkPort } from '../ports.ts'

/**
 * Both hosts of a pair held against each other. Each asks the other now and then, naming what it holds, so that in calm
 * nothing travels but the question. One that has news of itself asks at once, naming that too, and is asked back. What is
 * not known (an older agent, a silent host) is no difference.
 */
export const summaryVerb = 'summary'

const askEveryMs = 10_000
const askLimitMs = 2_000
/** Of a host that is silent nothing is known any more. */
const freshMs = 60_000

const shownMax = 5

const questionSchema = z.object({
  sha256: z.string().max(64),
  /** Of the asking host's own summary; '' before its first look. An older agent does not say. */
  own: z.string().max(64).default(''),
})
const answerSchema = z.object({ sha256: z.string().max(64), summary: hostSummary.nullable() })
type Answer = z.output<typeof answerSchema>

interface Held {
  sha256: string
  summary: HostSummary
}

export class HostComparison {
  readonly #node: DataNode
  readonly #peer: Pick<PeerLinkPort, 'ask'>
  #own: Held | null = null
  #theirs: (Held & { heardAt: number }) | null = null
  #found: readonly Difference[] = []
  #askedAt = -Infinity
  #now = 0

  constructor(node: DataNode, peer: Pick<PeerLinkPort, 'ask'>) {
    this.#node = node
    this.#peer = peer
  }

  /** null: not known of this host. */
  get own(): HostSummary | null {
    return this.#own?.summary ?? null
  }

  /** null: not known of the other host, or not lately. */
  get theirs(): HostSummary | null {
    return this.#theirs !== null && this.#now - this.#theirs.heardAt < freshMs ? this.#theirs.summary : null
  }

  /** What differs so that a takeover would miss it; [] also where it is not known. */
  get differences(): readonly Difference[] {
    return this.theirs === null ? [] : this.#found
  }

  /** '' in calm; for people, so cut where there is much. */
  trouble(): string {
    const why = this.differences.map(one => one.why)
    const more = why.length - shownMax
    return [...why.slice(0, shownMax), ...(more > 0 ? [`and ${more} more differences`] : [])].join('; ')
  }

  take(own: Held): void {
    if (own.sha256 !== this.#own?.sha256) this.#askedAt = -Infinity
    this.#own = own
    this.#compare()
  }

  tick(now: number): void {
    this.#now = now
    if (now - this.#askedAt < askEveryMs) return
    this.#askedAt = now
    const body = { sha256: this.#theirs?.sha256 ?? '', own: this.#own?.sha256 ?? '' }
    void this.#peer.ask({ verb: summaryVerb, body, limitMs: askLimitMs }).then(answer => {
      const parsed = answer.ok ? answerSchema.safeParse(answer.body) : null
      if (parsed?.success === true) this.#hear(parsed.data)
    })
  }

  /** The other host asks. */
  answer(body: unknown): Answer {
    const { sha256, own } = questionSchema.parse(body)
    if (own !== '' && own !== this.#theirs?.sha256) this.#askedAt = -Infinity
    if (this.#own === null) return { sha256: '', summary: null }
    return this.#own.sha256 === sha256 ? { sha256, summary: null } : { ...this.#own }
  }

  #hear({ sha256, summary }: Answer): void {
    if (summary === null) {
      if (this.#theirs !== null && sha256 === this.#theirs.sha256) this.#theirs.heardAt = this.#now
      return
    }
    this.#theirs = { sha256, summary, heardAt: this.#now }
    this.#compare()
  }

  #compare(): void {
    const [own, theirs] = [this.#own?.summary, this.#theirs?.summary]
    if (own === undefined || theirs === undefined) return
    this.#found = summaryDifferences(this.#node === 'a' ? { a: own, b: theirs } : { a: theirs, b: own })
  }
}
