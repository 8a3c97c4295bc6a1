/**
 * The only source of chance in a simulation: sfc32 (Chris Doty-Humphrey, PractRand), seeded by splitmix32.
 * One stream for each concern (`fork`), so that a fault taken out while a failure is shrunk changes as few other draws
 * as possible.
 */
export class Random {
  private a: number
  private b: number
  private c: number
  private d = 1

  constructor(seed: number, label = '') {
    let s = (seed ^ hashOf(label)) | 0
    const split = () => {
      s = (s + 0x9e3779b9) | 0
      let t = s ^ (s >>> 16)
      t = Math.imul(t, 0x21f0aaad)
      t ^= t >>> 15
      t = Math.imul(t, 0x735a2d97)
      return (t ^ (t >>> 15)) | 0
    }
    this.a = split()
    this.b = split()
    this.c = split() ^ Math.floor(seed / 2 ** 32)
    for (let i = 0; i < 12; i++) this.next()
  }

  /** In [0, 1), 32 bits. */
  next(): number {
    const t = (this.a + this.b + this.d) | 0
    this.d = (this.d + 1) | 0
    this.a = this.b ^ (this.b >>> 9)
    this.b = (this.c + (this.c << 3)) | 0
    this.c = ((this.c << 21) | (this.c >>> 11)) + t
    return (t >>> 0) / 4294967296
  }

  chance(probability: number): boolean {
    return probability > 0 && this.next() < probability
  }

  /** Uniform in [low, high). */
  between(low: number, high: number): number {
    return low + (high - low) * this.next()
  }

  /** Like `between`, but each order of magnitude is equally likely: short and long faults alike. */
  spread(low: number, high: number): number {
    return low * (high / low) ** this.next()
  }

  /** An integer in [0, below). */
  below(below: number): number {
    return Math.floor(this.next() * below)
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!
  }

  /** Picks a key by weight. */
  weighted<K extends string>(weights: { readonly [key in K]: number }): K {
    const keys = Object.keys(weights) as K[]
    let rest = this.next() * keys.reduce((sum, key) => sum + weights[key], 0)
    for (const key of keys) {
      rest -= weights[key]
      if (rest < 0) return key
    }
    return keys[keys.length - 1]!
  }
}

function hashOf(text: string): number {
  let h = 0x811c9dc5
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
  return h
}
