/**
 * How much each host may say over the broker to this worker: a bucket of bytes for each, so that one that sends without a
 * pause, by a fault or on purpose, takes the time of no other. Kept in memory, since it is about this process's time: a
 * worker that starts begins with full buckets.
 */
interface Share {
  bytes: number
  atMs: number
}

/** A message costs this much beside its length. */
const messageBytes = 512
/** The greatest report each second or so: an agent sends one of some kilobytes when something changed, and each 30 s. */
export const shareBytesPerSecond = 128 * 1024
/** Of a host that comes back and tells everything at once. */
export const shareBytesMax = 2 * 1024 * 1024
/** Some tens of megabytes; a fleet of this size has several workers. */
const keptMax = 200_000

export class Shares {
  readonly #nowMs: () => number
  readonly #of = new Map<string, Share>()

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs
  }

  /** Whether it is taken; a message that is not taken costs nothing. */
  take(of: string, length: number): boolean {
    const nowMs = this.#nowMs()
    const cost = length + messageBytes
    const known = this.#of.get(of)
    const bytes = known === undefined ? shareBytesMax : refilled(known, nowMs)
    if (bytes < cost) return false
    if (known === undefined && this.#of.size >= keptMax) this.#makeRoom(nowMs)
    this.#of.set(of, { bytes: bytes - cost, atMs: nowMs })
    return true
  }

  #makeRoom(nowMs: number): void {
    for (const [of, share] of this.#of) if (refilled(share, nowMs) >= shareBytesMax) this.#of.delete(of)
    // Names without number are made up by whoever owns the broker, who can keep everybody's words back anyway.
    if (this.#of.size >= keptMax) this.#of.clear()
  }
}

/** A clock that was set back gives nothing. */
const refilled = ({ bytes, atMs }: Share, nowMs: number): number =>
  Math.min(shareBytesMax, bytes + (Math.max(0, nowMs - atMs) / 1000) * shareBytesPerSecond)
