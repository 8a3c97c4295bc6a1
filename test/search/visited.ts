/**
 * A set of 64-bit hashes, open addressing in two typed arrays. At ten million states the chance that any two of them
 * share a hash is below one in a hundred thousand.
 */
export class Visited {
  private high = new Uint32Array(1 << 16)
  private low = new Uint32Array(1 << 16)
  private mask = (1 << 16) - 1
  size = 0

  /** True if it was not there. */
  add({ high, low }: { high: number; low: number }): boolean {
    // 0,0 marks an empty place.
    const second = low === 0 && high === 0 ? 1 : low
    let at = (high ^ second) & this.mask
    while (this.high[at] !== 0 || this.low[at] !== 0) {
      if (this.high[at] === high && this.low[at] === second) return false
      at = (at + 1) & this.mask
    }
    this.high[at] = high
    this.low[at] = second
    this.size++
    if (this.size * 2 > this.mask) this.grow()
    return true
  }

  private grow(): void {
    const { high, low } = this
    const length = high.length * 2
    this.high = new Uint32Array(length)
    this.low = new Uint32Array(length)
    this.mask = length - 1
    for (let i = 0; i < high.length; i++) {
      if (high[i] === 0 && low[i] === 0) continue
      let at = (high[i]! ^ low[i]!) & this.mask
      while (this.high[at] !== 0 || this.low[at] !== 0) at = (at + 1) & this.mask
      this.high[at] = high[i]!
      this.low[at] = low[i]!
    }
  }
}
