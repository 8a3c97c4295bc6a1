/**
 * A token bucket for each key. Keys come from outside, so their number is bounded: the one that was idle for longest
 * is forgotten, which only gives it a full bucket again.
 */
export class RateLimit {
  readonly #buckets = new Map<string, { tokens: number; at: number }>()
  readonly #perSecond: number
  readonly #burst: number
  readonly #keysMax: number

  constructor(part: { perSecond: number; burst: number; keysMax: number }) {
    this.#perSecond = part.perSecond
    this.#burst = part.burst
    this.#keysMax = part.keysMax
  }

  take(key: string, nowMs: number): boolean {
    const bucket = this.#buckets.get(key) ?? { tokens: this.#burst, at: nowMs }
    bucket.tokens = Math.min(this.#burst, bucket.tokens + ((nowMs - bucket.at) / 1000) * this.#perSecond)
    bucket.at = nowMs
    // Insertion order is the order of use.
    this.#buckets.delete(key)
    if (this.#buckets.size >= this.#keysMax) this.#buckets.delete(this.#buckets.keys().next().value!)
    this.#buckets.set(key, bucket)
    if (bucket.tokens < 1) return false
    bucket.tokens--
    return true
  }
}
