import type { NodeId } from '../../shared/protocol/types.ts'
import type { Options } from './options.ts'
import type { Random } from './random.ts'
import type { World } from './world.ts'

/** The most paths between the hosts. */
export const pathsMax = 2

const siteIndex: Record<NodeId, number> = { a: 0, b: 1, w: 2 }

/**
 * Datagrams between the hosts on every path at once, and to the witness on one: lost, doubled, delayed, overtaken, cut
 * in one direction or both. Cuts are counted, so that two faults on one link do not heal each other.
 */
export class Network {
  private readonly world: World
  private readonly options: Options
  private readonly random: Random
  private readonly cuts = new Int16Array(3 * 3 * pathsMax)
  /** Added by faults, for both directions of a link (index from·3+to). */
  private readonly extraLoss = new Float64Array(9)
  private readonly extraDelayMs = new Float64Array(9)
  private quiet = false

  constructor(world: World, options: Options, random: Random) {
    this.world = world
    this.options = options
    this.random = random
  }

  send(from: NodeId, to: NodeId, deliver: () => void): void {
    const paths = from === 'w' || to === 'w' ? 1 : this.options.paths
    for (let path = 0; path < paths; path++) this.sendOn(from, to, path, deliver)
  }

  private sendOn(from: NodeId, to: NodeId, path: number, deliver: () => void): void {
    const link = siteIndex[from] * 3 + siteIndex[to]
    if (this.cuts[link * pathsMax + path]! > 0) return
    const loss = this.quiet ? 0 : this.options.loss + this.extraLoss[link]!
    if (loss > 0 && this.random.chance(loss)) return
    const arrive = () => {
      // A cut also takes what is under way.
      if (this.cuts[link * pathsMax + path]! === 0) deliver()
    }
    this.world.after(this.latency(from, to), arrive)
    if (!this.quiet && this.random.chance(this.options.duplicates)) this.world.after(3 * this.latency(from, to), arrive)
  }

  latency(from: NodeId, to: NodeId): number {
    const far = from === 'w' || to === 'w'
    const base = far ? this.options.witnessMs : this.options.linkMs
    const jitter = far ? this.options.witnessJitterMs : this.options.linkJitterMs
    const x = this.random.next()
    const extra = this.extraDelayMs[siteIndex[from] * 3 + siteIndex[to]]!
    // A long tail: now and then ten times the usual.
    return base + jitter * x * x * (x > 0.995 ? 10 : 1) + (extra > 0 ? extra * this.random.between(0.75, 1.25) : 0)
  }

  /** Whether a TCP segment gets through right now: replication uses the first path. */
  streams(from: NodeId, to: NodeId): boolean {
    return this.cuts[(siteIndex[from] * 3 + siteIndex[to]) * pathsMax]! === 0
  }

  /** Nothing is lost, doubled, held up or cut any more. */
  calm(): void {
    this.cuts.fill(0)
    this.extraLoss.fill(0)
    this.extraDelayMs.fill(0)
    this.quiet = true
  }

  cut(from: NodeId, to: NodeId, path: number, by: 1 | -1): void {
    this.cuts[(siteIndex[from] * 3 + siteIndex[to]) * pathsMax + path]! += by
  }

  cutAll(from: NodeId, to: NodeId, by: 1 | -1): void {
    for (let path = 0; path < pathsMax; path++) this.cut(from, to, path, by)
  }

  worsen(from: NodeId, to: NodeId, change: { loss: number; delayMs: number }): void {
    const link = siteIndex[from] * 3 + siteIndex[to]
    this.extraLoss[link]! += change.loss
    this.extraDelayMs[link]! += change.delayMs
  }
}
